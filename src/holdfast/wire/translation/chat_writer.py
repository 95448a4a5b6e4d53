"""Writes a Chat Completions request.

Messages of tools are text there: pictures and files in a result follow in a message of the user, which says where they belong.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Raw

from holdfast.wire.translation import media
from holdfast.wire.translation.fields import no_place
from holdfast.wire.translation.ids import call_id, user_id
from holdfast.wire.translation.neutral import (
    Call,
    Document,
    Image,
    Message,
    OutputFormat,
    Part,
    Refused,
    Request,
    Result,
    Text,
    Tool,
    ToolChoice,
)
from holdfast.wire.translation.tools import schema_name

_TARGET = "openai-chat"
_SEE_BELOW = "The result is in the next message."
_FOLLOWS = "From the result of the tool call {}:"
_FAILED = "Error: "

Object = dict[str, object]


def write_request(request: Request) -> bytes:
    body: Object = {"model": request.model, "messages": _messages(request)}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if request.choice is not None:
            body["tool_choice"] = _choice(request.choice)
        if request.parallel is not None:
            body["parallel_tool_calls"] = request.parallel
    if request.format is not None:
        body["response_format"] = _format(request.format)
    optional: Object = {
        "reasoning_effort": request.effort or None,
        "max_completion_tokens": request.max_output,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop) or None,
        "verbosity": request.verbosity or None,
        "user": user_id(request.user) if request.user else None,
    }
    body |= {name: value for name, value in optional.items() if value is not None} | request.shared
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body)


def _messages(request: Request) -> list[Object]:
    messages: list[Object] = []
    if request.system:
        messages.append({"role": "system", "content": _joined([Text(text) for text in request.system])})
    for message in request.messages:
        if message.role == "assistant":
            messages.append(_assistant(message))
        else:
            messages += _told(message)
    return messages


def _assistant(message: Message) -> Object:
    texts = [part for part in message.parts if isinstance(part, Text)]
    said: Object = {"role": "assistant", "content": _joined(texts) if texts else None}
    for part in message.parts:
        if isinstance(part, Image | Document | Result):
            raise no_place(part.at or message.at, _TARGET, "a message of the assistant has text and tool calls")
    if refusals := [part.text for part in message.parts if isinstance(part, Refused)]:
        said["refusal"] = "".join(refusals)
    if calls := [_call(part) for part in message.parts if isinstance(part, Call)]:
        said["tool_calls"] = calls
    elif not texts and not refusals:
        said["content"] = ""
    return said


def _call(call: Call) -> Object:
    if call.custom:
        return {"id": call_id(call.id), "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return {"id": call_id(call.id), "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}


def _told(message: Message) -> Iterable[Object]:
    """What anybody but the model said: results of tools first, which OpenAI wants right after the calls."""
    rest: list[Part] = []
    for part in message.parts:
        if isinstance(part, Result):
            yield _result(part)
            if shown := [piece for piece in part.parts if not isinstance(piece, Text)]:
                rest += [Text(_FOLLOWS.format(call_id(part.call_id))), *shown]
        else:
            rest.append(part)
    if rest or not message.parts:
        yield {"role": message.role, "content": _content(rest)}


def _result(result: Result) -> Object:
    texts = [part for part in result.parts if isinstance(part, Text)]
    if result.failed:
        texts = marked_as_failed(texts)
    if not texts and result.parts:
        texts = [Text(_SEE_BELOW)]
    return {"role": "tool", "tool_call_id": call_id(result.call_id), "content": _joined(texts)}


def marked_as_failed(texts: Sequence[Text]) -> list[Text]:
    """OpenAI has no flag for a failed tool: the text says it, unless it does already."""
    if texts and texts[0].text.lower().lstrip(" <[").startswith(("error", "tool_use_error")):
        return list(texts)
    return [Text(_FAILED + (texts[0].text if texts else "the tool failed")), *texts[1:]]


def _joined(texts: Sequence[Text]) -> str | list[Object]:
    if len(texts) == 1:
        return texts[0].text
    return [{"type": "text", "text": text.text} for text in texts] if texts else ""


def _content(parts: Sequence[Part]) -> str | list[Object]:
    texts = [part for part in parts if isinstance(part, Text)]
    return _joined(texts) if len(texts) == len(parts) else [_part(part) for part in parts]


def _part(part: Part) -> Object:
    match part:
        case Text() | Refused():
            return {"type": "text", "text": part.text}
        case Image():
            media.check_image(part, _TARGET)
            return {"type": "image_url", "image_url": {"url": media.url_of(part)} | ({"detail": part.detail} if part.detail else {})}
        case Document():
            return _file(part)
        case _:
            raise no_place(part.at, _TARGET, "only the assistant calls tools")


def _file(part: Document) -> Object:
    if part.url:
        raise no_place(part.at, _TARGET, "files come inline there, not by URL")
    return {"type": "file", "file": {"filename": part.name or "document", "file_data": media.url_of(part)}}


def _tool(tool: Tool) -> Object:
    given = {"name": tool.name, "description": tool.description}
    if tool.custom:
        custom: Object = {name: value for name, value in given.items() if value is not None}
        if tool.grammar is not None:
            custom["format"] = _grammar(tool.grammar)
        return {"type": "custom", "custom": custom}
    fields: Object = {**given, "parameters": tool.schema, "strict": tool.strict}
    return {"type": "function", "function": {name: value for name, value in fields.items() if value is not None}}


def _grammar(grammar: Raw) -> Object:
    shape: Object = msgspec.json.decode(grammar)
    if shape.get("type") != "grammar":
        return shape
    return {"type": "grammar", "grammar": {name: value for name, value in shape.items() if name != "type"}}


def _choice(choice: ToolChoice) -> object:
    if choice.mode != "named":
        return choice.mode
    kind = "custom" if choice.custom else "function"
    return {"type": kind, kind: {"name": choice.name}}


def _format(wanted: OutputFormat) -> Object:
    if wanted.schema is None:
        return {"type": "json_object"}
    fields: Object = {
        "name": wanted.name or schema_name(wanted.schema),
        "schema": wanted.schema,
        "description": wanted.description,
        "strict": wanted.strict,
    }
    return {"type": "json_schema", "json_schema": {name: value for name, value in fields.items() if value is not None}}
