"""What the splices of all formats have in common: events with JSON in them, taken apart and put together again."""

from collections.abc import Iterator
from typing import Any

import msgspec

from holdfast.wire.sse import Event, Splitter

Fields = dict[str, Any]
"""An event's data as JSON: what a format's own readers do not know passes on too."""

GO_ON = (
    "Your last message broke off in the middle for a technical reason. Continue it exactly where it stopped: begin with the very next "
    "characters, repeat nothing of it, do not greet, apologise or comment."
)
"""What another model is asked for when it is to go on with an answer."""

_decode = msgspec.json.Decoder(Fields).decode
_encode = msgspec.json.Encoder().encode


class EventStream:
    """Takes a stream of whole events apart; a piece of one is held until the rest comes."""

    def __init__(self) -> None:
        self._splitter = Splitter()

    def events(self, data: bytes) -> Iterator[tuple[Event, Fields | None]]:
        """Each event with its data, None where that is no JSON object."""
        for event in self._splitter.feed(data):
            try:
                yield event, _decode(event.data) if event.data else None
            except (msgspec.MsgspecError, RecursionError, UnicodeError):
                yield event, None


def named(kind: str, fields: Fields) -> bytes:
    """An event of a format whose events have names."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode("utf-8", "replace"), _encode(fields))


def unnamed(fields: Fields) -> bytes:
    return b"data: %b\n\n" % _encode(fields)


def with_more(body: bytes, field: str, said: str) -> bytes:
    """A request whose list of messages goes on with what was said and what is wanted; unchanged where nothing was said."""
    if not said.strip():
        return body
    request: Fields = _decode(body)
    before = request.get(field)
    messages = [{"role": "user", "content": before}] if isinstance(before, str) else list(before or ())
    request[field] = [*messages, {"role": "assistant", "content": said.rstrip()}, {"role": "user", "content": GO_ON}]
    return _encode(request)
