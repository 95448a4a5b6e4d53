"""Reads and writes streams of Chat Completions."""

import msgspec
from msgspec import Raw, Struct

from holdfast.events.usage import Usage
from holdfast.wire import sse
from holdfast.wire.openai_chat_message import Content, Function, MessageToolCall, content_text
from holdfast.wire.openai_usage import read_usage
from holdfast.wire.request_body import NULL
from holdfast.wire.translation.chat_answer import created_of, reason_of, stop_of, thoughts_of, write_usage
from holdfast.wire.translation.errors import error_of_stream, failure_in
from holdfast.wire.translation.ids import call_id, digest
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


class _ToolDelta(MessageToolCall, gc=False):
    index: int | None = None


class _Delta(Struct, gc=False):
    content: Content = None
    refusal: str | None = None
    tool_calls: list[_ToolDelta] | None = None
    reasoning_content: object = None
    reasoning: object = None


class _Choice(Struct, gc=False):
    index: int | None = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(Struct, gc=False):
    choices: list[_Choice] | None = None
    id: str | None = None
    model: str | None = None
    created: object = None
    usage: Raw = NULL
    error: Raw = NULL


_read_chunk = msgspec.json.Decoder(_Chunk).decode


class _Open(Struct):
    """A tool call as far as it came; key None: its name did not come yet."""

    id: str
    key: int | None = None
    held: str = ""


class ChatSource:
    """Implements `Source`. Pieces belong to the call that last had their index; another id begins a new one (some servers number every
    call 0)."""

    def __init__(self) -> None:
        self._began = False
        self._stopped = False
        self._id = ""
        self._calls: dict[int | None, _Open] = {}
        self._keys = 0

    def read(self, event: sse.Event) -> list[Event | Counted]:
        data = event.data
        if data.strip() == b"[DONE]":
            return [Ended()]
        if not data:
            return []
        chunk = _read_chunk(data)
        if chunk.error != NULL or event.name == b"error":
            return [failure_in(msgspec.json.decode(data))]
        events: list[Event | Counted] = []
        if not self._began:
            self._began = True
            self._id = chunk.id or ""
            events.append(Began(self._id, chunk.model or "", created_of(chunk.created)))
        for choice in chunk.choices or ():
            if not choice.index:
                events += self._choice(choice)
        if chunk.usage != NULL and (usage := read_usage(chunk.usage)) is not None:
            events.append(Counted(usage))
        return events

    def _choice(self, choice: _Choice) -> list[Event | Counted]:
        events: list[Event | Counted] = []
        if (delta := choice.delta) is not None:
            if thoughts := thoughts_of(delta.reasoning_content, delta.reasoning):
                events.append(Piece("reasoning", thoughts))
            if text := content_text(delta.content):
                events.append(Piece("text", text))
            if delta.refusal:
                events.append(Piece("refusal", delta.refusal))
            for call in delta.tool_calls or ():
                events += self._call(call)
        if choice.finish_reason and not self._stopped:
            self._stopped = True
            events.append(Stopped(stop_of(choice.finish_reason, calls=self._keys > 0)))
        return events

    def _call(self, delta: _ToolDelta) -> list[Event | Counted]:
        custom = delta.custom is not None
        function = delta.function or Function()
        name = (delta.custom.name if delta.custom is not None else function.name) or ""
        text = (delta.custom.input if delta.custom is not None else function.arguments) or ""
        call = self._calls.get(delta.index)
        if call is None or (delta.id and call.id and delta.id != call.id):
            call = self._calls[delta.index] = _Open(delta.id or "")
        call.id = call.id or delta.id or ""
        if call.key is not None:
            return [CallPiece(call.key, text)] if text else []
        call.held += text
        if not name:
            return []
        key = call.key = self._keys
        self._keys += 1
        events: list[Event | Counted] = [CallBegan(key, call.id or f"call_{digest(f'{self._id}/{key}')}", name, custom)]
        return [*events, CallPiece(key, call.held)] if call.held else events


class ChatSink:
    """Implements `Sink`. usage_wanted: whether the caller asked for the chunk that has it."""

    def __init__(self, usage_wanted: bool) -> None:
        self._usage_wanted = usage_wanted
        self._head: dict[str, object] = {}
        self._calls: dict[int, int] = {}
        self._custom: set[int] = set()
        self._without_arguments: set[int] = set()
        self._thought: int | None = None

    def write(self, event: Event) -> bytes:
        match event:
            case Piece():
                return self._piece(event)
            case CallPiece():
                return self._call_piece(event.key, event.text)
            case CallBegan():
                return self._call(event)
            case Began():
                self.begin(event)
                return self._delta({"role": "assistant", "content": "", "refusal": None})
            case Stopped():
                return self._stop(event)
            case Failed():
                return error_of_stream("openai-chat", event)
            case Ended():
                return self._end(event.usage)

    def begin(self, event: Began) -> None:
        self._head = {"id": event.id, "object": "chat.completion.chunk", "created": event.created_s, "model": event.model}

    def _piece(self, piece: Piece) -> bytes:
        if piece.kind != "reasoning":
            return self._delta({"content" if piece.kind == "text" else "refusal": piece.text})
        apart = self._thought is not None and self._thought != piece.block
        self._thought = piece.block
        return self._delta({"reasoning_content": f"\n\n{piece.text}" if apart else piece.text})

    def _call(self, call: CallBegan) -> bytes:
        index = self._calls[call.key] = len(self._calls)
        if call.custom:
            self._custom.add(call.key)
        else:
            self._without_arguments.add(call.key)
        kind = "custom" if call.custom else "function"
        fields = {"name": call.name, "input" if call.custom else "arguments": ""}
        return self._delta({"tool_calls": [{"index": index, "id": call_id(call.id), "type": kind, kind: fields}]})

    def _call_piece(self, key: int, text: str) -> bytes:
        self._without_arguments.discard(key)
        fields: dict[str, object] = {"custom": {"input": text}} if key in self._custom else {"function": {"arguments": text}}
        return self._delta({"tool_calls": [{"index": self._calls[key], **fields}]})

    def _stop(self, event: Stopped) -> bytes:
        calls = b"".join([self._call_piece(key, "{}") for key in sorted(self._without_arguments)])
        return calls + self._chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": reason_of(event.stop)}])

    def _end(self, counted: Usage | None) -> bytes:
        usage = b""
        if counted is not None and self._usage_wanted:
            usage = self._chunk([], usage=write_usage(counted))
        return usage + b"data: [DONE]\n\n"

    def _delta(self, delta: dict[str, object]) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])

    def _chunk(self, choices: list[dict[str, object]], **more: object) -> bytes:
        return b"data: " + msgspec.json.encode({**self._head, "choices": choices, **more}) + b"\n\n"
