"""Steps of Chat Completions: tool calls stand in the assistant's messages, each result is a message of its own."""

import msgspec
from msgspec import Raw, Struct

from holdfast.wire.openai_chat_message import Function, MessageToolCall, tool_call
from holdfast.wire.steps.step import Step, called, said


class _Message(Struct, gc=False):
    role: str
    content: Raw = Raw()
    tool_calls: list[MessageToolCall] | None = None
    function_call: Function | None = None
    tool_call_id: str | None = None
    name: str | None = None


_read = msgspec.json.Decoder(_Message).decode
_SILENT = (b"", b"null", b'""', b"[]")


def steps(raw: Raw, digest: bytes) -> list[Step]:
    try:
        message = _read(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # a name that is a number, say: no concern of the format's own reading
        return []
    if message.role == "assistant":
        return _answered(message, digest)
    if message.role in ("tool", "function"):
        return [said("result", digest, message.tool_call_id or "", message.name or "")]
    return [said("user", digest)] if message.role == "user" else []


def _answered(message: _Message, digest: bytes) -> list[Step]:
    found = [] if bytes(message.content) in _SILENT else [said("text", digest)]
    found += [called(call.name, call.arguments, call.id) for call in map(tool_call, message.tool_calls or ())]
    function = message.function_call
    if function is not None:
        found.append(called(function.name or "", function.arguments or "", ""))
    return found
