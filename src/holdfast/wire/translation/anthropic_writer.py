"""Writes an Anthropic Messages request.

System prompts in the middle of a history keep their place, marked, in a message of the user; a history that does not begin with the
user gets a first word of the user, which Anthropic wants.
"""

import re
from base64 import b64decode
from binascii import Error as NotBase64

import msgspec

from holdfast.wire.translation import media
from holdfast.wire.translation.fields import no_place
from holdfast.wire.translation.ids import call_id
from holdfast.wire.translation.neutral import (
    Call,
    Document,
    Effort,
    Image,
    Message,
    Part,
    Refused,
    Request,
    Result,
    Text,
    Tool,
)
from holdfast.wire.translation.tools import arguments_object, arguments_schema, closed

MAX_TOKENS = 32_000
"""`max_tokens` of a caller that set no bound, which Anthropic wants: what every model since Claude 4 can generate."""
OLDER_MAX_TOKENS = 4_096
"""The same for models before Claude 3.7."""
FIRST_WORD = "(The conversation begins.)"

_TARGET = "anthropic-messages"
_HOTTEST = 1.0
_LEAST_THINKING = 1_024

_SHORT = re.compile(r"claude-(?:instant|2|3-(?:haiku|sonnet|opus|5))")
_BUDGETED = re.compile(r"claude-(?:3-7|(?:opus|sonnet|haiku)-4(?:-[0-5])?(?!-?\d)|(?:opus|sonnet|haiku)-4(?:-[0-5])?-\d{8})")
"""Models that think within a budget of tokens; later ones adapt, by effort. Earlier ones do not think."""
_SAMPLED = re.compile(r"claude-(?:instant|[23]|(?:opus|sonnet|haiku)-4(?:-[0-6])?(?!-?\d)|(?:opus|sonnet|haiku)-4(?:-[0-6])?-\d{8})")
"""Claude models with a temperature and a top_p: those up to 4.6."""
_BUDGETS: dict[Effort, int] = {"minimal": 1_024, "low": 4_096, "medium": 16_384, "high": 24_576, "xhigh": 31_000, "max": 31_000}

Object = dict[str, object]


def write_request(request: Request, model: str = "") -> bytes:
    """model: the target's, where it is known: older ones are asked to think in another way."""
    leading, rest = _leading(request.messages)
    system = [{"type": "text", "text": text} for text in (*request.system, *leading) if text]
    messages = _turns(rest)
    if messages[-1][0] == "assistant":
        raise no_place(request.messages[-1].at or "messages", _TARGET, "a model there goes on with its last message instead of a new one")
    body: Object = {
        "model": request.model,
        "max_tokens": request.max_output or (OLDER_MAX_TOKENS if _SHORT.search(model) else MAX_TOKENS),
        "messages": [{"role": role, "content": content} for role, content in messages],
    }
    if system:
        body["system"] = system
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        _choose(body, request)
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.user:
        body["metadata"] = {"user_id": request.user}
    if request.stream:
        body["stream"] = True
    _sample(body, request, model)
    _think(body, request, model)
    return msgspec.json.encode(body)


def _leading(messages: list[Message]) -> tuple[list[str], list[Message]]:
    """The system prompts at the beginning, and all that comes after."""
    at = next((index for index, message in enumerate(messages) if message.role not in ("system", "developer")), len(messages))
    return [part.text for message in messages[:at] for part in message.parts if isinstance(part, Text)], messages[at:]


