"""Every failure of a provider, seen by the official SDKs directly and through Holdfast: the same exception, after the same events."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from pydantic import BaseModel

from holdfast.http.message import Request, Response
from holdfast.testing import FakeClock
from holdfast.testing.gateway import gateway_in_thread, options_for
from holdfast.testing.simulated_provider import Address, SimulatedProvider, running_in_thread

SAY: Any = [{"role": "user", "content": "hello"}]
APIS = ("chat", "responses", "messages")
STATUSES = [f"sim-error-{status}" for status in (400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 502, 503, 529)]
PLAIN = [*STATUSES, "sim-cut-before", "sim-cut-stream", "sim-end-early", "sim-error-event", "sim-garbage", "sim-garbage-shape"]
STREAMED = [
    *STATUSES,
    *("sim-cut-before", "sim-cut-stream", "sim-cut-stream-0", "sim-cut-stream-1", "sim-error-event", "sim-error-event-0", "sim-garbage"),
]
SAME = [
    (how, api, model)
    for how, models in (("plain", PLAIN), ("streamed", STREAMED), ("gathered", STREAMED))
    for api in APIS
    for model in models
]
MODES = ["sync", "async"]

Outcome = tuple[list[Any], Any]
"""The events that came, and what the exception says; None without one."""


class Clients:
    """The SDKs' clients for one address; those that are synchronous block the loop, which no server here lives in."""

    def __init__(self, address: Address, timeout_s: float, runner: asyncio.Runner) -> None:
        options: Any = {"api_key": "any", "max_retries": 0, "timeout": timeout_s}
        self.runner = runner
        self.by_mode: dict[str, tuple[Any, Any]] = {
            "sync": (openai.OpenAI(base_url=address.openai, **options), anthropic.Anthropic(base_url=address.anthropic, **options)),
            "async": (
                openai.AsyncOpenAI(base_url=address.openai, **options),
                anthropic.AsyncAnthropic(base_url=address.anthropic, **options),
            ),
        }

    def outcome(self, how: str, api: str, model: str, mode: str) -> Outcome:
        return self.runner.run(self.ask(how, api, model, mode))

    async def ask(self, how: str, api: str, model: str, mode: str = "async") -> Outcome:
        seen: list[Any] = []
        client = self.by_mode[mode][api == "messages"]
        try:
            await (run_async if mode == "async" else run_sync)(client, how, api, model, seen)
        except Exception as error:  # noqa: BLE001 - whatever comes is what these tests are about
            return plain_data(seen), described(error)
        return plain_data(seen), None

    def close(self) -> None:
        for client in self.by_mode["sync"]:
            client.close()
        for client in self.by_mode["async"]:
            self.runner.run(client.close())


def create(client: Any, api: str, **options: Any) -> Any:
    if api == "chat":
        return client.chat.completions.create(messages=SAY, **options)
    if api == "responses":
        return client.responses.create(input="hello", **options)
    return client.messages.create(messages=SAY, max_tokens=100, **options)


def gathering(client: Any, api: str, model: str) -> Any:
    if api == "chat":
        return client.chat.completions.stream(messages=SAY, model=model)
    if api == "responses":
        return client.responses.stream(input="hello", model=model)
    return client.messages.stream(messages=SAY, max_tokens=100, model=model)


async def run_sync(client: Any, how: str, api: str, model: str, seen: list[Any]) -> None:
    if how == "plain":
        seen.append(create(client, api, model=model))
    elif how == "streamed":
        for event in create(client, api, model=model, stream=True):
            seen.append(event)  # noqa: PERF402 - what came before an exception counts
    else:
        with gathering(client, api, model) as stream:
            for event in stream:
                seen.append(event)  # noqa: PERF402 - the same
            if api == "responses":
                seen.append(stream.get_final_response())


