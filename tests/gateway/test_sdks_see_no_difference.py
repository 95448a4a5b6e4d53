"""The official SDKs directly at a provider and through Holdfast: what they return, and what they send, is equal in every field.

The provider answers every request as its first, at an instant that stands still, so that ids and timestamps are equal too: nothing is
normalised before it is compared.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anthropic
import msgspec
import openai
import pytest
from pydantic import BaseModel

from holdfast.http.message import Request, Response
from holdfast.testing import FakeClock
from holdfast.testing.gateway import gateway_in_thread, options_for
from holdfast.testing.simulated_provider import Address, SimulatedProvider, running_in_thread


class City(BaseModel):
    name: str
    population: int
    districts: list[str]


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
    "required": ["city", "days"],
}
STRICT = {**SCHEMA, "additionalProperties": False}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
DATA_URL = f"data:image/png;base64,{PIXEL}"
SAY: Any = [{"role": "user", "content": "Which city? Überall."}]
NAMES = ("weather", "hotels")

CHAT_TOOLS: Any = [{"type": "function", "function": {"name": name, "strict": True, "parameters": STRICT}} for name in NAMES]
CHAT_IMAGE: Any = [
    {"role": "user", "content": [{"type": "text", "text": "See?"}, {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "low"}}]}
]
CHAT_HISTORY: Any = [
    {"role": "system", "content": "Be brief."},
    *SAY,
    {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"x","days":3}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "sun"},
]

RESPONSES_TOOLS: Any = [
    {"type": "function", "name": "weather", "parameters": STRICT, "strict": True},
    {"type": "custom", "name": "apply_patch"},
]
RESPONSES_IMAGE: Any = [
    {"role": "user", "content": [{"type": "input_text", "text": "See?"}, {"type": "input_image", "image_url": DATA_URL, "detail": "low"}]}
]
RESPONSES_HISTORY: Any = [
    *SAY,
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"x","days":3}'},
    {"type": "function_call_output", "call_id": "c1", "output": "sun"},
]

MESSAGES_TOOLS: Any = [{"name": name, "input_schema": SCHEMA} for name in NAMES]
MESSAGES_IMAGE: Any = [
    {
        "role": "user",
        "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
            {"type": "text", "text": "See?", "cache_control": {"type": "ephemeral"}},
        ],
    }
]
MESSAGES_HISTORY: Any = [
    *SAY,
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "x", "days": 3}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sun"}]},
]

CHAT: dict[str, Any] = {
    "plain": {"messages": SAY},
    "every field": {
        "messages": SAY,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 2,
        "temperature": 0.5,
        "stop": ["x"],
        "metadata": {"a": "b"},
        "user": "ann",
        "max_completion_tokens": 500,
        "extra_body": {"unheard_of": [1.50, None]},
    },
    "image": {"messages": CHAT_IMAGE},
    "tool": {"model": "sim-tool", "messages": SAY, "tools": CHAT_TOOLS},
    "tools in parallel": {"model": "sim-tools-parallel", "messages": SAY, "tools": CHAT_TOOLS, "parallel_tool_calls": True},
    "tool result": {"model": "sim-tool", "messages": CHAT_HISTORY, "tools": CHAT_TOOLS},
    "json": {"messages": SAY, "response_format": {"type": "json_object"}},
    "refusal": {"model": "sim-refuse", "messages": SAY},
    "reasoning": {"model": "sim-reasoning", "messages": SAY},
    "long": {"model": "sim-tokens-300", "messages": SAY},
}
RESPONSES: dict[str, Any] = {
    "plain": {"input": "Which city?"},
    "every field": {
        "input": SAY,
        "instructions": "Be brief.",
        "temperature": 0.5,
        "max_output_tokens": 16,
        "metadata": {"a": "b"},
        "store": False,
        "include": ["message.output_text.logprobs"],
        "extra_body": {"unheard_of": [1.50, None]},
    },
    "image": {"input": RESPONSES_IMAGE},
    "tool": {"model": "sim-tool", "input": "x", "tools": RESPONSES_TOOLS},
    "tools in parallel": {"model": "sim-tools-parallel", "input": "x", "tools": RESPONSES_TOOLS, "parallel_tool_calls": True},
    "tool result": {"model": "sim-tool", "input": RESPONSES_HISTORY, "tools": RESPONSES_TOOLS},
    "refusal": {"model": "sim-refuse", "input": "x"},
    "reasoning": {"model": "sim-reasoning", "input": "x"},
    "long": {"model": "sim-tokens-300", "input": "x"},
}
MESSAGES: dict[str, Any] = {
    "plain": {"messages": SAY},
    "every field": {
        "messages": SAY,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "metadata": {"user_id": "ann"},
        "stop_sequences": ["x"],
        "max_tokens": 5,
        "extra_headers": {"anthropic-beta": "something-2026-01-01"},
        "extra_body": {"unheard_of": [1.50, None]},
        "extra_query": {"beta": "true"},
    },
    "image": {"messages": MESSAGES_IMAGE},
    "tool": {"model": "sim-tool", "messages": SAY, "tools": MESSAGES_TOOLS},
    "tools in parallel": {"model": "sim-tools-parallel", "messages": SAY, "tools": MESSAGES_TOOLS},
    "tool result": {"model": "sim-tool", "messages": MESSAGES_HISTORY, "tools": MESSAGES_TOOLS},
    "thinking": {"messages": SAY, "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}},
    "refusal": {"model": "sim-refuse", "messages": SAY},
    "long": {"model": "sim-tokens-300", "messages": SAY, "max_tokens": 400},
}
MODEL: Any = {"model": "sim-ok"}
MESSAGE: Any = {"model": "sim-ok", "max_tokens": 200}

Ask = Callable[[Any, Any], Coroutine[Any, Any, Any]]
"""Asks with an OpenAI and an Anthropic client, both synchronous or both not."""


async def value(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def events(stream: Any) -> list[Any]:
    return [event async for event in stream] if hasattr(stream, "__aiter__") else list(stream)


async def gathered(manager: Any, final: str) -> Any:
    """Every event of a streaming helper, and the object that it puts together."""
    if hasattr(manager, "__aenter__"):
        async with manager as stream:
            return [event async for event in stream], await getattr(stream, final)()
    with manager as stream:
        return list(stream), getattr(stream, final)()


def cases() -> Iterator[tuple[str, Ask]]:
    for name, options in CHAT.items():
        yield from chat_cases(name, {**MODEL, **options})
    for name, options in RESPONSES.items():
        yield from responses_cases(name, {**MODEL, **options})
    for name, options in MESSAGES.items():
        yield from messages_cases(name, {**MESSAGE, **options})
    yield from structured_cases()
    yield from other_cases()


def chat_cases(name: str, options: Any) -> Iterator[tuple[str, Ask]]:
    async def plain(o: Any, _: Any) -> Any:
        return await value(o.chat.completions.create(**options))

    async def streamed(o: Any, _: Any) -> Any:
        return await events(await value(o.chat.completions.create(**options, stream=True)))

    async def with_usage(o: Any, _: Any) -> Any:
        return await events(await value(o.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})))

    async def helper(o: Any, _: Any) -> Any:
        return await gathered(o.chat.completions.stream(**options), "get_final_completion")

    yield from {f"chat {name}": plain, f"chat stream {name}": streamed, f"chat stream with usage {name}": with_usage}.items()
    if name != "json":  # the helper takes only its own kind of response format
        yield f"chat helper {name}", helper


def responses_cases(name: str, options: Any) -> Iterator[tuple[str, Ask]]:
    async def plain(o: Any, _: Any) -> Any:
        return await value(o.responses.create(**options))

    async def streamed(o: Any, _: Any) -> Any:
        return await events(await value(o.responses.create(**options, stream=True)))

    async def helper(o: Any, _: Any) -> Any:
        return await gathered(o.responses.stream(**options), "get_final_response")

    yield from {f"responses {name}": plain, f"responses stream {name}": streamed, f"responses helper {name}": helper}.items()


def messages_cases(name: str, options: Any) -> Iterator[tuple[str, Ask]]:
    async def plain(_: Any, a: Any) -> Any:
        return await value(a.messages.create(**options))

    async def streamed(_: Any, a: Any) -> Any:
        return await events(await value(a.messages.create(**options, stream=True)))

    async def helper(_: Any, a: Any) -> Any:
        return await gathered(a.messages.stream(**options), "get_final_message")

    async def counted(_: Any, a: Any) -> Any:
        asked = {field: options[field] for field in ("model", "messages", "tools", "system", "thinking") if field in options}
        return await value(a.messages.count_tokens(**asked))

    yield from {
        f"messages {name}": plain,
        f"messages stream {name}": streamed,
        f"messages helper {name}": helper,
        f"count_tokens {name}": counted,
    }.items()


def structured_cases() -> Iterator[tuple[str, Ask]]:
    async def chat(o: Any, _: Any) -> Any:
        return await value(o.chat.completions.parse(**MODEL, messages=SAY, response_format=City))

    async def chat_tools(o: Any, _: Any) -> Any:
        return await value(o.chat.completions.parse(model="sim-tools-parallel", messages=SAY, tools=CHAT_TOOLS))

    async def chat_helper(o: Any, _: Any) -> Any:
        return await gathered(o.chat.completions.stream(**MODEL, messages=SAY, response_format=City), "get_final_completion")

    async def responses(o: Any, _: Any) -> Any:
        return await value(o.responses.parse(**MODEL, input="x", text_format=City))

    async def responses_helper(o: Any, _: Any) -> Any:
        return await gathered(o.responses.stream(**MODEL, input="x", text_format=City), "get_final_response")

    async def messages(_: Any, a: Any) -> Any:
        return await value(a.messages.parse(**MESSAGE, messages=SAY, output_format=City))

    async def messages_tool(_: Any, a: Any) -> Any:
        tools = [{"name": "City", "input_schema": City.model_json_schema()}]
        return await value(a.messages.create(**MESSAGE, messages=SAY, tools=tools, tool_choice={"type": "tool", "name": "City"}))

    yield from {
        "chat parse": chat,
        "chat parse tools": chat_tools,
        "chat helper parse": chat_helper,
        "responses parse": responses,
        "responses helper parse": responses_helper,
        "messages parse": messages,
        "messages forced tool": messages_tool,
    }.items()


def other_cases() -> Iterator[tuple[str, Ask]]:
    async def packed(o: Any, _: Any) -> Any:
        return await value(o.embeddings.create(model="e", input=["a", "b"], dimensions=8))

    async def floats(o: Any, _: Any) -> Any:
        return await value(o.embeddings.create(model="e", input="a", encoding_format="float"))

    async def models(o: Any, a: Any) -> Any:
        return [await events(await value(o.models.list())), (await value(a.models.list())).data]

    async def model(o: Any, a: Any) -> Any:
        return [await value(o.models.retrieve("org/gpt-5")), await value(a.models.retrieve("claude-x"))]

    async def beta(_: Any, a: Any) -> Any:
        return await value(a.beta.messages.create(**MESSAGE, messages=SAY, betas=["something-2026-01-01"]))

    yield from {"embeddings": packed, "embeddings floats": floats, "models": models, "model": model, "beta messages": beta}.items()


class Way:
    """Clients of one base address, and what reached the provider through them."""

    def __init__(self, address: Address, arrived: list[Request], runner: asyncio.Runner) -> None:
        options: Any = {"api_key": "sk-upstream", "max_retries": 0, "timeout": 60}
        self.runner = runner
        self.arrived = arrived
        self.sync = (openai.OpenAI(base_url=address.openai, **options), anthropic.Anthropic(base_url=address.anthropic, **options))
        self.asynchronous = (
            openai.AsyncOpenAI(base_url=address.openai, **options),
            anthropic.AsyncAnthropic(base_url=address.anthropic, **options),
        )

    def ask(self, ask: Ask, mode: str) -> tuple[Any, list[Any]]:
        """What the SDK returned, and what the provider was sent for it."""
        self.arrived.clear()
        returned = self.runner.run(ask(*(self.sync if mode == "sync" else self.asynchronous)))
        return plain_data(returned), [essence(request) for request in self.arrived]

    def close(self) -> None:
        for client in self.sync:
            client.close()
        for asynchronous in self.asynchronous:
            self.runner.run(asynchronous.close())


def plain_data(returned: Any) -> Any:
    if isinstance(returned, list | tuple):
        return [plain_data(item) for item in returned]
    if isinstance(returned, BaseModel):
        return type(returned).__name__, returned.model_dump(warnings=False)
    return vars(returned) if hasattr(returned, "__dict__") else returned


def essence(request: Request) -> Any:
    """A request less what the connection decides, and the header in which the key comes: Anthropic takes it in either. That a chat
    stream reports its usage is Holdfast's own wish."""
    headers = {name: value for name, value in request.headers if name not in {b"host", b"accept-encoding", b"connection"}}
    headers[b"key"] = headers.pop(b"x-api-key", b"") or headers.pop(b"authorization").removeprefix(b"Bearer ")
    body: Any = request.body
    if request.path == b"/v1/chat/completions" and b'"stream":true' in body:
        body = msgspec.json.decode(body)
        body.pop("stream_options", None)
        headers.pop(b"content-length")
    return request.method, request.path, request.query, headers, body


