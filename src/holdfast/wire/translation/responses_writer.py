"""Writes a Responses request. Nothing is stored at the target: nobody could name its answer later."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from holdfast.wire.translation import media
from holdfast.wire.translation.chat_writer import marked_as_failed
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
    Role,
    Text,
    Tool,
    ToolChoice,
)
from holdfast.wire.translation.tools import arguments_schema, schema_name

_TARGET = "openai-responses"

Object = dict[str, object]


def write_request(request: Request) -> bytes:
    items = [item for message in request.messages for item in _items(message)]
    body: Object = {"model": request.model, "input": items, "store": False}
    if request.system:
        body["instructions"] = "\n\n".join(request.system)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if request.choice is not None:
            body["tool_choice"] = _choice(request.choice)
        if request.parallel is not None:
            body["parallel_tool_calls"] = request.parallel
    optional: Object = {
        "text": _text(request) or None,
        "reasoning": _reasoning(request) or None,
        "max_output_tokens": request.max_output,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "user": user_id(request.user) if request.user else None,
        "stream": request.stream or None,
    }
    body |= {name: value for name, value in optional.items() if value is not None} | request.shared
    return msgspec.json.encode(body)


def _text(request: Request) -> Object:
    text: Object = {}
    if request.format is not None:
        text["format"] = _format(request.format)
    if request.verbosity:
        text["verbosity"] = request.verbosity
    return text


def _reasoning(request: Request) -> Object:
    reasoning: Object = {}
    if request.effort:
        reasoning["effort"] = request.effort
    if request.show_reasoning:
        reasoning["summary"] = "auto"
    return reasoning


def _items(message: Message) -> list[Object]:
    """Text and media in a row are one message; calls and results are items of their own."""
    items: list[Object] = []
    said: list[Part] = []

    def close() -> None:
        if said:
            items.append({"type": "message", "role": message.role, "content": _content(said, message.role)})
            said.clear()

    for part in message.parts:
        if isinstance(part, Call | Result):
            close()
            items.append(_call(part) if isinstance(part, Call) else _result(part))
        else:
            said.append(part)
    close()
    return items


def _call(call: Call) -> Object:
    if call.custom:
        return {"type": "custom_tool_call", "call_id": call_id(call.id), "name": call.name, "input": call.arguments}
    return {"type": "function_call", "call_id": call_id(call.id), "name": call.name, "arguments": call.arguments or "{}"}


def _result(result: Result) -> Object:
    parts: Sequence[Text | Image | Document] = result.parts
    if result.failed:
        texts = marked_as_failed([part for part in parts if isinstance(part, Text)])
        parts = [*texts, *[part for part in parts if not isinstance(part, Text)]]
    kind = "custom_tool_call_output" if result.custom else "function_call_output"
    output = _content(parts, "user") if parts else ""
    return {"type": kind, "call_id": call_id(result.call_id), "output": output}


def _content(parts: Sequence[Part], role: Role) -> str | list[Object]:
    first = parts[0]
    if len(parts) == 1 and isinstance(first, Text):
        return first.text
    return [_part(part, role) for part in parts]


def _part(part: Part, role: Role) -> Object:
    match part:
        case Text():
            return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text}
        case Refused():
            return {"type": "refusal", "refusal": part.text}
        case Image():
            media.check_image(part, _TARGET)
            return {"type": "input_image", "image_url": media.url_of(part), "detail": part.detail or "auto"}
        case Document():
            if part.url:
                return {"type": "input_file", "file_url": part.url}
            return {"type": "input_file", "filename": part.name or "document", "file_data": media.url_of(part)}
        case _:
            raise no_place(part.at, _TARGET, "calls and results are no content")


def _tool(tool: Tool) -> Object:
    written: Object = {"name": tool.name}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.custom:
        return {"type": "custom", **written} | ({"format": tool.grammar} if tool.grammar is not None else {})
    return {"type": "function", **written, "parameters": arguments_schema(tool), "strict": bool(tool.strict)}


def _choice(choice: ToolChoice) -> object:
    if choice.mode != "named":
        return choice.mode
    return {"type": "custom" if choice.custom else "function", "name": choice.name}


def _format(wanted: OutputFormat) -> Object:
    if wanted.schema is None:
        return {"type": "json_object"}
    name: Raw | str = wanted.name or schema_name(wanted.schema)
    given: Object = {"name": name, "schema": wanted.schema, "description": wanted.description, "strict": wanted.strict}
    return {"type": "json_schema"} | {key: value for key, value in given.items() if value is not None}
