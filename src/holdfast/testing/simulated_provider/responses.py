"""OpenAI Responses: reading a request, and the answer as one object. `responses_stream` writes it as events."""

from itertools import chain
from typing import Any

import msgspec
from msgspec import Raw, Struct

from holdfast.errors import MalformedRequest
from holdfast.testing.simulated_provider.answer import Answer, Reply, ToolUse, logprobs
from holdfast.testing.simulated_provider.prompt import MEDIA, MESSAGE, OfferedTool, Prompt, Text, count_json, decode, require_positive

_JSON_OBJECT = {"type": "object", "properties": {"reply": {"type": "string"}}, "required": ["reply"]}
_CALLABLE = frozenset({"function", "custom"})

Json = dict[str, object]


class _Part(Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(Struct):
    type: str = "message"
    role: str = ""
    content: str | list[_Part] | None = None
    summary: list[_Part] | None = None
    name: str = ""
    arguments: str = ""
    input: str = ""
    output: Any = None
    tools: Raw = Raw(b"")


class _Tool(Struct):
    type: str
    name: str = ""
    parameters: Any = None
    tools: list["_Tool"] = []


class _Choice(Struct):
    type: str = ""
    name: str = ""


class _Format(Struct):
    type: str = "text"
    schema: Any = None


class _TextOptions(Struct):
    format: _Format | None = None


class _Reasoning(Struct):
    effort: str | None = None
    summary: str | None = None


class _Body(Struct):
    model: str
    input: str | list[_Item] = ""
    instructions: str | list[_Item] | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: Raw = Raw(b"")
    tool_choice: str | _Choice | None = None
    text: _TextOptions | None = None
    reasoning: _Reasoning | None = None
    include: list[str] | None = None
    previous_response_id: str | None = None
    parallel_tool_calls: bool | None = None


def read(body: bytes) -> Prompt:
    """The prompt of a request body; raises MalformedRequest."""
    asked = decode(body, _Body)
    require_positive(asked.max_output_tokens, "max_output_tokens")
    if not asked.input and not asked.previous_response_id:
        raise MalformedRequest("Missing required parameter: 'input'.", "input")
    items = _items(asked.input)
    text = Text()
    if isinstance(asked.instructions, str):
        text.say(asked.instructions)
    for item in (*(_items(asked.instructions) if isinstance(asked.instructions, list) else ()), *items):
        _read_item(item, text)
    wanted = asked.text.format if asked.text else None
    return Prompt(
        model=asked.model,
        stream=bool(asked.stream),
        max_output=asked.max_output_tokens,
        tools=_offered(asked, items),
        must_call=_must_call(asked.tool_choice),
        assistant_turns=_assistant_turns(items),
        has_tool_result=any(item.type.endswith("_output") for item in items),
        first_text=text.first,
        last_text=text.last,
        schema=_schema(wanted),
        logprobs="message.output_text.logprobs" in (asked.include or ()),
        reasoning=asked.reasoning is not None and (_set(asked.reasoning.effort) or _set(asked.reasoning.summary)),
        hidden=asked.reasoning is not None and not _set(asked.reasoning.summary),
        parallel=asked.parallel_tool_calls is not False,
        input_tokens=text.tokens + count_json(asked.tools),
        previous=asked.previous_response_id or "",
    )


def _set(option: str | None) -> bool:
    return option not in {None, "none"}


def _items(given: str | list[_Item]) -> list[_Item]:
    return [_Item(role="user", content=given)] if isinstance(given, str) else given


def _read_item(item: _Item, text: Text) -> None:
    text.tokens += MESSAGE + count_json(item.tools)
    by_model = _by_model(item)
    for content in (item.content, item.summary, item.output):
        _read_content(content, text, by_model, item.role == "user")
    for said in (item.name, item.arguments, item.input):
        text.say(said, by_model=True)


def _read_content(content: object, text: Text, by_model: bool, by_user: bool) -> None:
    if isinstance(content, str):
        text.say(content, by_model=by_model, by_user=by_user)
    elif isinstance(content, list):
        for part in content:
            said = part.get("text") if isinstance(part, dict) else part.text if part.text is not None else part.refusal
            if isinstance(said, str):
                text.say(said, by_model=by_model, by_user=by_user)
            else:
                text.tokens += MEDIA


def _by_model(item: _Item) -> bool:
    return item.role == "assistant" or item.type == "reasoning" or item.type.endswith("_call")


def _assistant_turns(items: list[_Item]) -> int:
    """Runs of consecutive items by the model: reasoning, text and calls of one answer are one turn."""
    spoke = [_by_model(item) for item in items]
    return sum(now and not before for before, now in zip([False, *spoke], spoke, strict=False))


def _offered(asked: _Body, items: list[_Item]) -> tuple[OfferedTool, ...]:
    """The tools of the request and, as Codex sends them, those of its `additional_tools` items."""
    if asked.tool_choice == "none":
        return ()
    offered: list[OfferedTool] = []
    for tool in chain(_tools(asked.tools), *(_tools(item.tools) for item in items if item.type == "additional_tools")):
        namespace = tool.name if tool.type == "namespace" else ""
        named = tool.tools if namespace else [tool]
        offered += [OfferedTool(one.name, one.parameters, one.type == "custom", namespace) for one in named if one.type in _CALLABLE]
    return tuple(offered)


def _tools(raw: Raw) -> list[_Tool]:
    return (decode(bytes(raw), list[_Tool] | None) or []) if raw else []  # type: ignore[arg-type]


def _must_call(choice: str | _Choice | None) -> str:
    if isinstance(choice, _Choice):
        return choice.name
    return "*" if choice == "required" else ""


def _schema(wanted: _Format | None) -> object:
    if wanted is None or wanted.type == "text":
        return None
    return wanted.schema if wanted.type == "json_schema" else _JSON_OBJECT


def whole(reply: Reply) -> bytes:
    """The body of an answer that is not streamed."""
    return msgspec.json.encode(completed(reply))


def completed(reply: Reply) -> Json:
    """The response object once everything was said."""
    reason = _cut_short(reply.answers[0])
    done = response(reply, "incomplete" if reason else "completed")
    done["incomplete_details"] = {"reason": reason} if reason else None
    done["output"] = [item for item, _ in items(reply)]
    done["usage"] = _usage(reply)
    return done


def _cut_short(answer: Answer) -> str:
    """Why the answer is not complete, "" when it is."""
    if answer.cut:
        return "max_output_tokens"
    return "content_filter" if answer.filtered else ""


def identifier(reply: Reply) -> str:
    """By which a later request goes on from this one."""
    return f"resp_sim{reply.number}"


def response(reply: Reply, status: str) -> Json:
    """The response object before anything was said."""
    prompt = reply.prompt
    return {
        "id": identifier(reply),
        "object": "response",
        "created_at": reply.created_s,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": prompt.max_output,
        "metadata": {},
        "model": prompt.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": prompt.previous or None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
    }


def items(reply: Reply) -> list[tuple[Json, str]]:
    """The output items in order, each with the text that a stream sends of it piece by piece."""
    answer, number = reply.answers[0], reply.number
    found: list[tuple[Json, str]] = []
    if answer.reasoning:
        found.append((_reasoning_item(answer, number), "" if answer.hidden else answer.reasoning))
    if answer.speaks:
        found.append((_message_item(answer, number, likely=reply.prompt.logprobs), answer.text))
    found += [(_call_item(call, number, at), call.arguments) for at, call in enumerate(answer.calls)]
    return found


def _reasoning_item(answer: Answer, number: int) -> Json:
    summary = [] if answer.hidden else [{"type": "summary_text", "text": answer.reasoning}]
    return {"id": f"rs_sim{number}", "type": "reasoning", "summary": summary, "encrypted_content": "c2lt"}


def _message_item(answer: Answer, number: int, *, likely: bool) -> Json:
    status = "incomplete" if _cut_short(answer) else "completed"
    return {
        "id": f"msg_sim{number}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part(answer, likely=likely)],
    }


def part(answer: Answer, *, likely: bool) -> Json:
    """The content part of a message."""
    if answer.refused:
        return {"type": "refusal", "refusal": answer.text}
    return {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": logprobs(answer.text) if likely else []}


def _call_item(call: ToolUse, number: int, at: int) -> Json:
    named: Json = {"name": call.name, "call_id": f"call_sim{number}_{at}", "status": "completed"}
    if call.namespace:
        named["namespace"] = call.namespace
    if call.custom:
        return {"id": f"ctc_sim{number}_{at}", "type": "custom_tool_call", "input": call.arguments, **named}
    return {"id": f"fc_sim{number}_{at}", "type": "function_call", "arguments": call.arguments, **named}


def _usage(reply: Reply) -> Json:
    return {
        "input_tokens": reply.prompt.input_tokens,
        "input_tokens_details": {"cached_tokens": reply.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": reply.output_tokens,
        "output_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
        "total_tokens": reply.prompt.input_tokens + reply.output_tokens,
    }