MODERN = """  modern: {{kind: simulated, base_url: '{}', api_key: env:UPSTREAM_KEY}}
agents: {{a: {{routes: {{'*': [modern/*]}}}}}}
"""
"""Servers other than OpenAI's own may know only the older name of a bound, and are sent both."""


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Way, Way]]:
    arrived: list[Request] = []

    def provider(request: Request, response: Response) -> None:
        arrived.append(request)
        SimulatedProvider(clock=FakeClock(), key="sk-upstream").application(request, response)

    folder = tmp_path_factory.mktemp("gateway")
    with (
        running_in_thread(provider) as upstream,
        gateway_in_thread(options_for(upstream, MODERN.format(upstream.openai), folder), folder) as gateway,
        asyncio.Runner() as runner,
    ):
        both = Way(upstream, arrived, runner), Way(gateway, arrived, runner)
        yield both
        for way in both:
            way.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("ask", [pytest.param(ask, id=name) for name, ask in cases()])
def test_the_sdk_returns_and_the_provider_gets_the_same_with_and_without_holdfast(ask: Ask, mode: str, ways: tuple[Way, Way]) -> None:
    direct, through = ways
    returned, sent = direct.ask(ask, mode)
    returned_through, sent_through = through.ask(ask, mode)
    assert returned_through == returned
    assert sent_through == sent
    assert returned and sent
