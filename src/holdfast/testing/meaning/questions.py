"""Questions, each asked in the three formats with the same meaning, to hold translations against each other.

The fields are those of the official SDKs' `create`; what their types do not know stands in `extra_body`, as the SDKs have it.
"""

from typing import Any, get_args

import msgspec
from msgspec import Struct

from holdfast.testing.meaning.requests import Format
from holdfast.testing.simulated_provider import Script, ScriptedAnswer, ScriptedCall

FORMATS: tuple[Format, ...] = get_args(Format)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
DATA_URL = f"data:image/png;base64,{PIXEL}"
PICTURE = "https://pictures.example.com/one.png"
ASKED = "Which city? Überall 🌍."
SAY: Any = [{"role": "user", "content": ASKED}]
TOOLS = (("weather", "Tells the weather."), ("hotels", "Finds hotels."))
CHAT_TOOLS: Any = [{"type": "function", "function": {"name": n, "description": d, "parameters": SCHEMA, "strict": True}} for n, d in TOOLS]
RESPONSES_TOOLS: Any = [{"type": "function", "name": n, "description": d, "parameters": SCHEMA, "strict": True} for n, d in TOOLS]
MESSAGES_TOOLS: Any = [{"name": n, "description": d, "input_schema": SCHEMA, "strict": True} for n, d in TOOLS]
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "population": {"type": "integer"},
        "districts": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "population", "districts"],
    "additionalProperties": False,
}
ARGUMENTS: dict[str, Any] = {"city": 'Zürich "X"', "days": 3}


class Question(Struct, frozen=True):
    """One question in the three formats, None where a format cannot ask it; fields that are not there are those of `PLAIN`."""

    chat: dict[str, Any] | None = {}
    responses: dict[str, Any] | None = {}
    messages: dict[str, Any] | None = {}
    model: str = "sim-ok"

    @property
    def formats(self) -> tuple[Format, ...]:
        """In which it can be asked."""
        own = zip(FORMATS, (self.chat, self.responses, self.messages), strict=True)
        return tuple(format for format, options in own if options is not None)

    def options(self, format: Format) -> dict[str, Any]:
        """The keyword arguments for a caller of this format."""
        own = dict(zip(FORMATS, (self.chat, self.responses, self.messages), strict=True))[format]
        assert own is not None
        return {"model": self.model, **PLAIN[format], **own}

    def body(self, format: Format) -> bytes:
        """What the SDK of this format sends for these arguments."""
        options = self.options(format)
        extra = options.pop("extra_body", {})
        return msgspec.json.encode({**options, **extra})


PLAIN: dict[Format, dict[str, Any]] = {
    "openai-chat": {"messages": SAY},
    "openai-responses": {"input": SAY},
    "anthropic-messages": {"messages": SAY, "max_tokens": 300},
}


def with_tools(**more: Any) -> dict[str, Any]:
    return {"chat": {"tools": CHAT_TOOLS, **more}, "responses": {"tools": RESPONSES_TOOLS, **more}, "messages": {"tools": MESSAGES_TOOLS}}


def spoken(content: str) -> dict[str, Any]:
    said: Any = [{"role": "user", "content": content}]
    return {"chat": {"messages": said}, "responses": {"input": said}, "messages": {"messages": said}}


CALLED = msgspec.json.encode(ARGUMENTS).decode()
CHAT_TURNS: Any = [
    *SAY,
    {
        "role": "assistant",
        "content": "I will look.",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": CALLED}},
            {"id": "c2", "type": "function", "function": {"name": "hotels", "arguments": CALLED}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "sun"},
    {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "none"}, {"type": "text", "text": "left"}]},
]
RESPONSES_TURNS: Any = [
    *SAY,
    {"role": "assistant", "content": "I will look."},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": CALLED},
    {"type": "function_call", "call_id": "c2", "name": "hotels", "arguments": CALLED},
    {"type": "function_call_output", "call_id": "c1", "output": "sun"},
    {
        "type": "function_call_output",
        "call_id": "c2",
        "output": [{"type": "input_text", "text": "none"}, {"type": "input_text", "text": "left"}],
    },
]
MESSAGES_TURNS: Any = [
    *SAY,
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I will look."},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": ARGUMENTS},
            {"type": "tool_use", "id": "c2", "name": "hotels", "input": ARGUMENTS},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": "sun"},
            {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "none"}, {"type": "text", "text": "left"}]},
        ],
    },
]