def _turns(messages: list[Message]) -> list[tuple[str, list[Object]]]:
    """Roles alternate there, results come first, and no text is empty."""
    turns: list[tuple[str, list[Object]]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [block for part in message.parts if (block := _block(part, message)) is not None]
        if not blocks:
            continue
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    if not turns or turns[0][0] == "assistant":
        turns.insert(0, ("user", [{"type": "text", "text": FIRST_WORD}]))
    for _, blocks in turns:
        blocks.sort(key=lambda block: block["type"] != "tool_result")
    return turns


def _block(part: Part, message: Message) -> Object | None:
    match part:
        case Text() | Refused():
            return {"type": "text", "text": _marked(part.text, message)} if part.text.strip() else None
        case Image():
            return {"type": "image", "source": _image_source(part)}
        case Document():
            return _document(part)
        case Call():
            return _call(part)
        case Result():
            return _result(part)


def _marked(text: str, message: Message) -> str:
    return f"<system>\n{text}\n</system>" if message.role in ("system", "developer") else text


def _image_source(image: Image) -> Object:
    media.check_image(image, _TARGET)
    if image.url:
        return {"type": "url", "url": image.url}
    return {"type": "base64", "media_type": image.media_type, "data": image.data}


def _document(document: Document) -> Object:
    source: Object
    if document.url:
        source = {"type": "url", "url": document.url}
    elif document.media_type == "application/pdf":
        source = {"type": "base64", "media_type": "application/pdf", "data": document.data}
    elif document.media_type.startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": _plain(document)}
    else:
        raise no_place(document.at, _TARGET, f"it takes no files of type {document.media_type or 'unknown'}")
    block: Object = {"type": "document", "source": source}
    if document.name:
        block["title"] = document.name
    return block


def _plain(document: Document) -> str:
    try:
        return b64decode(document.data, validate=True).decode("utf-8")
    except (NotBase64, UnicodeDecodeError):
        raise no_place(document.at, _TARGET, "its data is not text in UTF-8 as base64") from None


def _call(call: Call) -> Object:
    if call.custom:
        raise no_place(call.at, _TARGET, "tools there take JSON, not free text")
    return {"type": "tool_use", "id": call_id(call.id), "name": call.name, "input": arguments_object(call.arguments)}


def _result(result: Result) -> Object:
    if result.custom:
        raise no_place(result.at, _TARGET, "tools there take JSON, not free text")
    content: list[Object] = []
    for part in result.parts:
        match part:
            case Text():
                content += [{"type": "text", "text": part.text}] if part.text.strip() else []
            case Image():
                content.append({"type": "image", "source": _image_source(part)})
            case Document():
                content.append(_document(part))
    block: Object = {"type": "tool_result", "tool_use_id": call_id(result.call_id)}
    if content:
        block["content"] = content
    if result.failed:
        block["is_error"] = True
    return block


def _tool(tool: Tool) -> Object:
    if tool.custom:
        raise no_place(tool.at, _TARGET, "tools there take JSON, not free text")
    written: Object = {"name": tool.name, "input_schema": arguments_schema(tool)}
    if tool.description:
        written["description"] = tool.description
    if tool.strict:
        written["strict"] = True
    return written


def _choose(body: Object, request: Request) -> None:
    choice = request.choice
    one_at_a_time = request.parallel is False
    if choice is None and not one_at_a_time:
        return
    mode = choice.mode if choice is not None else "auto"
    written: Object = {"type": {"required": "any", "named": "tool"}.get(mode, mode)}
    if choice is not None and mode == "named":
        written["name"] = choice.name
    if one_at_a_time and mode != "none":
        written["disable_parallel_tool_use"] = True
    body["tool_choice"] = written


def _sample(body: Object, request: Request, model: str) -> None:
    """Claude models after 4.6 refuse both settings, save for the defaults: there they are left out, since the models sample as they do."""
    temperature = request.temperature
    if temperature is not None and float(temperature) > _HOTTEST:
        raise no_place("temperature", _TARGET, "it goes up to 1 there")
    if model.startswith("claude-") and not _SAMPLED.match(model):
        return
    if temperature is not None and float(temperature) != _HOTTEST:
        body["temperature"] = temperature
    if request.top_p is not None and float(request.top_p) != 1.0:
        body["top_p"] = request.top_p


def _think(body: Object, request: Request, model: str) -> None:
    """Effort and output format. Thinking does not go with a tool that must be called or a temperature, nor a budget with a turn that was
    begun without."""
    forced = "temperature" in body or (request.choice is not None and request.choice.mode in ("required", "named"))
    config: Object = {}
    if request.format is not None and request.format.schema is not None:
        config["format"] = {"type": "json_schema", "schema": closed(request.format.schema)}
    if not request.effort or _SHORT.search(model):
        pass
    elif _BUDGETED.search(model):
        if not forced and not _in_tool_loop(request) and (budget := _budget(body, request.effort)):
            body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    else:
        _adapt(body, config, request, forced)
    if config:
        body["output_config"] = config


def _adapt(body: Object, config: Object, request: Request, forced: bool) -> None:
    if request.effort == "none":
        body["thinking"] = {"type": "disabled"}
        return
    config["effort"] = "low" if request.effort == "minimal" else request.effort
    if not forced:
        body["thinking"] = {"type": "adaptive"} | ({"display": "summarized"} if request.show_reasoning else {})


def _in_tool_loop(request: Request) -> bool:
    return bool(request.messages) and any(isinstance(part, Result) for part in request.messages[-1].parts)


def _budget(body: Object, effort: Effort) -> int:
    """Below `max_tokens`, half of it at the most, so that an answer fits too; 0 where that is less than the least that is taken."""
    limit = body["max_tokens"]
    assert isinstance(limit, int)
    budget = min(_BUDGETS.get(effort, 0), limit // 2)
    return budget if budget >= _LEAST_THINKING else 0