async def run_async(client: Any, how: str, api: str, model: str, seen: list[Any]) -> None:
    if how == "plain":
        seen.append(await create(client, api, model=model))
    elif how == "streamed":
        async for event in await create(client, api, model=model, stream=True):
            seen.append(event)  # noqa: PERF401 - what came before an exception counts
    else:
        async with gathering(client, api, model) as stream:
            async for event in stream:
                seen.append(event)  # noqa: PERF401 - the same
            if api == "responses":
                seen.append(await stream.get_final_response())


def plain_data(value: Any) -> Any:
    if isinstance(value, list):
        return [plain_data(item) for item in value]
    return value.model_dump(warnings=False) if isinstance(value, BaseModel) else value


def described(error: Exception) -> Any:
    response = getattr(error, "response", None)
    headers = {} if response is None else {name: response.headers.get(name) for name in ("retry-after", "content-type")}
    fields = {name: getattr(error, name, None) for name in ("status_code", "body", "code", "param", "type")}
    return type(error), str(error), fields, headers


def provider(request: Request, response: Response) -> None:
    """Answers every request as its first, at an instant that stands still: what differs is then Holdfast's doing."""
    SimulatedProvider(clock=FakeClock()).application(request, response)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner
        gc.collect()  # what a cut stream left behind is the SDKs' and closes in its loop


@pytest.fixture(scope="module")
def upstream() -> Iterator[Address]:
    with running_in_thread(provider) as address:
        yield address


@pytest.fixture(scope="module")
def ways(upstream: Address, runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Clients]]:
    """Clients straight to the provider, through a gateway that never retries, and through one that does."""
    agents = "breakers: off\nagents: {a: {retries: {max: %d}}}"
    first, second = tmp_path_factory.mktemp("once"), tmp_path_factory.mktemp("retrying")
    with (
        gateway_in_thread(options_for(upstream, agents % 0, first), first) as once,
        gateway_in_thread(options_for(upstream, agents % 1, second), second) as retrying,
    ):
        ways = {"direct": Clients(upstream, 60, runner), "once": Clients(once, 60, runner), "retrying": Clients(retrying, 60, runner)}
        yield ways
        for clients in ways.values():
            clients.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("how", "api", "model"), SAME)
def test_a_failure_is_the_same_exception_after_the_same_events(how: str, api: str, model: str, mode: str, ways: dict[str, Clients]) -> None:
    direct = ways["direct"].outcome(how, api, model, mode)
    assert ways["once"].outcome(how, api, model, mode) == direct


