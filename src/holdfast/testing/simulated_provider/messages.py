"""Anthropic Messages and count_tokens, as a provider reads and writes them."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from holdfast.errors import MalformedRequest
from holdfast.testing.simulated_provider.answer import Answer, Reply, Streamed, ToolUse, json_tokens
from holdfast.testing.simulated_provider.errors import error_body
from holdfast.testing.simulated_provider.prompt import (
    MEDIA,
    MESSAGE,
    OfferedTool,
    Prompt,
    Text,
    count,
    count_json,
    decode,
    require_positive,
)

_ROLES = frozenset({"user", "assistant", "system"})
_SIGNATURE = "c2ltdWxhdGVk"

_encode = msgspec.json.encode

Json = dict[str, object]


class _Block(Struct):
    type: str = "text"
    text: str | None = None
    thinking: str | None = None
    name: str = ""
    input: Raw = Raw(b"")
    content: Any = None


class _Message(Struct):
    role: str
    content: str | list[_Block]


class _Tool(Struct):
    name: str = ""
    input_schema: Any = None


class _Choice(Struct):
    type: str = "auto"
    name: str = ""
    disable_parallel_tool_use: bool = False


class _Format(Struct):
    schema: Any = None


class _OutputConfig(Struct):
    format: _Format | None = None


class _Thinking(Struct):
    type: str = "disabled"
    display: str | None = None


class _Body(Struct):
    model: str
    messages: list[_Message]
    system: str | list[_Block] | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    tools: Raw = Raw(b"")
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None
    stop_sequences: list[str] = []


def read(body: bytes) -> Prompt:
    """The prompt of a request for an answer; raises MalformedRequest."""
    asked = decode(body, _Body)
    if asked.max_tokens is None:
        raise MalformedRequest("max_tokens: Field required", "max_tokens")
    return _prompt(asked)


def read_count(body: bytes) -> Prompt:
    """The prompt of a request for its token count; raises MalformedRequest."""
    asked = decode(body, _Body)
    asked.stream = None
    return _prompt(asked)


def _prompt(asked: _Body) -> Prompt:
    if not asked.messages:
        raise MalformedRequest("messages: at least one message is required", "messages")
    require_positive(asked.max_tokens, "max_tokens")
    text = Text()
    _read_content(asked.system, text, role="system")
    for index, message in enumerate(asked.messages):
        if message.role not in _ROLES:
            raise MalformedRequest(f"messages.{index}.role: Input should be 'user' or 'assistant'", f"messages.{index}.role")
        text.tokens += MESSAGE
        _read_content(message.content, text, message.role)
    wanted = (asked.output_config and asked.output_config.format) or asked.output_format
    return Prompt(
        model=asked.model,
        stream=bool(asked.stream),
        max_output=asked.max_tokens,
        tools=_offered(asked),
        must_call=_must_call(asked.tool_choice),
        assistant_turns=sum(message.role == "assistant" for message in asked.messages),
        has_tool_result=any(_has_tool_result(message) for message in asked.messages),
        first_text=text.first,
        last_text=text.last,
        schema=wanted.schema if wanted else None,
        reasoning=asked.thinking is not None and asked.thinking.type != "disabled",
        hidden=asked.thinking is not None and asked.thinking.display == "omitted",
        input_tokens=text.tokens + count_json(asked.tools),
        stops=tuple(asked.stop_sequences),
        parallel=not (asked.tool_choice and asked.tool_choice.disable_parallel_tool_use),
    )


def _read_content(content: object, text: Text, role: str) -> None:
    if isinstance(content, str):
        text.say(content, by_model=role == "assistant", by_user=role == "user")
        return
    for block in content if isinstance(content, list) else ():
        block = msgspec.convert(block, _Block) if isinstance(block, dict) else block
        if block.type in {"tool_use", "server_tool_use"}:
            text.tokens += count(block.name) + count_json(block.input)
        elif block.type == "tool_result":
            _read_content(block.content, text, "tool")
        elif (said := block.thinking if block.text is None else block.text) is not None:
            text.say(said, by_model=role == "assistant", by_user=role == "user")
        else:
            text.tokens += MEDIA


def _has_tool_result(message: _Message) -> bool:
    return isinstance(message.content, list) and any(block.type == "tool_result" for block in message.content)


def _offered(asked: _Body) -> tuple[OfferedTool, ...]:
    """The tools that the caller runs; those of the provider's own have no schema."""
    if not asked.tools or (asked.tool_choice and asked.tool_choice.type == "none"):
        return ()
    tools = decode(bytes(asked.tools), list[_Tool] | None) or ()  # type: ignore[arg-type]
    return tuple(OfferedTool(tool.name, tool.input_schema) for tool in tools if tool.input_schema is not None)


