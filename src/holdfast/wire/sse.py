"""Server-sent events (WHATWG HTML, section 9.2) as model providers stream them: split incrementally, whatever the cuts."""

import re

from msgspec import Struct

MAX_EVENT = 16 * 1024 * 1024
"""Bytes of one event that are held before its end came; a longer one is passed on unread."""

_BLANK_LINE = re.compile(rb"(?>\r\n?|\n)(?>\r\n?|\n)")
"""The end of a line and an empty line after it. Atomic groups: CRLF is one line end, never two."""
_LINE_END = re.compile(rb"\r\n?|\n")
BOM = b"\xef\xbb\xbf"


class Event(Struct, frozen=True, gc=False):
    """One event. raw: its bytes with the blank line that ends it; name: its `event:` field; data: its data lines joined.

    Comments and stray blank lines are events without data: their bytes are passed on like any other.
    """

    raw: bytes
    name: bytes
    data: bytes


class Splitter:
    """Cuts a byte stream into events; accepts LF, CRLF and CR line ends, also mixed, and any split of the bytes.

    The `raw` of all events and what `flush` returns are together exactly the bytes that were fed. A blank line whose CR ends a feed is
    taken as it stands, so that no event waits for the next one; the LF that may follow belongs to the next event.
    """

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def holding(self) -> bool:
        """Whether bytes of an unfinished event are held."""
        return bool(self._held)

    def plain(self, data: bytes) -> bytes | None:
        """The data of an event that begins and ends with `data` and is one line of data and nothing else, which is how models stream;
        None for all else, which is for `feed`."""
        if not self._held and data.startswith(b"data: ") and data.endswith(b"\n\n"):
            return data[6:-2] if data.find(b"\n") == len(data) - 2 and b"\r" not in data else None
        return None

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes; the rest is held."""
        if self._held:
            seam = len(self._held) - 1  # no blank line is held, so a new one begins at the last byte at the earliest
            self._held += data
            if _BLANK_LINE.search(self._held, seam) is None:
                return self._overflow()
            data = self.flush()
        events: list[Event] = []
        start = 0
        for end in _event_ends(data):
            events.append(_parse(data[start:end] if end - start < len(data) else data))
            start = end
        if start < len(data):
            self._held += data[start:]
            events += self._overflow()
        return events

    def flush(self) -> bytes:
        """What is held of an event that never ended."""
        held = bytes(self._held)
        self._held.clear()
        return held

    def _overflow(self) -> list[Event]:
        return [Event(self.flush(), b"", b"")] if len(self._held) > MAX_EVENT else []


def _event_ends(data: bytes) -> list[int]:
    if b"\r" in data:
        return [blank.end() for blank in _BLANK_LINE.finditer(data)]
    ends: list[int] = []
    end = 0
    while at := data.find(b"\n\n", end) + 1:
        end = at + 1
        ends.append(end)
    return ends


def _parse(raw: bytes) -> Event:
    if raw.startswith(b"data: ") and raw.endswith(b"\n\n") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:
        return Event(raw, b"", raw[6:-2])
    name = b""
    lines: list[bytes] = []
    for line in _LINE_END.split(raw.removeprefix(BOM)):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return Event(raw, name, b"\n".join(lines))
