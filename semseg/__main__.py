"""`python -m semseg <command>`, and the program `semseg`."""

from semseg.cli import commands, end


def program() -> None:
    """Runs the command that the process was started with, and ends the process."""
    end(commands())


if __name__ == "__main__":
    program()
