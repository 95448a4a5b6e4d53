"""Reads and writes whole answers of Anthropic's Messages.

Thoughts of another provider's model are marked as such by their signature, which Anthropic would not take back: see `foreign`.
"""

import msgspec
from msgspec import Raw, Struct

from holdfast.errors import MalformedAnswer
from holdfast.events.usage import Usage
from holdfast.wire.anthropic_answer import read_tokens
from holdfast.wire.request_body import NULL
from holdfast.wire.translation.ids import FOREIGN, call_id, digest
from holdfast.wire.translation.neutral import Answer, Call, Reasoning, Refused, Said, Stop, Text
from holdfast.wire.translation.tools import arguments_object

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)

Object = dict[str, object]


class Block(Struct, gc=False):
    """A content block; fields that its type does not have stay unread."""

    type: str
    text: Raw = NULL
    thinking: Raw = NULL
    id: Raw = NULL
    name: Raw = NULL
    input: Raw = NULL


class StopDetails(Struct, gc=False):
    explanation: str | None = None


class _Message(Struct, gc=False):
    content: list[Block]
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None
    usage: Raw = NULL


_read = msgspec.json.Decoder(_Message).decode
_text = msgspec.json.Decoder(str | None).decode

_STOPS: dict[str, Stop] = {
    "end_turn": "end",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool",
    "stop_sequence": "sequence",
    "refusal": "filter",
}
_REASONS: dict[Stop, str] = {
    "end": "end_turn",
    "length": "max_tokens",
    "tool": "tool_use",
    "filter": "refusal",
    "sequence": "stop_sequence",
}


def read_answer(body: bytes) -> Answer:
    try:
        message = _read(body)
        parts = [part for block in message.content if (part := _part(block)) is not None]
    except UNREADABLE as error:
        raise MalformedAnswer(f"not an Anthropic message: {error}") from None
    if message.stop_details is not None and message.stop_details.explanation:
        parts.append(Refused(message.stop_details.explanation))
    tokens = read_tokens(message.usage)
    return Answer(
        id=message.id or "",
        model=message.model or "",
        parts=parts,
        stop=stop_of(message.stop_reason),
        usage=tokens.usage() if tokens is not None else None,
        sequence=message.stop_sequence,
    )


def stop_of(reason: str | None) -> Stop:
    """Raises MalformedAnswer for an unknown one, such as `pause_turn`, which only tools that Anthropic runs lead to."""
    stop = _STOPS.get(reason or "")
    if stop is None:
        raise MalformedAnswer(f"the answer ends for a reason that is not known: stop_reason {reason!r}")
    return stop


def reason_of(stop: Stop, *, refused: bool) -> str:
    """Why the answer ended in Anthropic's words, where a refusal is an end of its own."""
    return "refusal" if refused and stop == "end" else _REASONS[stop]


def _part(block: Block) -> Said | None:
    match block.type:
        case "text":
            return Text(text_of(block.text))
        case "thinking":
            return Reasoning(thought) if (thought := text_of(block.thinking)) else None
        case "redacted_thinking":
            return None  # sealed: there is nothing to show
        case "tool_use":
            return Call(text_of(block.id), text_of(block.name), (bytes(block.input) if block.input != NULL else b"{}").decode())
        case kind:
            raise MalformedAnswer(f"the answer has content of type {kind!r}, which is not translated")


def text_of(raw: Raw) -> str:
    return _text(raw) or ""


def write_answer(answer: Answer) -> bytes:
    refused = [part.text for part in answer.parts if isinstance(part, Refused)]
    stop_reason = reason_of(answer.stop, refused=bool(refused))
    body: Object = {
        "id": answer.id or f"msg_{digest(repr(answer.parts))}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [_block(part) for part in answer.parts if not isinstance(part, Text) or part.text],
        "stop_reason": stop_reason,
        "stop_sequence": answer.sequence if answer.stop == "sequence" else None,
        "usage": write_usage(answer.usage or Usage()),
    }
    if stop_reason == "refusal":
        body["stop_details"] = {"type": "refusal", "category": None, "explanation": "".join(refused) or None}
    return msgspec.json.encode(body)


def write_usage(usage: Usage) -> Object:
    """Input is told in three parts that do not overlap. The counts are not optional there: what was not measured is 0."""
    return {
        "input_tokens": usage.input - usage.cached_input - usage.cache_write,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached_input,
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def _block(part: Said) -> Object:
    match part:
        case Text() | Refused():
            return {"type": "text", "text": part.text}
        case Reasoning():
            return {"type": "thinking", "thinking": part.text, "signature": FOREIGN}
        case Call():
            if part.custom:
                raise MalformedAnswer(f"the answer calls {part.name!r} with free text, which was not offered")
            return {"type": "tool_use", "id": call_id(part.id), "name": part.name, "input": arguments_object(part.arguments)}
