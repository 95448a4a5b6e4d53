"""What the readers of streams have in common when every event passes on untouched: whole events out, whatever the cuts coming in."""

import msgspec

from holdfast.errors import MalformedRequest
from holdfast.wire.sse import Event, Splitter


class EventReader:
    """Base of a `StreamReader`: a subclass reads one event at a time, and what it cannot read passes on all the same.

    An event leaves only when it is whole: a failure reported after a torn one would be read as part of it.
    """

    def __init__(self) -> None:
        self.committed = False
        self.ended = False
        self.error: bytes | None = None
        self.generated_bytes = 0
        self.tools: set[str] = set()
        self._splitter = Splitter()

    def feed(self, data: bytes) -> bytes:
        events = self._splitter.feed(data)
        for event in events:
            try:
                self._read(event)
            except (msgspec.MsgspecError, ValueError, RecursionError, MalformedRequest):
                continue
        return b"".join([event.raw for event in events])

    def flush(self) -> bytes:
        return self._splitter.flush()

    def _read(self, event: Event) -> None:
        """May raise what msgspec raises, or MalformedRequest, on data that is not of the format."""
        raise NotImplementedError

    def _count(self, text: str) -> None:
        """Take note of generated content, which commits the stream."""
        self.committed = True
        self.generated_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