def _must_call(choice: _Choice | None) -> str:
    if choice is None:
        return ""
    return {"any": "*", "tool": choice.name}.get(choice.type, "")


def whole_count(reply: Reply) -> bytes:
    """The body of a token count."""
    return _encode({"input_tokens": reply.prompt.input_tokens})


def whole(reply: Reply) -> bytes:
    """The body of an answer that is not streamed."""
    answer = reply.answers[0]
    blocks: list[Json] = []
    if answer.reasoning:
        shown = "" if answer.hidden else answer.reasoning
        blocks.append({"type": "thinking", "thinking": shown, "signature": _SIGNATURE})
    if answer.speaks:
        blocks.append({"type": "text", "text": answer.text, "citations": None})
    for at, call in enumerate(answer.calls):
        blocks.append({**_tool_use(reply, at, call), "input": _input(call, answer)})
    return _encode(_message(reply, blocks, answer))


def _input(call: ToolUse, answer: Answer) -> Raw:
    """The arguments as an object; those that the token bound cut are none."""
    return Raw(call.arguments.encode() if not answer.cut else b"{}")


def _tool_use(reply: Reply, at: int, call: ToolUse) -> Json:
    return {"type": "tool_use", "id": f"toolu_sim{reply.number}_{at}", "name": call.name, "input": {}}


def _message(reply: Reply, blocks: list[Json], answer: Answer | None) -> Json:
    """answer: None while it is still to come."""
    return {
        "id": f"msg_sim{reply.number}",
        "type": "message",
        "role": "assistant",
        "model": reply.prompt.model,
        "content": blocks,
        "stop_reason": None if answer is None else _stop_reason(answer),
        "stop_sequence": None if answer is None else answer.stop or None,
        "usage": {**_usage(reply, answer), "service_tier": "standard"},
    }


def _usage(reply: Reply, answer: Answer | None) -> Json:
    """Here cached input is no part of the input."""
    usage: Json = {
        "input_tokens": reply.prompt.input_tokens - reply.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": reply.cached_tokens,
        "output_tokens": 1 if answer is None else reply.output_tokens,
    }
    if answer is not None:
        usage["output_tokens_details"] = {"thinking_tokens": reply.reasoning_tokens}
    return usage


def _stop_reason(answer: Answer) -> str:
    if answer.cut:
        return "max_tokens"
    if answer.refused or answer.filtered:
        return "refusal"
    if answer.stop:
        return "stop_sequence"
    return "tool_use" if answer.calls else "end_turn"


def streamed(reply: Reply) -> Streamed:
    """The answer as events: message_start, every block piece by piece, message_delta with the usage, message_stop."""
    opening = _event("message_start", message=_message(reply, [], None)) + _event("ping")

    def closing() -> bytes:
        answer = reply.answers[0]
        delta = {"stop_reason": _stop_reason(answer), "stop_sequence": answer.stop or None}
        return _event("message_delta", delta=delta, usage=_usage(reply, answer)) + _event("message_stop")

    return Streamed(opening, _pieces(reply), closing, error_event)


def _pieces(reply: Reply) -> Iterator[tuple[bytes, int]]:
    answer, index = reply.answers[0], 0
    if answer.reasoning:
        start: Json = {"type": "thinking", "thinking": "", "signature": ""}
        shown, unseen = ("", answer.reasoning_tokens) if answer.hidden else (answer.reasoning, 0)
        yield from _block(index, start, b'"thinking_delta","thinking":%b', shown, started=unseen, signed=True)
        index += 1
    if answer.speaks:
        yield from _block(index, {"type": "text", "text": ""}, b'"text_delta","text":%b', answer.text)
        index += 1
    for at, call in enumerate(answer.calls):
        start = _tool_use(reply, at, call)
        yield from _block(index, start, b'"input_json_delta","partial_json":%b', call.arguments, started=count(call.name))
        index += 1


def _block(index: int, start: Json, form: bytes, text: str, *, started: int = 0, signed: bool = False) -> Iterator[tuple[bytes, int]]:
    yield _event("content_block_start", index=index, content_block=start), started
    head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":%b}}\n\n' % (index, form)
    for token in json_tokens(text):
        yield head % token, 1
    if signed:
        yield _event("content_block_delta", index=index, delta={"type": "signature_delta", "signature": _SIGNATURE}), 0
    yield _event("content_block_stop", index=index), 0


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **fields}))


def error_event(message: str) -> bytes:
    """An error in the middle of a stream, which then ends."""
    return b"event: error\ndata: %b\n\n" % error_body("anthropic", 529, message)
