"""Server-sent events (WHATWG HTML, section 9.2) as model providers stream them: split incrementally, whatever the cuts."""

from msgspec import Struct

MAX_EVENT = 16 * 1024 * 1024
"""Bytes of one event that are held before its end came; a longer one is passed on unread."""


class Event(Struct, frozen=True):
    """One event. raw: its bytes with the blank line that ends it; name: its `event:` field; data: its data lines joined."""

    raw: bytes
    name: bytes
    data: bytes


class Splitter:
    """Cuts a byte stream into events; accepts LF, CRLF and CR line ends and any split of the bytes."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes; the rest is held."""
        if self._held:
            data = self._held + data
        events: list[Event] = []
        start = 0
        while (end := _event_end(data, start)) > 0:
            events.append(_parse(data[start:end]))
            start = end
        self._held = data[start:]
        if len(self._held) > MAX_EVENT:
            events.append(Event(self._held, b"", b""))
            self._held = b""
        return events

    def flush(self) -> bytes:
        """What is held of an event that never ended."""
        held, self._held = self._held, b""
        return held


def _event_end(data: bytes, start: int) -> int:
    """Where the event that begins at `start` ends (after its blank line), or 0 while it is incomplete."""
    ends = [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n", b"\r\r") if (at := data.find(mark, start)) >= 0]
    return min(ends, default=0)


def _parse(raw: bytes) -> Event:
    name = b""
    lines: list[bytes] = []
    for line in raw.splitlines():
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[6:].strip()
    return Event(raw, name, lines[0] if len(lines) == 1 else b"\n".join(lines))
