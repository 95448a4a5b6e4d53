"""Goes on with a streamed answer that broke off: the stream of another target, in the caller's format, is joined to what the caller has.

The caller sees one answer: the id, indices, sequence numbers and the open block or item of the first stream go on. The usage at the end
is that of the last stream alone, since the first never said what it had used. Thoughts of the later target are left out once there is
text: they would part a sentence in two.
"""

from typing import Literal, Protocol

import msgspec
from msgspec import Raw, Struct

from holdfast.errors import MalformedAnswer, MalformedRequest
from holdfast.wire import sse
from holdfast.wire.request_body import NULL, Fields, with_changes
from holdfast.wire.translation.anthropic_answer import Block
from holdfast.wire.translation.anthropic_stream import AnthropicSink
from holdfast.wire.translation.between import FORMATS
from holdfast.wire.translation.chat_stream import ChatSink
from holdfast.wire.translation.neutral import Began, Counted, Event, FormatName, Piece
from holdfast.wire.translation.responses_answer import Object
from holdfast.wire.translation.responses_sink import ResponsesSink, Unfinished
from holdfast.wire.translation.streams import Events, Sink, source_of, usage_wanted

INSTRUCTION = (
    "Your last message was cut off by a technical failure. Continue it exactly where it ends, in the middle of the word if need be. "
    "Repeat nothing of it, and do not mention the interruption."
)

_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, MalformedAnswer, MalformedRequest)


def continuation(name: str, request: bytes) -> "Continuation | None":
    """For one streamed answer in the format of this name; request: the caller's own body. None where the answer could not be continued:
    formats that are not translated, and output bound to a schema, of which no model writes the second half."""
    for known in FORMATS:
        if known == name:
            return None if _is_bound_to_schema(request) else Continuation(known, request)
    return None


class Continuation:
    """Watches a stream that passes, and joins another to it. `observe` takes what the caller is sent; after `request`, `resume` takes the
    bytes of the next target's stream. What `resume` returns is observed too, so a third stream may follow the same way."""

    def __init__(self, name: FormatName, request: bytes) -> None:
        self._name: FormatName = name
        self._request = request
        self._watch = _watch_of(name)
        self._splitter = sse.Splitter()
        self._source = source_of(name)
        self._said: list[str] = []
        self._only_text = True
        self._began: Began | None = None
        self._next: Events | None = None
        self._sink: Sink | None = None

    @property
    def said(self) -> str:
        """The text that the caller has so far."""
        return "".join(self._said)

    @property
    def can_continue(self) -> bool:
        """Whether the caller has text, or thoughts, or nothing yet: no tool call, no refusal, no end, no error, and no torn event."""
        return self._only_text and not self._splitter.holding

    def observe(self, data: bytes) -> None:
        """Take note of bytes that the caller is sent, in any split; never raises."""
        for event in self._splitter.feed(data):
            try:
                for read in self._source.read(event):
                    self._note(read)
                self._watch.note(event)
            except _UNREADABLE:
                self._only_text = False

    def request(self) -> bytes:
        """The caller's request with what was said and the instruction to go on; raises MalformedRequest."""
        self._next = self._sink = None
        if not self.said.strip():
            return self._request
        return with_changes(self._request, self._continued)

    def resume(self, data: bytes) -> bytes:
        """The next bytes of another target's stream, in the caller's format and any split, as the caller is to get them."""
        if self._next is None or self._sink is None:
            self._next = Events(source_of(self._name))
            self._sink = self._watch.sink(self._request, self._began)
        written: list[bytes] = []
        for event in self._next.feed(data):
            if (isinstance(event, Began) and self._began is not None) or (_is_thought(event) and self._said):
                continue
            try:
                written.append(self._sink.write(event))
            except MalformedAnswer as error:
                written.append(self._sink.write(self._next.fail(str(error))))
                break
        joined = b"".join(written)
        self.observe(joined)
        return joined

    def flush(self) -> bytes:
        """An event that was cut off says nothing that could be relied on."""
        return b""

    def _note(self, event: Event | Counted) -> None:
        if isinstance(event, Began):
            self._began = self._began or event
        elif isinstance(event, Piece) and event.kind == "text":
            self._said.append(event.text)
        elif not isinstance(event, Counted) and not _is_thought(event):
            self._only_text = False

    def _continued(self, fields: Fields) -> dict[str, Raw]:
        name = "input" if self._name == "openai-responses" else "messages"
        given = bytes(fields.get(name, NULL))
        history: list[object] = []
        if given.startswith(b'"'):
            history = [{"role": "user", "content": Raw(given)}]
        elif given != b"null":
            try:
                history = list(msgspec.json.decode(given, type=list[Raw]))
            except (msgspec.MsgspecError, RecursionError):
                raise MalformedRequest(f"Invalid request: {name} is no list.", name) from None
        history += [{"role": "assistant", "content": self.said}, {"role": "user", "content": INSTRUCTION}]
        return {name: Raw(msgspec.json.encode(history))}


