"""A request's body on its way from its connection to whoever takes it, piece by piece: what is held of it is bounded."""

from typing import Protocol

from holdfast.execution.upstream import BodySink

ROOM_BYTES = 64 * 1024
"""Bytes held above which the connection is not read any more; one read of it may be held beyond that."""

MOST_HELD_BYTES = 256 * 1024
"""What an upload may hold in all: here, the read that went beyond, and unsent bytes on the way to the upstream."""

_LOOSE_PIECES = 256
"""Pieces kept as they came; more are joined, because a client may send two bytes at a time and each object costs forty."""


class Giver(Protocol):
    """The connection that a body comes in on."""

    def upload_wanted(self) -> None:
        """All that was read is used up; there is room for more."""


class Upload:
    """A `holdfast.execution.upstream.BodySource`. complete: the last byte has come in. giver: set while more may come.

    Pieces come in while llhttp is at work, and must not lead anywhere then: `deliver` hands them on afterwards.
    """

    __slots__ = ("_ended", "_paused", "_pieces", "_sink", "complete", "giver", "held", "length", "started")

    def __init__(self, length: int | None) -> None:
        self.length = length
        self.complete = False
        self.started = False
        self.held = 0
        self.giver: Giver | None = None
        self._pieces: list[bytes] = []
        self._sink: BodySink | None = None
        self._paused = False
        self._ended = False

    def start(self, sink: BodySink) -> None:
        self.started = True
        self._sink = sink
        self.deliver()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self.deliver()

    def stop(self) -> None:
        self._sink = None
        self._forget()

    def push(self, data: bytes) -> None:
        """The next bytes of the body."""
        pieces = self._pieces
        pieces.append(data)
        self.held += len(data)
        if len(pieces) == _LOOSE_PIECES:
            self._pieces = [b"".join(pieces)]

    def finish(self) -> None:
        """The last byte was pushed."""
        self.complete = True
        self.giver = None

    def whole(self) -> bytes:
        """All of a complete body that nobody has begun to take."""
        body = b"".join(self._pieces)
        self._forget()
        return body

    def deliver(self) -> None:
        """Hand on what came in, as far as its taker has room."""
        while self._pieces and self._sink is not None and not self._paused:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._forget()
            self._sink.body_data(data)
        if self._sink is None or self._paused:
            return
        if not self.complete:
            if self.giver is not None:
                self.giver.upload_wanted()
        elif not self._ended:
            self._ended = True
            sink, self._sink = self._sink, None
            sink.body_ended()

    def _forget(self) -> None:
        self._pieces.clear()
        self.held = 0
