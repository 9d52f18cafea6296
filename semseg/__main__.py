"""`python -m semseg <command>`."""

import sys

from semseg.cli import commands

sys.exit(commands())
