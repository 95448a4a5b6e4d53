"""OpenAI Chat Completions, as a provider reads and writes it."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from holdfast.errors import MalformedRequest
from holdfast.testing.simulated_provider.answer import Answer, Reply, Streamed, ToolUse, json_tokens, logprobs
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

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_JSON_OBJECT = {"type": "object", "properties": {"reply": {"type": "string"}}, "required": ["reply"]}
_DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.encode


class _Function(Struct):
    name: str = ""
    parameters: Any = None
    arguments: str = ""
    input: str = ""


class _Tool(Struct):
    """An offered tool, a call of one, or the choice of one."""

    type: str = "function"
    function: _Function | None = None
    custom: _Function | None = None


class _Part(Struct):
    type: str = "text"
    text: str | None = None
    refusal: str | None = None


class _Message(Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_Tool] | None = None
    refusal: str | None = None


class _JsonSchema(Struct):
    schema: Any = None


class _ResponseFormat(Struct):
    type: str = "text"
    json_schema: _JsonSchema | None = None


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Body(Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: Raw = Raw(b"")
    tool_choice: str | _Tool | None = None
    response_format: _ResponseFormat | None = None
    stop: str | list[str] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None


def read(body: bytes) -> Prompt:
    """The prompt of a request body; raises MalformedRequest."""
    asked = decode(body, _Body)
    if not asked.messages:
        raise MalformedRequest("Invalid 'messages': empty array. Expected an array with minimum length 1.", "messages")
    require_positive(asked.n, "n")
    require_positive(asked.max_tokens, "max_tokens")
    require_positive(asked.max_completion_tokens, "max_completion_tokens")
    text = Text()
    for index, message in enumerate(asked.messages):
        if message.role not in _ROLES:
            raise MalformedRequest(f"Invalid value: '{message.role}'.", f"messages[{index}].role")
        _read_message(message, text)
    return Prompt(
        model=asked.model,
        stream=bool(asked.stream),
        usage_in_stream=bool(asked.stream_options and asked.stream_options.include_usage),
        choices=asked.n or 1,
        max_output=asked.max_completion_tokens or asked.max_tokens,
        tools=_offered(asked),
        must_call=_must_call(asked.tool_choice),
        assistant_turns=sum(message.role == "assistant" for message in asked.messages),
        has_tool_result=any(message.role in {"tool", "function"} for message in asked.messages),
        first_text=text.first,
        last_text=text.last,
        schema=_schema(asked.response_format),
        logprobs=bool(asked.logprobs),
        reasoning=asked.reasoning_effort not in {None, "none"},
        stops=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        parallel=asked.parallel_tool_calls is not False,
        input_tokens=text.tokens + count_json(asked.tools),
    )


def _read_message(message: _Message, text: Text) -> None:
    text.tokens += MESSAGE
    by_model = message.role == "assistant"
    parts = [_Part(text=message.content)] if isinstance(message.content, str) else message.content or ()
    for part in parts:
        said = part.text if part.text is not None else part.refusal
        if said is None:
            text.tokens += MEDIA
        else:
            text.say(said, by_model=by_model, by_user=message.role == "user")
    for call in message.tool_calls or ():
        used = call.function or call.custom or _Function()
        for said in (used.name, used.arguments, used.input):
            text.say(said, by_model=True)


def _offered(asked: _Body) -> tuple[OfferedTool, ...]:
    if asked.tool_choice == "none" or not asked.tools:
        return ()
    offered = []
    for tool in decode(bytes(asked.tools), list[_Tool] | None) or ():  # type: ignore[arg-type]
        if tool.function is not None:
            offered.append(OfferedTool(tool.function.name, tool.function.parameters))
        elif tool.custom is not None:
            offered.append(OfferedTool(tool.custom.name, custom=True))
    return tuple(offered)


def _must_call(choice: str | _Tool | None) -> str:
    if isinstance(choice, _Tool):
        named = choice.function or choice.custom
        return named.name if named else ""
    return "*" if choice == "required" else ""


def _schema(wanted: _ResponseFormat | None) -> object:
    if wanted is None or wanted.type == "text":
        return None
    return wanted.json_schema.schema if wanted.json_schema else _JSON_OBJECT


def whole(reply: Reply) -> bytes:
    """The body of an answer that is not streamed."""
    return _encode(
        {
            "id": f"chatcmpl-sim{reply.number}",
            "object": "chat.completion",
            "created": reply.created_s,
            "model": reply.prompt.model,
            "choices": [_choice(reply, index) for index in range(len(reply.answers))],
            "usage": _usage(reply),
            "service_tier": "default",
            "system_fingerprint": "fp_sim",
        }
    )


def _choice(reply: Reply, index: int) -> dict[str, object]:
    answer = reply.answers[index]
    message: dict[str, object] = {
        "role": "assistant",
        "content": None if answer.refused or not answer.text else answer.text,
        "refusal": answer.text if answer.refused else None,
        "annotations": [],
    }
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [_call(call, reply, index, at) for at, call in enumerate(answer.calls)]
    likely = _logprobs(answer.text) if reply.prompt.logprobs and answer.text else None
    return {"index": index, "message": message, "logprobs": likely, "finish_reason": _finish(answer)}


def _call(call: ToolUse, reply: Reply, index: int, at: int) -> dict[str, object]:
    identifier = f"call_sim{reply.number}_{index}_{at}"
    if call.custom:
        return {"id": identifier, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return {"id": identifier, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _logprobs(text: str) -> dict[str, object]:
    return {"content": logprobs(text), "refusal": None}


def _finish(answer: Answer) -> str:
    if answer.cut:
        return "length"
    if answer.filtered:
        return "content_filter"
    return "tool_calls" if answer.calls else "stop"


def _usage(reply: Reply) -> dict[str, object]:
    prompt, output = reply.prompt.input_tokens, reply.output_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": reply.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reply.reasoning_tokens, "audio_tokens": 0},
    }


def streamed(reply: Reply) -> Streamed:
    """The answer as events: per choice a role, then one event for each token, then the finish reason."""
    head = _encode(
        {
            "id": f"chatcmpl-sim{reply.number}",
            "object": "chat.completion.chunk",
            "created": reply.created_s,
            "model": reply.prompt.model,
            "service_tier": "default",
            "system_fingerprint": "fp_sim",
        }
    )
    head = b"data: " + head[:-1]
    tail = b"}]}\n\n" if not reply.prompt.usage_in_stream else b'}],"usage":null}\n\n'
    end = b',"logprobs":null,"finish_reason":null' + tail

    def begin(index: int) -> bytes:
        return b'%b,"choices":[{"index":%d,"delta":' % (head, index)

    def pieces() -> Iterator[tuple[bytes, int]]:
        for index, answer in enumerate(reply.answers):
            before = begin(index)
            for run in _runs(reply, index):
                if run.started:
                    yield before + run.started + end, run.started_tokens
                left, right = before + run.left, run.right + end
                for token in json_tokens(run.text):
                    yield left + token + (right if not run.likely else run.right + _likely(token) + tail), 1
            yield b'%b{},"logprobs":null,"finish_reason":"%b"%b' % (before, _finish(answer).encode(), tail), 0

    def closing() -> bytes:
        usage = b'%b,"choices":[],"usage":%b}\n\n' % (head, _encode(_usage(reply))) if reply.prompt.usage_in_stream else b""
        return usage + _DONE

    role = b'%b{"role":"assistant","content":%b,"refusal":null}%b'
    opening = b"".join(role % (begin(index), b'""' if answer.text else b"null", end) for index, answer in enumerate(reply.answers))
    return Streamed(opening, pieces(), closing, error_event)


class _Run(Struct, frozen=True):
    """A text that is sent token by token, each as the delta `left` + token + `right`, after the delta `started`."""

    text: str
    left: bytes
    right: bytes
    likely: bool = False
    started: bytes = b""
    started_tokens: int = 0


def _runs(reply: Reply, index: int) -> Iterator[_Run]:
    answer = reply.answers[index]
    yield _Run(answer.reasoning, b'{"reasoning_content":', b"}")
    yield _Run(answer.text, b'{"refusal":' if answer.refused else b'{"content":', b"}", likely=reply.prompt.logprobs)
    for at, call in enumerate(answer.calls):
        started = b'{"tool_calls":[%b]}' % _encode({"index": at, **_call(msgspec.structs.replace(call, arguments=""), reply, index, at)})
        left = b'{"tool_calls":[{"index":%d,"%b":' % (at, b'custom":{"input' if call.custom else b'function":{"arguments')
        yield _Run(call.arguments, left, b"}}]}", started=started, started_tokens=count(call.name))


def _likely(token: bytes) -> bytes:
    return b',"logprobs":%b,"finish_reason":null' % _encode(_logprobs(msgspec.json.decode(token, type=str)))


def error_event(message: str) -> bytes:
    """An error in the middle of a stream, which then ends."""
    return b"data: %b\n\n" % error_body("openai", 500, message)