def _is_thought(event: Event | Counted) -> bool:
    return isinstance(event, Piece) and event.kind == "reasoning"


class _Watch(Protocol):
    """What a format's stream has opened and numbered so far."""

    def note(self, event: sse.Event) -> None:
        """May raise what msgspec raises."""

    def sink(self, request: bytes, began: Began | None) -> Sink:
        """One that goes on from there."""


def _watch_of(name: FormatName) -> _Watch:
    match name:
        case "openai-chat":
            return _ChatWatch()
        case "openai-responses":
            return _ResponsesWatch()
        case "anthropic-messages":
            return _AnthropicWatch()


class _ChatWatch:
    def note(self, event: sse.Event) -> None:
        """Its chunks have neither numbers nor blocks."""

    def sink(self, request: bytes, began: Began | None) -> Sink:
        sink = ChatSink(usage_wanted(request))
        if began is not None:
            sink.begin(began)
        return sink


class _AnthropicData(Struct, gc=False):
    type: str = ""
    index: int = 0
    content_block: Block | None = None


_read_anthropic = msgspec.json.Decoder(_AnthropicData).decode


class _AnthropicWatch:
    def __init__(self) -> None:
        self._blocks = 0
        self._open: str | None = None
        self._signed = False

    def note(self, event: sse.Event) -> None:
        if event.name == b"content_block_delta":
            self._signed = self._signed or b'"signature_delta"' in event.data
            return
        if not event.data:
            return
        data = _read_anthropic(event.data)
        if data.type == "content_block_start" and data.content_block is not None:
            self._blocks = data.index + 1
            self._open = data.content_block.type
            self._signed = self._open == "redacted_thinking"
        elif data.type == "content_block_stop":
            self._open = None

    def sink(self, request: bytes, began: Began | None) -> Sink:
        sink = AnthropicSink()
        kind: Literal["text", "thinking", "sealed"] | None = None
        if self._open is not None:
            kind = "text" if self._open == "text" else "sealed" if self._signed else "thinking"
        sink.go_on(self._blocks, kind)
        return sink


class _Part(Struct, gc=False):
    type: str = ""


class _ResponsesData(Struct, gc=False):
    type: str = ""
    sequence_number: int = 0
    output_index: int = 0
    delta: str = ""
    item: Raw = NULL
    part: Raw = NULL
    response: Raw = NULL


_read_responses = msgspec.json.Decoder(_ResponsesData).decode
_read_object = msgspec.json.Decoder(dict[str, object]).decode


class _ResponsesWatch:
    def __init__(self) -> None:
        self._number = 0
        self._base: Object = {}
        self._output: dict[int, Object] = {}
        self._open: Unfinished | None = None

    def note(self, event: sse.Event) -> None:
        if not event.data.startswith(b"{"):
            return
        data = _read_responses(event.data)
        self._number = data.sequence_number + 1
        match data.type:
            case "response.created":
                self._base = _read_object(data.response)
            case "response.output_item.added":
                self._open = Unfinished(data.output_index, _read_object(data.item), [], None, [])
            case "response.output_item.done":
                self._output[data.output_index] = _read_object(data.item)
                self._open = None
            case kind if self._open is not None:
                _note_part(self._open, kind, data)

    def sink(self, request: bytes, began: Began | None) -> Sink:
        sink = ResponsesSink()
        if began is not None:
            sink.go_on(began, self._base, self._number, dict(self._output), self._open)
        return sink


def _note_part(item: Unfinished, kind: str, data: _ResponsesData) -> None:
    match kind:
        case "response.output_text.delta" | "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
            item.said.append(data.delta)
        case "response.content_part.added" | "response.reasoning_summary_part.added":
            item.part = str(_read_object(data.part).get("type", ""))
            item.said = []
        case "response.content_part.done" | "response.reasoning_summary_part.done":
            item.parts.append(_read_object(data.part))
            item.part = None


def _is_bound_to_schema(request: bytes) -> bool:
    """Whether the output must be JSON, by any format's field; a request that cannot be read is none of ours to judge."""
    try:
        wanted = msgspec.json.decode(request, type=_Wanted)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False
    places = [wanted.response_format] + [bound.format for bound in (wanted.text, wanted.output_config) if bound is not None]
    return any(place is not None and place.type not in ("", "text") for place in places)


class _Bound(Struct, gc=False):
    format: _Part | None = None


class _Wanted(Struct, gc=False):
    response_format: _Part | None = None
    text: _Bound | None = None
    output_config: _Bound | None = None