def pictured(url: str) -> Question:
    source = {"type": "url", "url": url} if url == PICTURE else {"type": "base64", "media_type": "image/png", "data": PIXEL}
    text, image = {"type": "text", "text": "See?"}, {"type": "image", "source": source}
    shown = {"type": "input_image", "image_url": url, "detail": "auto"}
    return Question(
        {"messages": [{"role": "user", "content": [text, {"type": "image_url", "image_url": {"url": url}}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "See?"}, shown]}]},
        {"messages": [{"role": "user", "content": [text, image]}]},
    )


PDF = "data:application/pdf;base64,JVBERi0xLjQK"
PDF_BLOCK = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQK"}, "title": "a.pdf"}
CHAT_SEE, RESPONSES_SEE = {"type": "text", "text": "See?"}, {"type": "input_text", "text": "See?"}
RESPONSES_PICTURE = {"type": "input_image", "image_url": DATA_URL, "detail": "auto"}
MESSAGES_PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
MESSAGES_PICTURE_RESULT = {
    "role": "user",
    "content": [MESSAGES_TURNS[-1]["content"][0], {**MESSAGES_TURNS[-1]["content"][1], "content": [CHAT_SEE, MESSAGES_PICTURE]}],
}
LOOKING = {"role": "assistant", "content": "I will look."}
LONG: dict[str, Any] = {"type": "object", "properties": {"text": {"type": "string", "minLength": 200}}, "required": ["text"]}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
SYSTEM = [{"role": "system", "content": "Be brief."}, *SAY]
QUESTIONS: dict[str, Question] = {
    "plain": Question(),
    "long": Question(model="sim-tokens-120"),
    "echo": Question(model="sim-echo", **spoken('Quotes " and \\ and \n lines, Zürich, 🌍, \u2028.')),
    "system": Question({"messages": SYSTEM}, {"instructions": "Be brief."}, {"system": "Be brief."}),
    "several turns": Question(
        {"messages": [*SYSTEM, {"role": "assistant", "content": "Which one?"}, {"role": "user", "content": "This."}]},
        {
            "instructions": "Be brief.",
            "input": [*SAY, {"role": "assistant", "content": "Which one?"}, {"role": "user", "content": "This."}],
        },
        {"system": "Be brief.", "messages": [*SAY, {"role": "assistant", "content": "Which one?"}, {"role": "user", "content": "This."}]},
    ),
    "sampling": Question(
        {"temperature": 0.5, "top_p": 0.9, "max_completion_tokens": 50},
        {"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 50},
        {"extra_body": {"temperature": 0.5, "top_p": 0.9}, "max_tokens": 50},
    ),
    "user": Question({"safety_identifier": "ann"}, {"safety_identifier": "ann"}, {"metadata": {"user_id": "ann"}}),
    "image": pictured(DATA_URL),
    "image by address": pictured(PICTURE),
    "tool": Question(model="sim-tool", **with_tools()),
    "tools in parallel": Question(model="sim-tools-parallel", **with_tools()),
    "one tool at a time": Question(
        {"tools": CHAT_TOOLS, "parallel_tool_calls": False},
        {"tools": RESPONSES_TOOLS, "parallel_tool_calls": False},
        {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        model="sim-tools-parallel",
    ),
    "text and tools": Question(model="scripted", **with_tools()),
    "any tool": Question(
        {"tools": CHAT_TOOLS, "tool_choice": "required"},
        {"tools": RESPONSES_TOOLS, "tool_choice": "required"},
        {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "any"}},
    ),
    "this tool": Question(
        {"tools": CHAT_TOOLS, "tool_choice": {"type": "function", "function": {"name": "hotels"}}},
        {"tools": RESPONSES_TOOLS, "tool_choice": {"type": "function", "name": "hotels"}},
        {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "tool", "name": "hotels"}},
    ),
    "no tool": Question(
        {"tools": CHAT_TOOLS, "tool_choice": "none"},
        {"tools": RESPONSES_TOOLS, "tool_choice": "none"},
        {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "none"}},
        model="sim-tool",
    ),
    "tool results": Question(
        {"tools": CHAT_TOOLS, "messages": CHAT_TURNS},
        {"tools": RESPONSES_TOOLS, "input": RESPONSES_TURNS},
        {"tools": MESSAGES_TOOLS, "messages": MESSAGES_TURNS},
        model="sim-tools-parallel",
    ),
    "schema": Question(
        {"response_format": {"type": "json_schema", "json_schema": {"name": "City", "schema": CITY, "strict": True}}},
        {"text": {"format": {"type": "json_schema", "name": "City", "schema": CITY, "strict": True}}},
        {"output_config": {"format": {"type": "json_schema", "schema": CITY}}},
    ),
    "reasoning": Question(
        {"reasoning_effort": "high"},
        {"reasoning": {"effort": "high", "summary": "auto"}},
        {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"}},
    ),
    "length": Question({"max_completion_tokens": 20}, {"max_output_tokens": 20}, {"max_tokens": 20}, model="sim-tokens-50"),
    "arguments cut by the length": Question(
        {"tools": [{"type": "function", "function": {"name": "note", "parameters": LONG}}], "max_completion_tokens": 20},
        {"tools": [{"type": "function", "name": "note", "parameters": LONG, "strict": False}], "max_output_tokens": 20},
        {"tools": [{"name": "note", "input_schema": LONG}], "max_tokens": 20},
        model="sim-tool",
    ),
    "refusal": Question(model="sim-refuse"),
    "filtered": Question(model="sim-filter"),
    "filtered later": Question(model="sim-filter-7"),
    "cached": Question(model="sim-cached-3"),
    "document": Question(
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}, CHAT_SEE]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": PDF, "filename": "a.pdf"}, RESPONSES_SEE]}]},
        {"messages": [{"role": "user", "content": [PDF_BLOCK, CHAT_SEE]}]},
    ),
    "picture from a tool": Question(
        None,
        {"tools": RESPONSES_TOOLS, "input": [*RESPONSES_TURNS[:-1], {**RESPONSES_TURNS[-1], "output": [RESPONSES_SEE, RESPONSES_PICTURE]}]},
        {"tools": MESSAGES_TOOLS, "messages": [*MESSAGES_TURNS[:-1], MESSAGES_PICTURE_RESULT]},
    ),
    "instructions later": Question(
        {"messages": [*SAY, LOOKING, {"role": "system", "content": "Now be brief."}, {"role": "user", "content": "This."}]},
        {"input": [*SAY, LOOKING, {"role": "system", "content": "Now be brief."}, {"role": "user", "content": "This."}]},
        {"messages": [*SAY, LOOKING, {"role": "system", "content": "Now be brief."}, {"role": "user", "content": "This."}]},
    ),
    "tool without arguments": Question(
        {"tools": [{"type": "function", "function": {"name": "now", "parameters": NOTHING}}]},
        {"tools": [{"type": "function", "name": "now", "parameters": NOTHING, "strict": False}]},
        {"tools": [{"name": "now", "input_schema": NOTHING}]},
        model="sim-tool",
    ),
    "stop sequence": Question({"stop": ["never", " checksum"]}, None, {"stop_sequences": ["never", " checksum"]}),
    "any object": Question({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}, None),
    "verbosity": Question({"verbosity": "low"}, {"text": {"verbosity": "low"}}, None),
    "sharp picture": Question(
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE, "detail": "high"}}, CHAT_SEE]}]},
        {"input": [{"role": "user", "content": [{**RESPONSES_PICTURE, "image_url": PICTURE, "detail": "high"}, RESPONSES_SEE]}]},
        None,
    ),
}

SCRIPT = Script(
    (ScriptedAnswer("I will look.", (ScriptedCall("weather", ARGUMENTS), ScriptedCall("hotels", {}), ScriptedCall("weather", ARGUMENTS))),),
    model="scripted",
)
"""Text before tools, a tool twice, arguments that are empty or need escapes."""
