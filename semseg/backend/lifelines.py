"""Sockets between the first process and each of the others: one that goes is missed at once, and one speaks for all."""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from semseg.errors import ResourceError

GRACE = 8.0  # seconds for the main thread to end by itself once another process has gone
ANSWER = 2.0  # seconds in which the first process says who may speak
_ASK, _YES, _NO, _TOLD, _BYE = (bytes([number]) for number in range(1, 6))
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # a computer that is cut off: 20 s


class LostError(ResourceError):
    """Another process has gone (exit code 6)."""


def listen() -> socket.socket:
    """Where the first process waits for the others, at a free port."""
    return socket.create_server(("", 0), backlog=1024)


def accept(server: socket.socket, count: int) -> dict[int, socket.socket]:
    """The connections from so many others, by rank."""
    lines: dict[int, socket.socket] = {}
    with server:
        server.settimeout(300)
        while len(lines) < count:
            line, _ = server.accept()
            line.settimeout(60)
            lines[int.from_bytes(line.recv(4, socket.MSG_WAITALL), "big")] = line
    return lines


def reach(host: str, port: int, rank: int) -> dict[int, socket.socket]:
    """The connection of another process to the first, by its rank."""
    line = socket.create_connection((host, port), 60)
    line.sendall(rank.to_bytes(4, "big"))
    return {0: line}


class Lifelines:
    """Knows who has gone and whether anyone has said why; ends a process that does not end by itself.

    Args:
        rank: Of this process.
        names: What each process is called in messages.
        lines: From `accept` or `reach`.
        say: Says the one line where the main thread cannot.
    """

    def __init__(self, rank: int, names: Sequence[str], lines: Mapping[int, socket.socket], say: Callable[[str], None]):
        self.rank, self.names, self.lines, self.say = rank, names, lines, say
        self.gone: int | None = None  # who went without a word
        self.told = False  # whether somebody has said, or is saying, why all end
        self._answer: bool | None = None
        self._parted: set[int] = set()
        self._left = False
        self._changed = threading.Condition()
        for other, line in lines.items():
            _keep_alive(line)
            threading.Thread(target=self._listen, args=(other, line), daemon=True, name="semseg-lifeline").start()

    def is_lost(self, seconds: float = 0.0) -> bool:
        """Whether all are to end, as another process has gone or has said why; looked at for so long."""
        with self._changed:
            return self._changed.wait_for(lambda: self.gone is not None or self.told, seconds)

    def may_speak(self) -> bool:
        """Whether it is this process that says why all end; the others hear that somebody does."""
        if self.rank == 0:
            return self._grant(0)
        with self._changed:
            if not self.told and self.gone is None:
                _send(self.lines[0], _ASK)
                self._changed.wait_for(lambda: self._answer is not None or self.told or self.gone is not None, ANSWER)
            if self._answer is not None:
                return self._answer
            speaks, self.told = not self.told, True
            return speaks and (self.gone is None or self.rank == 1)

    def part(self) -> None:
        """Tells the others that this process ends, and why is known."""
        self._left = True
        for line in self.lines.values():
            _send(line, _BYE)

    def words(self, beyond: str) -> str:
        """What is said of the process that has gone.

        Args:
            beyond: How to go on.
        """
        name = self.names[self.gone or 0]
        return f"{name}: has gone without a word (killed, or short of memory?); {beyond}"

    def _listen(self, other: int, line: socket.socket) -> None:
        try:
            while word := line.recv(1):
                self._hear(other, word)
        except OSError:  # reset, or out of reach
            pass
        with self._changed:
            if not (self._left or self.told or other in self._parted):
                self.gone = other
            self._changed.notify_all()
        if self.gone == other:
            self._end()

    def _hear(self, other: int, word: bytes) -> None:
        if word == _ASK:
            _send(self.lines[other], _YES if self._grant(other) else _NO)
        with self._changed:
            if word in (_YES, _NO):
                self._answer = word == _YES
            elif word == _TOLD:
                self.told = True
            elif word == _BYE:
                self._parted.add(other)
            self._changed.notify_all()
        if word in (_ASK, _TOLD):
            threading.Thread(target=self._end, daemon=True, name="semseg-end").start()

    def _grant(self, rank: int) -> bool:
        """In the first process: whether one may speak, which the others then hear."""
        with self._changed:
            granted, self.told = not self.told, True
            self._changed.notify_all()
        for other, line in self.lines.items():
            if granted and other != rank:
                _send(line, _TOLD)
        return granted

    def _end(self) -> None:
        """Ends the process if it does not end by itself; at once where JAX would, with the first process gone."""
        if not (self.rank and self.gone == 0):
            time.sleep(GRACE)
        if self._left:
            return
        if self.gone is not None and self.may_speak():
            self.say(self.words("the same command goes on from the last state that was saved"))
        os._exit(LostError.exit_code)


def _keep_alive(line: socket.socket) -> None:
    line.settimeout(None)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # not on every system
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _send(line: socket.socket, word: bytes) -> None:
    with suppress(OSError):  # the other one has gone, which its own thread notices
        line.sendall(word)
