"""Steps of Anthropic messages: calls are blocks of the assistant's messages, results are blocks of the user's."""

import msgspec
from msgspec import Raw, Struct

from holdfast.errors import MalformedRequest
from holdfast.wire.anthropic_content import Content, ContentReader
from holdfast.wire.anthropic_content import text as _text
from holdfast.wire.steps.step import Step, called, said


class _Block(Struct, gc=False):
    """Fields are read only where the type says what they are: an unknown type may use the same names otherwise."""

    type: str
    id: Raw = Raw()
    name: Raw = Raw()
    input: Raw = Raw()
    tool_use_id: Raw = Raw()
    content: Raw = Raw()


class _Message(Struct, gc=False):
    role: str
    content: str | list[_Block] | None = None


_read = msgspec.json.Decoder(_Message).decode
_read_content = msgspec.json.Decoder(Content).decode


def steps(raw: Raw, digest: bytes) -> list[Step]:
    try:
        message = _read(raw)
        if message.role == "assistant":
            return _answered(message.content, digest)
        return _returned(message.content, digest) if message.role == "user" else []
    except (msgspec.MsgspecError, ValueError, RecursionError, MalformedRequest):  # an id that is a number, say
        return []


def _answered(content: str | list[_Block] | None, digest: bytes) -> list[Step]:
    if isinstance(content, str):
        return [said("text", digest)] if content else []
    blocks = content or ()
    found = [said("text", digest)] if any(block.type == "text" for block in blocks) else []
    found += [called(_text(block.name), bytes(block.input), _text(block.id)) for block in blocks if block.type == "tool_use"]
    return found


def _returned(content: str | list[_Block] | None, digest: bytes) -> list[Step]:
    """What stands beside results in one message is the agent's own (reminders, the time): nobody has spoken."""
    results = [block for block in content if block.type == "tool_result"] if isinstance(content, list) else []
    if not results:
        return [said("user", digest)]
    return [said("result", _digest(block.content), _text(block.tool_use_id)) for block in results]


def _digest(content: Raw) -> bytes:
    return ContentReader().turn("tool", _read_content(content) if content else None).digest
