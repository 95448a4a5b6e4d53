"""Reads and writes streams of Anthropic's Messages."""

from typing import Literal

import msgspec
from msgspec import Raw, Struct

from holdfast.errors import MalformedAnswer
from holdfast.events.usage import Usage
from holdfast.wire import sse
from holdfast.wire.anthropic_answer import Tokens, read_tokens
from holdfast.wire.request_body import NULL
from holdfast.wire.translation.anthropic_answer import Block, StopDetails, reason_of, stop_of, text_of, write_usage
from holdfast.wire.translation.errors import error_of_stream, failure_in
from holdfast.wire.translation.ids import FOREIGN, call_id
from holdfast.wire.translation.neutral import (
    Began,
    CallBegan,
    CallPiece,
    Counted,
    Ended,
    Event,
    Failed,
    Piece,
    Stopped,
)


class _Delta(Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class _Stop(Struct, gc=False):
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None


class _Message(Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: Raw = NULL


class _Data(Struct, gc=False):
    type: str = ""
    index: int = 0
    delta: Raw = NULL
    content_block: Block | None = None
    message: _Message | None = None
    usage: Raw = NULL


_read = msgspec.json.Decoder(_Data).decode
_read_delta = msgspec.json.Decoder(_Delta).decode
_read_stop = msgspec.json.Decoder(_Stop).decode

_UNTOLD = frozenset({"thinking", "redacted_thinking"})


class AnthropicSource:
    """Implements `Source`."""

    def __init__(self) -> None:
        self._tokens = Tokens()

    def read(self, event: sse.Event) -> list[Event | Counted]:
        if not event.data:
            return []
        data = _read(event.data)
        match data.type:
            case "content_block_delta":
                return self._delta(data)
            case "content_block_start":
                return self._start(data)
            case "message_start":
                message = data.message or _Message()
                self._tokens = read_tokens(message.usage) or self._tokens
                return [Began(message.id or "", message.model or "")]
            case "message_delta":
                return self._message_delta(data)
            case "message_stop":
                return [Ended()]
            case "error":
                return [failure_in(msgspec.json.decode(event.data))]
            case _:
                return []  # pings, ends of blocks, what later versions add

    def _start(self, data: _Data) -> list[Event | Counted]:
        block = data.content_block
        if block is None:
            return []
        if block.type == "tool_use":
            events: list[Event | Counted] = [CallBegan(data.index, text_of(block.id), text_of(block.name))]
            given = bytes(block.input)
            return events if given in (b"null", b"{}") else [*events, CallPiece(data.index, given.decode())]
        if block.type == "text":
            return [Piece("text", text, data.index)] if (text := text_of(block.text)) else []
        if block.type in _UNTOLD:
            return [Piece("reasoning", thought, data.index)] if (thought := text_of(block.thinking)) else []
        raise MalformedAnswer(f"the answer has content of type {block.type!r}, which is not translated")

    def _delta(self, data: _Data) -> list[Event | Counted]:
        delta = _read_delta(data.delta)
        match delta.type:
            case "text_delta":
                return [Piece("text", delta.text, data.index)] if delta.text else []
            case "thinking_delta":
                return [Piece("reasoning", delta.thinking, data.index)] if delta.thinking else []
            case "input_json_delta":
                return [CallPiece(data.index, delta.partial_json)] if delta.partial_json else []
            case _:
                return []  # signatures are worth nothing elsewhere, citations were not asked for

    def _message_delta(self, data: _Data) -> list[Event | Counted]:
        events: list[Event | Counted] = []
        stop = _read_stop(data.delta)
        if stop.stop_details is not None and stop.stop_details.explanation:
            events.append(Piece("refusal", stop.stop_details.explanation))
        if stop.stop_reason is not None:
            events.append(Stopped(stop_of(stop.stop_reason), stop.stop_sequence))
        if (tokens := read_tokens(data.usage)) is not None:
            self._tokens = self._tokens.updated(tokens)
            events.append(Counted(self._tokens.usage()))
        return events


class AnthropicSink:
    """Implements `Sink`. Blocks follow one another; pieces of calls that some servers interleave still name their block by its index."""

    def __init__(self) -> None:
        self._next = 0
        self._open: tuple[Literal["text", "thinking", "sealed", "tool_use"], int] | None = None
        self._source: tuple[str, int] | None = None
        self._calls: dict[int, int] = {}
        self._refusal: list[str] = []
        self._stop: Stopped | None = None

    def write(self, event: Event) -> bytes:
        match event:
            case Piece():
                return self._piece(event)
            case CallPiece():
                delta = {"type": "input_json_delta", "partial_json": event.text}
                return _event("content_block_delta", index=self._calls[event.key], delta=delta)
            case CallBegan():
                return self._call(event)
            case Began():
                return _begin(event)
            case Stopped():
                self._stop = event
                return b""
            case Failed():
                return error_of_stream("anthropic-messages", event)
            case Ended():
                return self._end(event.usage)

    def go_on(self, blocks: int, kind: Literal["text", "thinking", "sealed"] | None) -> None:
        """Begin behind the blocks that another stream has sent, of which the last is still open if its kind is given; "sealed": thoughts
        that are signed already."""
        self._next = blocks
        self._open = None if kind is None else (kind, blocks - 1)

    def _piece(self, piece: Piece) -> bytes:
        kind: Literal["text", "thinking"] = "thinking" if piece.kind == "reasoning" else "text"
        source = (piece.kind, piece.block)
        written = b""
        if self._open is None or self._open[0] != kind or self._source not in (None, source):
            empty: dict[str, object] = {"thinking": "", "signature": ""} if kind == "thinking" else {"text": ""}
            written = self._start(kind, {"type": kind, **empty})
        self._source = source
        if piece.kind == "refusal":
            self._refusal.append(piece.text)
        delta = {"type": "thinking_delta", "thinking": piece.text} if kind == "thinking" else {"type": "text_delta", "text": piece.text}
        return written + _event("content_block_delta", index=self._next - 1, delta=delta)

    def _call(self, call: CallBegan) -> bytes:
        if call.custom:
            raise MalformedAnswer(f"the answer calls {call.name!r} with free text, which was not offered")
        self._calls[call.key] = self._next
        return self._start("tool_use", {"type": "tool_use", "id": call_id(call.id), "name": call.name, "input": {}})

    def _start(self, kind: Literal["text", "thinking", "tool_use"], block: dict[str, object]) -> bytes:
        closed = self._close()
        self._open = (kind, self._next)
        self._next += 1
        return closed + _event("content_block_start", index=self._next - 1, content_block=block)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        kind, index = self._open
        self._open = self._source = None
        signed = b""
        if kind == "thinking":
            signed = _event("content_block_delta", index=index, delta={"type": "signature_delta", "signature": FOREIGN})
        return signed + _event("content_block_stop", index=index)

    def _end(self, counted: Usage | None) -> bytes:
        stop = self._stop or Stopped("end")
        reason = reason_of(stop.stop, refused=bool(self._refusal))
        delta: dict[str, object] = {"stop_reason": reason, "stop_sequence": stop.sequence if stop.stop == "sequence" else None}
        if reason == "refusal":
            delta["stop_details"] = {"type": "refusal", "category": None, "explanation": "".join(self._refusal) or None}
        return self._close() + _event("message_delta", delta=delta, usage=write_usage(counted or Usage())) + _event("message_stop")


def _begin(event: Began) -> bytes:
    """What was read is told at the end: nobody but Anthropic counts it before."""
    message: dict[str, object] = {
        "id": event.id,
        "type": "message",
        "role": "assistant",
        "model": event.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    return _event("message_start", message=message)


def _event(name: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name, **fields}))
