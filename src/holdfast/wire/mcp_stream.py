"""The stream of server-sent events in which an MCP server answers, or tells what happens: read event by event on its way."""

import re

from holdfast.errors import MalformedAnswer, MalformedRequest
from holdfast.wire.mcp import AnswerReader
from holdfast.wire.sse import BOM, MAX_EVENT, Event, Splitter

_LINE = re.compile(rb"[^\r\n]*(?:\r\n?|\n)")


class McpStream:
    """Passes whole events on. guarded: what cannot be read must not pass, because tools are kept from the agent."""

    def __init__(self, reader: AnswerReader, *, guarded: bool) -> None:
        self._reader = reader
        self._guarded = guarded
        self._splitter = Splitter()

    def feed(self, data: bytes) -> bytes:
        """What is to be passed on of the events that `data` completes; raises MalformedAnswer where the stream must end."""
        return b"".join([self._read(event) for event in self._splitter.feed(data)])

    def flush(self) -> bytes:
        """An event without its end is none."""
        self._splitter.flush()
        return b""

    def _read(self, event: Event) -> bytes:
        if event.name == b"endpoint":
            raise MalformedAnswer("the server speaks the old HTTP+SSE transport of MCP, which is not passed on: use its streamable HTTP")
        if len(event.raw) > MAX_EVENT and not event.data:
            raise MalformedAnswer(f"an event is longer than {MAX_EVENT >> 20} MiB")
        if not event.data:
            return event.raw
        try:
            instead = self._reader.read(event.data)
        except MalformedRequest as error:
            if self._guarded:
                raise MalformedAnswer(f"an event holds no JSON-RPC message: {error}") from None
            return event.raw
        return event.raw if instead is None else _with_data(event.raw, instead)


def _with_data(raw: bytes, data: bytes) -> bytes:
    """The event with other data, in place of the first of its data lines."""
    lines: list[bytes] = []
    for line in _LINE.findall(raw.removeprefix(BOM)):
        if line[:5] != b"data:" and line.rstrip(b"\r\n") != b"data":
            lines.append(line)
        elif data:
            lines.append(b"data: %b\n" % data)
            data = b""
    return b"".join(lines)
