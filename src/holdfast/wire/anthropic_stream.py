"""Reads the event stream of Anthropic's Messages."""

import msgspec
from msgspec import Raw, Struct

from holdfast.errors import MalformedRequest
from holdfast.wire.anthropic_answer import Message, StopDetails, Tokens, answer, read_tokens
from holdfast.wire.anthropic_content import Block, text
from holdfast.wire.call import Answer
from holdfast.wire.event_reader import EventReader
from holdfast.wire.request_body import NULL
from holdfast.wire.sse import Event


class _Delta(Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class _BlockDelta(Struct, gc=False):
    delta: _Delta
    index: int = 0


class _BlockStart(Struct, gc=False):
    content_block: Block
    index: int = 0


class _Head(Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: Raw = NULL


class _MessageStart(Struct, gc=False):
    message: _Head


class _Stop(Struct, gc=False):
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class _MessageDelta(Struct, gc=False):
    delta: _Stop
    usage: Raw = NULL


class _Type(Struct, gc=False):
    type: str = ""


class _Open(Struct):
    """A block as far as it came."""

    start: Block
    pieces: list[str]

    def block(self) -> Block:
        whole = "".join(self.pieces)
        if not whole:
            return self.start
        field = _FIELDS.get(self.start.type)
        if field is None:
            return msgspec.structs.replace(self.start, input=Raw(whole.encode()))
        return msgspec.structs.replace(self.start, **{field: Raw(msgspec.json.encode(whole))})


_FIELDS = {"text": "text", "thinking": "thinking"}
_KINDS = {"text_delta": "text", "thinking_delta": "thinking"}

_read_delta = msgspec.json.Decoder(_BlockDelta).decode
_read_start = msgspec.json.Decoder(_BlockStart).decode
_read_message_start = msgspec.json.Decoder(_MessageStart).decode
_read_message_delta = msgspec.json.Decoder(_MessageDelta).decode
_read_type = msgspec.json.Decoder(_Type).decode


class AnthropicStreamReader(EventReader):
    """Commits on the first text, thinking, tool use or any other content; `message_start` and pings are none."""

    def __init__(self) -> None:
        super().__init__()
        self._head = _Head()
        self._stop = _Stop()
        self._blocks: dict[int, _Open] = {}
        self._tokens = Tokens()
        self._counted = False

    def answer(self) -> Answer:
        """Usage only with the final counts: those of `message_start` say nothing about what was generated."""
        message = Message(
            content=[self._blocks[index].block() for index in sorted(self._blocks)],
            id=self._head.id,
            model=self._head.model,
            stop_reason=self._stop.stop_reason,
            stop_details=self._stop.stop_details,
        )
        tokens = self._tokens if self._counted else None
        complete = self.ended and self.error is None
        try:
            return answer(message, tokens, complete)
        except (msgspec.MsgspecError, ValueError, RecursionError, MalformedRequest):
            message.content = []  # a block that is not what its type says: nothing can be told about the content
            return msgspec.structs.replace(answer(message, tokens, complete), hosted=None)

    def _read(self, event: Event) -> None:
        match event.name or _read_type(event.data).type.encode():
            case b"content_block_delta":
                self._block_delta(_read_delta(event.data))
            case b"content_block_start":
                self._block_start(_read_start(event.data))
            case b"message_start":
                self._head = _read_message_start(event.data).message
                self._tokens = read_tokens(self._head.usage) or self._tokens
            case b"message_delta":
                self._message_delta(_read_message_delta(event.data))
            case b"message_stop":
                self.ended = True
            case b"error":
                self.error = event.data

    def _block_delta(self, event: _BlockDelta) -> None:
        delta = event.delta
        piece = delta.text or delta.thinking or delta.partial_json
        if piece:
            self._count(piece)
            block = self._blocks.get(event.index)
            if block is None:
                block = self._blocks[event.index] = _Open(Block(_KINDS.get(delta.type, "tool_use")), [])
            block.pieces.append(piece)
        elif delta.type not in ("text_delta", "thinking_delta", "input_json_delta"):
            self.committed = True  # signatures, citations: something was generated, though not in plain words

    def _block_start(self, event: _BlockStart) -> None:
        block = event.content_block
        self._blocks[event.index] = _Open(block, [])
        if block.type not in _FIELDS:
            name = text(block.name)
            self._count(name)
            if name:
                self.tools.add(name)
        elif already := text(block.text or block.thinking):
            self._blocks[event.index].pieces.append(already)
            self._count(already)

    def _message_delta(self, event: _MessageDelta) -> None:
        self._stop = event.delta
        if (tokens := read_tokens(event.usage)) is not None:
            self._tokens = self._tokens.updated(tokens)
            self._counted = True
