"""Which exception each official SDK raises when it talks to a failing provider directly: what a gateway in between has to preserve.

Found with openai 3.54 and anthropic 2.12; sync and async raise the same. None: no exception, the caller cannot tell.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from holdfast.testing.simulated_provider import Address, SimulatedProvider, running_in_thread

Raised = type[Exception] | None

STATUS: dict[int, tuple[Raised, Raised]] = {
    400: (openai.BadRequestError, anthropic.BadRequestError),
    401: (openai.AuthenticationError, anthropic.AuthenticationError),
    402: (openai.APIStatusError, anthropic.PaymentRequiredError),
    403: (openai.PermissionDeniedError, anthropic.PermissionDeniedError),
    404: (openai.NotFoundError, anthropic.NotFoundError),
    409: (openai.ConflictError, anthropic.ConflictError),
    429: (openai.RateLimitError, anthropic.RateLimitError),
    500: (openai.InternalServerError, anthropic.InternalServerError),
    503: (openai.InternalServerError, anthropic.ServiceUnavailableError),
    529: (openai.InternalServerError, anthropic.OverloadedError),
}

PLAIN: dict[str, tuple[Raised, Raised]] = {
    **{f"sim-error-{status}": raised for status, raised in STATUS.items()},
    "sim-cut-before": (openai.APIConnectionError, anthropic.APIConnectionError),
    "sim-cut-stream": (openai.APIConnectionError, anthropic.APIConnectionError),
    "sim-end-early": (json.JSONDecodeError, json.JSONDecodeError),
    "sim-garbage": (json.JSONDecodeError, json.JSONDecodeError),
    "sim-garbage-http": (openai.APIConnectionError, anthropic.APIConnectionError),
    "sim-slow-60000": (openai.APITimeoutError, anthropic.APITimeoutError),
}

# Chat Completions, Responses, Messages
STREAMED: dict[str, tuple[Raised, Raised, Raised]] = {
    **{f"sim-error-{status}": (raised[0], raised[0], raised[1]) for status, raised in STATUS.items()},
    "sim-cut-before": (openai.APIConnectionError, openai.APIConnectionError, httpx2.RemoteProtocolError),
    "sim-cut-stream": (openai.APIConnectionError, openai.APIConnectionError, httpx2.RemoteProtocolError),
    "sim-end-early-0": (None, None, None),
    "sim-end-early": (None, None, None),
    "sim-error-event-0": (openai.APIError, None, anthropic.APIStatusError),
    "sim-error-event": (openai.APIError, None, anthropic.APIStatusError),
    "sim-garbage": (json.JSONDecodeError, json.JSONDecodeError, json.JSONDecodeError),
    "sim-garbage-http": (openai.APIConnectionError, openai.APIConnectionError, anthropic.APIConnectionError),
    "sim-slow-60000": (openai.APITimeoutError, openai.APITimeoutError, anthropic.APITimeoutError),
    "sim-stall-60000": (openai.APITimeoutError, openai.APITimeoutError, httpx2.ReadTimeout),
}

# The helpers that gather a stream into one object notice more.
GATHERED: dict[str, tuple[Raised, Raised, Raised]] = {
    **STREAMED,
    "sim-end-early-0": (None, RuntimeError, None),
    "sim-end-early": (None, RuntimeError, None),
    "sim-error-event-0": (openai.APIError, RuntimeError, anthropic.APIStatusError),
    "sim-error-event": (openai.APIError, RuntimeError, anthropic.APIStatusError),
}

MESSAGES: Any = [{"role": "user", "content": "hello"}]


class Clients:
    """The SDKs' clients for one address, and the event loop that the asynchronous ones live in."""

    def __init__(self, address: Address, timeout_s: float, runner: asyncio.Runner) -> None:
        options: Any = {"api_key": "any", "max_retries": 0, "timeout": timeout_s}
        self.runner = runner
        self.openai = openai.OpenAI(base_url=address.openai, **options)
        self.anthropic = anthropic.Anthropic(base_url=address.anthropic, **options)
        self.async_openai = openai.AsyncOpenAI(base_url=address.openai, **options)
        self.async_anthropic = anthropic.AsyncAnthropic(base_url=address.anthropic, **options)

    def close(self) -> None:
        self.openai.close()
        self.anthropic.close()
        self.runner.run(self.async_openai.close())
        self.runner.run(self.async_anthropic.close())


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, Clients]]:
    with running_in_thread(SimulatedProvider().application) as address, asyncio.Runner() as runner:
        by_patience = {"patient": Clients(address, 60, runner), "impatient": Clients(address, 0.2, runner)}
        yield by_patience
        for each in by_patience.values():
            each.close()


def create(client: Any, api: str, **options: Any) -> Any:
    if api == "chat":
        return client.chat.completions.create(messages=MESSAGES, **options)
    if api == "responses":
        return client.responses.create(input="hello", **options)
    return client.messages.create(messages=MESSAGES, max_tokens=100, **options)


def gather(client: Any, api: str, model: str) -> Any:
    if api == "chat":
        return client.chat.completions.stream(messages=MESSAGES, model=model)
    if api == "responses":
        return client.responses.stream(input="hello", model=model)
    return client.messages.stream(messages=MESSAGES, max_tokens=100, model=model)


def run_sync(client: Any, api: str, model: str, how: str) -> None:
    if how == "plain":
        create(client, api, model=model)
    elif how == "streamed":
        for _ in create(client, api, model=model, stream=True):
            pass
    else:
        with gather(client, api, model) as stream:
            for _ in stream:
                pass
            if api == "responses":
                stream.get_final_response()


async def run_async(client: Any, api: str, model: str, how: str) -> None:
    if how == "plain":
        await create(client, api, model=model)
    elif how == "streamed":
        async for _ in await create(client, api, model=model, stream=True):
            pass
    else:
        async with gather(client, api, model) as stream:
            async for _ in stream:
                pass
            if api == "responses":
                await stream.get_final_response()


def cases() -> Iterator[Any]:
    for model, (by_openai, by_anthropic) in PLAIN.items():
        for api, raised in (("chat", by_openai), ("responses", by_openai), ("messages", by_anthropic)):
            yield pytest.param("plain", api, model, raised, id=f"plain-{api}-{model}")
    for how, table in (("streamed", STREAMED), ("gathered", GATHERED)):
        for model, row in table.items():
            for api, raised in zip(("chat", "responses", "messages"), row, strict=True):
                yield pytest.param(how, api, model, raised, id=f"{how}-{api}-{model}")


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(("how", "api", "model", "raised"), list(cases()))
def test_the_sdk_raises_this_class(how: str, api: str, model: str, raised: Raised, mode: str, clients: dict[str, Clients]) -> None:
    group = clients["impatient" if model.endswith("-60000") else "patient"]
    caught: Exception | None = None
    try:
        if mode == "sync":
            run_sync(group.anthropic if api == "messages" else group.openai, api, model, how)
        else:
            group.runner.run(run_async(group.async_anthropic if api == "messages" else group.async_openai, api, model, how))
    except Exception as error:  # noqa: BLE001 - the class of whatever comes is what this test is about
        caught = error
    assert (type(caught) if caught else None) is raised
