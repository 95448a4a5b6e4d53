"""Lines of a file, backwards or as they arrive, in blocks: neither the file nor more than one line is ever held in memory."""

import os
from collections.abc import Iterator

from msgspec import Struct

BLOCK = 64 << 10


class Line(Struct, frozen=True):
    """A line without its newline. offset: of its first byte in the file. ended: False for what follows the last newline."""

    offset: int
    data: bytes
    ended: bool = True


def lines_backward(descriptor: int, size: int, block: int = BLOCK) -> Iterator[Line]:
    """The lines within the first `size` bytes, last first; empty lines are left out."""
    pieces: list[bytes] = []  # of the line that begins further left, its end first
    at, ended = size, False
    while at > 0:
        start = max(0, at - block)
        offset = at
        left, *complete = os.pread(descriptor, at - start, start).split(b"\n")
        for piece in reversed(complete):
            offset -= len(piece)
            pieces.append(piece)
            if line := b"".join(reversed(pieces)):
                yield Line(offset, line, ended)
            pieces.clear()
            ended = True
            offset -= 1
        pieces.append(left)
        at = start
    if line := b"".join(reversed(pieces)):
        yield Line(0, line, ended)


class LinesForward:
    """The lines of a growing file from `offset` on."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset  # of the next byte to read
        self._held = bytearray()  # the beginning of a line that has not ended yet

    def read(self, descriptor: int, block: int = BLOCK) -> Iterator[Line]:
        """The lines that ended since the last call; an unfinished one waits for its newline."""
        while data := os.pread(descriptor, block, self.offset):
            begin = self.offset - len(self._held)
            self.offset += len(data)
            first, *rest = data.split(b"\n")
            self._held += first
            for piece in rest:
                line = bytes(self._held)
                if line:
                    yield Line(begin, line)
                begin += len(line) + 1
                self._held = bytearray(piece)