def test_a_failure_that_holdfast_retried_in_vain_is_the_same_exception_too(ways: dict[str, Clients], runner: asyncio.Runner) -> None:
    async def all_at_once(clients: Clients) -> list[Outcome]:
        return await asyncio.gather(*(clients.ask(*case) for case in SAME))

    direct, retried = runner.run(all_at_once(ways["direct"])), runner.run(all_at_once(ways["retrying"]))
    different = [(case, outcome, expected) for case, outcome, expected in zip(SAME, retried, direct, strict=True) if outcome != expected]
    assert not different


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", ["sim-error-400", "sim-error-401", "sim-error-429", "sim-error-500", "sim-cut-before", "sim-garbage"])
def test_failures_of_the_other_endpoints_are_the_same_too(model: str, mode: str, ways: dict[str, Clients], runner: asyncio.Runner) -> None:
    async def failures(clients: Clients) -> list[Any]:
        by_openai, by_anthropic = clients.by_mode[mode]
        asked = (
            lambda: by_openai.embeddings.create(model=model, input="x"),
            lambda: by_openai.models.retrieve(model),
            lambda: by_anthropic.messages.count_tokens(model=model, messages=SAY),
            lambda: by_anthropic.models.retrieve(model),
        )
        found: list[Any] = []
        for ask in asked:
            try:
                result = ask() if mode == "sync" else await ask()
                found.append(plain_data(result))
            except Exception as error:  # noqa: BLE001 - whatever comes is what this is about
                found.append(described(error))
        return found

    assert runner.run(failures(ways["once"])) == runner.run(failures(ways["direct"]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", ["sim-end-early", "sim-end-early-0"])
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("how", ["streamed", "gathered"])
def test_a_stream_that_ends_without_its_terminal_marker_goes_unnoticed_directly_and_is_a_cut_through_holdfast(
    how: str, api: str, model: str, mode: str, ways: dict[str, Clients]
) -> None:
    seen, unnoticed = ways["direct"].outcome(how, api, model, mode)
    seen_through, noticed = ways["once"].outcome(how, api, model, mode)
    assert unnoticed is None or unnoticed[0] is RuntimeError  # the Responses helper misses its last event
    assert noticed[0] is (httpx2.RemoteProtocolError if api == "messages" else openai.APIConnectionError)
    assert seen_through == seen[: len(seen_through)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("how", ["plain", "streamed", "gathered"])
def test_what_is_not_http_is_a_connection_error_directly_and_a_502_that_says_so_through_holdfast(
    how: str, api: str, mode: str, ways: dict[str, Clients]
) -> None:
    _, direct = ways["direct"].outcome(how, api, "sim-garbage-http", mode)
    _, through = ways["once"].outcome(how, api, "sim-garbage-http", mode)
    assert direct[0] in (openai.APIConnectionError, anthropic.APIConnectionError)
    assert through[0] in (openai.InternalServerError, anthropic.InternalServerError)
    assert through[2]["status_code"] == 502 and "sent what is not HTTP" in through[1]


@pytest.fixture(scope="module")
def impatient(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Clients]]:
    """Clients that wait a second, and a provider whose slow answers never come."""
    folder = tmp_path_factory.mktemp("impatient")
    with (
        running_in_thread(SimulatedProvider().application) as upstream,
        gateway_in_thread(options_for(upstream, "breakers: off\nagents: {a: {retries: {max: 2}}}", folder), folder) as gateway,
    ):
        clients = {"direct": Clients(upstream, 1, runner), "through": Clients(gateway, 1, runner)}
        yield clients
        for each in clients.values():
            each.close()


SLOW = [(how, api, "sim-slow-60000") for how in ("plain", "streamed", "gathered") for api in APIS]
STALLED = [(how, api, "sim-stall-60000") for how in ("streamed", "gathered") for api in APIS]


async def exceptions(clients: dict[str, Clients], cases: list[tuple[str, str, str]]) -> list[tuple[Any, Any]]:
    """What each case raises, directly and through Holdfast, all of them waiting at the same time."""

    def in_a_thread(way: str, case: tuple[str, str, str]) -> Outcome:
        return asyncio.run(clients[way].ask(*case, "sync"))

    async def both(ask: Any) -> tuple[Any, Any]:
        direct, through = await asyncio.gather(ask("direct"), ask("through"))
        return direct[1], through[1]

    asynchronous = [both(lambda way, case=case: clients[way].ask(*case)) for case in cases]
    synchronous = [both(lambda way, case=case: asyncio.to_thread(in_a_thread, way, case)) for case in cases[:3]]
    return await asyncio.gather(*asynchronous, *synchronous)


def test_a_client_that_loses_patience_before_the_answer_raises_the_same(impatient: dict[str, Clients], runner: asyncio.Runner) -> None:
    for direct, through in runner.run(exceptions(impatient, SLOW)):
        assert through == direct
        assert direct[0] in (openai.APITimeoutError, anthropic.APITimeoutError)


def test_a_client_that_loses_patience_before_the_first_token_raises_the_same_but_for_anthropics_which_then_sees_a_time_out_of_its_own_kind(
    impatient: dict[str, Clients], runner: asyncio.Runner
) -> None:
    """Holdfast holds the head of a stream back until the first token, so that another target may still take over: the anthropic SDK
    then waits for the answer to begin, and raises `APITimeoutError` (which it would retry) instead of a raw `httpx2.ReadTimeout`."""
    for (_, api, _), (direct, through) in zip(STALLED + STALLED[:3], runner.run(exceptions(impatient, STALLED)), strict=True):
        if api == "messages":
            assert (direct[0], through[0]) == (httpx2.ReadTimeout, anthropic.APITimeoutError)
        else:
            assert through == direct
