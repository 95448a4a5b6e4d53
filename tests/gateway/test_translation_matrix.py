"""The official SDKs in every caller format against targets of every format: what they return means the same.

A caller served by a target of its own format is the reference. The simulated provider behind all targets says the same to the same
prompt in each of its formats, so meanings are compared whole: text, tools, parsed arguments, reasoning, stop reason, usage.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from functools import cache
from typing import Any, get_args

import anthropic
import msgspec
import openai
import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import BaseModel, TypeAdapter

from holdfast.http.message import Request, Response
from holdfast.testing.gateway import gateway_in_thread, options_for
from holdfast.testing.meaning import Asked, Said, asked, gathered, said
from holdfast.testing.meaning.requests import Format
from holdfast.testing.simulated_provider import (
    Address,
    Script,
    ScriptedAnswer,
    ScriptedCall,
    Scripts,
    SimulatedProvider,
    running_in_thread,
)

FORMATS: tuple[Format, ...] = get_args(Format)
PATHS: dict[bytes, Format] = {
    b"/v1/chat/completions": "openai-chat",
    b"/v1/responses": "openai-responses",
    b"/v1/messages": "anthropic-messages",
}


class City(BaseModel):
    name: str
    population: int
    districts: list[str]


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
CITY = {**City.model_json_schema(), "additionalProperties": False}
ARGUMENTS: dict[str, Any] = {"city": 'Zürich "X"', "days": 3}


class Scenario(msgspec.Struct, frozen=True):
    """One question in the three formats; fields that are not there are those of `PLAIN`."""

    chat: dict[str, Any] = {}
    responses: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    model: str = "sim-ok"

    def options(self, format: Format) -> dict[str, Any]:
        own = dict(zip(FORMATS, (self.chat, self.responses, self.messages), strict=True))[format]
        return {"model": self.model, **PLAIN[format], **own}


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


def pictured(url: str) -> Scenario:
    source = {"type": "url", "url": url} if url == PICTURE else {"type": "base64", "media_type": "image/png", "data": PIXEL}
    text, image = {"type": "text", "text": "See?"}, {"type": "image", "source": source}
    shown = {"type": "input_image", "image_url": url, "detail": "auto"}
    return Scenario(
        {"messages": [{"role": "user", "content": [text, {"type": "image_url", "image_url": {"url": url}}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "See?"}, shown]}]},
        {"messages": [{"role": "user", "content": [text, image]}]},
    )


SYSTEM = [{"role": "system", "content": "Be brief."}, *SAY]
SCENARIOS: dict[str, Scenario] = {
    "plain": Scenario(),
    "long": Scenario(model="sim-tokens-120"),
    "echo": Scenario(model="sim-echo", **spoken('Quotes " and \\ and \n lines, Zürich, 🌍, \u2028.')),
    "system": Scenario({"messages": SYSTEM}, {"instructions": "Be brief."}, {"system": "Be brief."}),
    "several turns": Scenario(
        {"messages": [*SYSTEM, {"role": "assistant", "content": "Which one?"}, {"role": "user", "content": "This."}]},
        {
            "instructions": "Be brief.",
            "input": [*SAY, {"role": "assistant", "content": "Which one?"}, {"role": "user", "content": "This."}],
        },
        {"system": "Be brief.", "messages": [*SAY, {"role": "assistant", "content": "Which one?"}, {"role": "user", "content": "This."}]},
    ),
    "sampling": Scenario(
        {"temperature": 0.5, "top_p": 0.9, "max_completion_tokens": 50},
        {"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 50},
        {"extra_body": {"temperature": 0.5, "top_p": 0.9}, "max_tokens": 50},
    ),
    "user": Scenario({"safety_identifier": "ann"}, {"safety_identifier": "ann"}, {"metadata": {"user_id": "ann"}}),
    "image": pictured(DATA_URL),
    "image by address": pictured(PICTURE),
    "tool": Scenario(model="sim-tool", **with_tools()),
    "tools in parallel": Scenario(model="sim-tools-parallel", **with_tools()),
    "one tool at a time": Scenario(
        {"tools": CHAT_TOOLS, "parallel_tool_calls": False},
        {"tools": RESPONSES_TOOLS, "parallel_tool_calls": False},
        {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        model="sim-tools-parallel",
    ),
    "text and tools": Scenario(model="scripted", **with_tools()),
    "any tool": Scenario(
        {"tools": CHAT_TOOLS, "tool_choice": "required"},
        {"tools": RESPONSES_TOOLS, "tool_choice": "required"},
        {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "any"}},
    ),
    "this tool": Scenario(
        {"tools": CHAT_TOOLS, "tool_choice": {"type": "function", "function": {"name": "hotels"}}},
        {"tools": RESPONSES_TOOLS, "tool_choice": {"type": "function", "name": "hotels"}},
        {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "tool", "name": "hotels"}},
    ),
    "no tool": Scenario(
        {"tools": CHAT_TOOLS, "tool_choice": "none"},
        {"tools": RESPONSES_TOOLS, "tool_choice": "none"},
        {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "none"}},
        model="sim-tool",
    ),
    "tool results": Scenario(
        {"tools": CHAT_TOOLS, "messages": CHAT_TURNS},
        {"tools": RESPONSES_TOOLS, "input": RESPONSES_TURNS},
        {"tools": MESSAGES_TOOLS, "messages": MESSAGES_TURNS},
        model="sim-tools-parallel",
    ),
    "schema": Scenario(
        {"response_format": {"type": "json_schema", "json_schema": {"name": "City", "schema": CITY, "strict": True}}},
        {"text": {"format": {"type": "json_schema", "name": "City", "schema": CITY, "strict": True}}},
        {"output_config": {"format": {"type": "json_schema", "schema": CITY}}},
    ),
    "reasoning": Scenario(
        {"reasoning_effort": "high"},
        {"reasoning": {"effort": "high", "summary": "auto"}},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
    ),
    "length": Scenario({"max_completion_tokens": 5}, {"max_output_tokens": 5}, {"max_tokens": 5}, model="sim-tokens-50"),
    "arguments cut by the length": Scenario(
        {"tools": CHAT_TOOLS, "max_completion_tokens": 4},
        {"tools": RESPONSES_TOOLS, "max_output_tokens": 4},
        {"tools": MESSAGES_TOOLS, "max_tokens": 4},
        model="sim-tool",
    ),
    "refusal": Scenario(model="sim-refuse"),
    "filtered": Scenario(model="sim-filter"),
    "filtered later": Scenario(model="sim-filter-7"),
    "cached": Scenario(model="sim-cached-3"),
}

SCRIPT = Script(
    (ScriptedAnswer("I will look.", (ScriptedCall("weather", ARGUMENTS), ScriptedCall("hotels", {}), ScriptedCall("weather", ARGUMENTS))),),
    model="scripted",
)
"""Text before tools, a tool twice, arguments that are empty or need escapes."""


class Clients:
    """Both SDKs at one address, synchronous or not, for a caller of any format."""

    def __init__(self, address: Address, agent: str, runner: asyncio.Runner) -> None:
        options: Any = {"api_key": "any", "max_retries": 0, "timeout": 60, "default_headers": {"x-holdfast-agent": agent}}
        self._runner = runner
        self._openai = (openai.OpenAI(base_url=address.openai, **options), openai.AsyncOpenAI(base_url=address.openai, **options))
        self._anthropic = (
            anthropic.Anthropic(base_url=address.anthropic, **options),
            anthropic.AsyncAnthropic(base_url=address.anthropic, **options),
        )

    def api(self, format: Format, mode: str) -> Any:
        """What answers are created with."""
        at = mode == "async"
        if format == "anthropic-messages":
            return self._anthropic[at].messages
        return self._openai[at].chat.completions if format == "openai-chat" else self._openai[at].responses

    def wait(self, result: Any) -> Any:
        return self._runner.run(result) if isinstance(result, Coroutine) else result

    def events(self, stream: Any) -> list[Any]:
        async def all_of(stream: Any) -> list[Any]:
            return [event async for event in stream]

        return self.wait(all_of(stream)) if hasattr(stream, "__aiter__") else list(stream)  # type: ignore[no-any-return]

    def helped(self, manager: Any, final: str) -> Any:
        """What a streaming helper puts together."""

        async def gather() -> Any:
            async with manager as stream:
                return await getattr(stream, final)()

        if hasattr(manager, "__aenter__"):
            return self.wait(gather())
        with manager as stream:
            return getattr(stream, final)()

    def close(self) -> None:
        for client in (*self._openai, *self._anthropic):
            self.wait(client.close())


class Matrix:
    """Asks by caller and target, and knows what the provider was sent and billed."""

    def __init__(self, clients: dict[Format, Clients], provider: SimulatedProvider, arrived: list[Request]) -> None:
        self.clients = clients
        self.provider = provider
        self.arrived = arrived
        self.reference = cache(lambda caller, name, mode, stream: self.ask(caller, caller, name, mode, stream=stream)[0])

    def ask(self, caller: Format, target: Format, name: str, mode: str, *, stream: bool) -> tuple[Said, Request]:
        """What the caller's SDK heard of a target, and what the provider was sent for it; the provider's bill was told."""
        options, clients = SCENARIOS[name].options(caller), self.clients[target]
        api = clients.api(caller, mode)
        self.arrived.clear()
        before = msgspec.structs.replace(self.provider.stats.total)
        if stream:
            wanted = {"stream": True, "stream_options": {"include_usage": True}} if caller == "openai-chat" else {"stream": True}
            events = clients.events(clients.wait(api.create(**options, **wanted)))
            heard = said(caller, gathered(caller, [event.to_dict() for event in events]))
        else:
            answer = clients.wait(api.create(**options))
            type(answer).model_validate(answer.to_dict())
            heard = said(caller, answer.to_dict())
        total = self.provider.stats.total
        assert heard.input == total.input_tokens - before.input_tokens
        assert heard.output == total.output_tokens - before.output_tokens
        assert heard.thought in {None, total.reasoning_tokens - before.reasoning_tokens}
        [request] = self.arrived
        assert PATHS[request.path] == target
        return heard, request


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    arrived: list[Request] = []
    provider = SimulatedProvider(scripts=Scripts((SCRIPT,)))

    def application(request: Request, response: Response) -> None:
        arrived.append(request)
        provider.application(request, response)

    folder = tmp_path_factory.mktemp("gateway")
    with (
        running_in_thread(application) as upstream,
        gateway_in_thread(options_for(upstream, configuration(upstream), folder), folder) as gateway,
        asyncio.Runner() as runner,
    ):
        clients = {target: Clients(gateway, f"to-{target}", runner) for target in FORMATS}
        yield Matrix(clients, provider, arrived)
        for each in clients.values():
            each.close()


def configuration(upstream: Address) -> str:
    """A provider that speaks one format alone for each of them, and an agent that is served by it."""
    providers = "".join(f"  only-{target}: {{kind: simulated, base_url: '{upstream.openai}', formats: [{target}]}}\n" for target in FORMATS)
    agents = "".join(f"  to-{target}: {{routes: {{'*': [only-{target}/*]}}}}\n" for target in FORMATS)
    return f"{providers}agents:\n{agents}"


by_caller = pytest.mark.parametrize("caller", FORMATS)
by_target = pytest.mark.parametrize("target", FORMATS)
by_mode = pytest.mark.parametrize("mode", ["sync", "async"])


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_asks_for_the_same_in_every_format(name: str) -> None:
    asks = [meant(asked(format, body_of(SCENARIOS[name].options(format)))) for format in FORMATS]
    assert asks[0] == asks[1] == asks[2]


@by_mode
@by_target
@by_caller
@pytest.mark.parametrize("name", SCENARIOS)
def test_answers_mean_the_same_whoever_serves_them(matrix: Matrix, caller: Format, target: Format, name: str, mode: str) -> None:
    for stream in (False, True):
        heard, sent = matrix.ask(caller, target, name, mode, stream=stream)
        wanted = matrix.reference(caller, name, mode, stream)
        # Tools and messages are written differently, and so cost other input: what the caller heard is what was billed, see `ask`.
        assert msgspec.structs.replace(heard, input=None, cached=None) == msgspec.structs.replace(wanted, input=None, cached=None)
        assert heard.cached == wanted.cached
        assert valid(target, sent.body)
        assert meant(asked(target, sent.body)) == meant(asked(caller, body_of(SCENARIOS[name].options(caller))))


def body_of(options: dict[str, Any]) -> bytes:
    """What the SDK sends for these options."""
    return msgspec.json.encode(
        {**{name: value for name, value in options.items() if name != "extra_body"}, **options.get("extra_body", {})}
    )


def meant(request: Asked) -> Asked:
    """Less what the gateway adds: a bound of output that the format has to have; and streams are asked for apart."""
    return msgspec.structs.replace(request, stream=False, max_output=None)


PARAMS: dict[Format, Any] = {
    "openai-chat": TypeAdapter(CompletionCreateParamsNonStreaming),
    "openai-responses": TypeAdapter(ResponseCreateParamsNonStreaming),
    "anthropic-messages": TypeAdapter(MessageCreateParamsNonStreaming),
}


APART: dict[Format, set[str]] = {
    "openai-chat": {"stream", "stream_options"},
    "openai-responses": {"stream"},
    "anthropic-messages": {"stream", "temperature", "top_p"},
}
"""Streaming has types of its own; Anthropic's newest models, and so its SDK, know no sampling any more, older models do."""


def valid(format: Format, body: bytes) -> bool:
    """Whether the official SDK's types know every field of a request, less `APART`; ValidationError where a value is of none of them."""
    fields = {name: value for name, value in msgspec.json.decode(body).items() if name not in APART[format]}
    return bool(plain(PARAMS[format].validate_python(fields)) == fields)


def plain(value: Any) -> Any:
    """Pydantic validates lists in passing: here they are made."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, Iterable) and not isinstance(value, str) else value
