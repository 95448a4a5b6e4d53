"""Reads and writes whole answers of Chat Completions."""

from typing import cast

import msgspec
from msgspec import Raw, Struct

from holdfast.errors import MalformedAnswer
from holdfast.events.usage import Usage
from holdfast.wire.openai_chat_message import Content, MessageToolCall, content_text
from holdfast.wire.openai_usage import read_usage
from holdfast.wire.request_body import NULL
from holdfast.wire.translation.ids import call_id, digest
from holdfast.wire.translation.neutral import Answer, Call, Reasoning, Refused, Said, Stop, Text

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)

Object = dict[str, object]


class _Message(Struct, gc=False):
    content: Content = None
    refusal: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    reasoning_content: object = None
    reasoning: object = None


class _Choice(Struct, gc=False):
    message: _Message
    finish_reason: str | None = None


class _Completion(Struct, gc=False):
    choices: list[_Choice]
    id: str | None = None
    model: str | None = None
    created: object = None
    usage: Raw = NULL


_read = msgspec.json.Decoder(_Completion).decode

_STOPS: dict[str, Stop] = {
    "stop": "end",
    "length": "length",
    "tool_calls": "tool",
    "function_call": "tool",
    "content_filter": "filter",
    "eos": "end",
    "eos_token": "end",
    "end_turn": "end",
    "max_tokens": "length",
}
"""The last ones are what some compatible servers write."""
_REASONS: dict[Stop, str] = {"end": "stop", "length": "length", "tool": "tool_calls", "filter": "content_filter", "sequence": "stop"}


def read_answer(body: bytes) -> Answer:
    try:
        completion = _read(body)
    except UNREADABLE as error:
        raise MalformedAnswer(f"not a chat completion: {error}") from None
    if not completion.choices:
        raise MalformedAnswer("not a chat completion: it has no choice")
    choice = completion.choices[0]
    message = choice.message
    parts: list[Said] = []
    if thoughts := thoughts_of(message.reasoning_content, message.reasoning):
        parts.append(Reasoning(thoughts))
    if text := content_text(message.content):
        parts.append(Text(text))
    if message.refusal:
        parts.append(Refused(message.refusal))
    parts += [_call(call) for call in message.tool_calls or ()]
    return Answer(
        id=completion.id or "",
        model=completion.model or "",
        parts=parts,
        stop=stop_of(choice.finish_reason, calls=any(isinstance(part, Call) for part in parts)),
        usage=read_usage(completion.usage),
        created_s=created_of(completion.created),
    )


def thoughts_of(*fields: object) -> str:
    """From the first of the names that servers have for it."""
    return next((field for field in fields if isinstance(field, str) and field), "")


def created_of(value: object) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**40 else 0


def stop_of(reason: str | None, *, calls: bool) -> Stop:
    """Where a function was named OpenAI answers `stop` with a call: what counts is the call. Raises MalformedAnswer for an unknown one."""
    stop = _STOPS.get(reason or "")
    if stop is None:
        raise MalformedAnswer(f"the answer ends for a reason that is not known: finish_reason {reason!r}")
    return "tool" if calls and stop == "end" else stop


def reason_of(stop: Stop) -> str:
    return _REASONS[stop]


def _call(call: MessageToolCall) -> Call:
    if call.custom is not None:
        return Call(call.id or "", call.custom.name or "", call.custom.input or "", True)
    if call.function is None:
        raise MalformedAnswer("not a chat completion: a tool call has no function")
    return Call(call.id or "", call.function.name or "", call.function.arguments or "")


def write_answer(answer: Answer) -> bytes:
    texts = [part.text for part in answer.parts if isinstance(part, Text)]
    refusals = [part.text for part in answer.parts if isinstance(part, Refused)]
    calls = [_written_call(part) for part in answer.parts if isinstance(part, Call)]
    message: Object = {"role": "assistant", "content": "".join(texts) if texts or not (calls or refusals) else None}
    message["refusal"] = "".join(refusals) or None
    if thoughts := "\n\n".join(part.text for part in answer.parts if isinstance(part, Reasoning)):
        message["reasoning_content"] = thoughts
    if calls:
        message["tool_calls"] = calls
    body: Object = {
        "id": answer.id or f"chatcmpl-{digest(repr(answer.parts))}",
        "object": "chat.completion",
        "created": answer.created_s,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason_of(answer.stop)}],
    }
    if answer.usage is not None:
        body["usage"] = write_usage(answer.usage)
    return msgspec.json.encode(body)


def write_usage(usage: Usage) -> Object:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _written_call(call: Call) -> Object:
    kind, fields = cast(
        tuple[str, Object],
        ("custom", {"name": call.name, "input": call.arguments})
        if call.custom
        else ("function", {"name": call.name, "arguments": call.arguments or "{}"}),
    )
    return {"id": call_id(call.id), "type": kind, kind: fields}
