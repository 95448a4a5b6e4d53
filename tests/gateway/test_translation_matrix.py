"""The official SDKs in every caller format against targets of every format: what they return means the same.

A caller served by a target of its own format is the reference. The simulated provider behind all targets says the same to the same
prompt in each of its formats, so meanings are compared whole: text, tools, parsed arguments, reasoning, stop reason, usage.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from functools import cache
from itertools import product
from typing import Any

import anthropic
import msgspec
import openai
import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter

from holdfast.http.message import Request
from holdfast.testing.meaning import Asked, Format, Said, asked, gathered, said, unequal
from holdfast.testing.meaning.questions import FORMATS, QUESTIONS
from holdfast.testing.simulated_provider import Address, SimulatedProvider

PATHS: dict[bytes, Format] = {
    b"/v1/chat/completions": "openai-chat",
    b"/v1/responses": "openai-responses",
    b"/v1/messages": "anthropic-messages",
}


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
        options, clients = QUESTIONS[name].options(caller), self.clients[target]
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
def matrix(served: Any) -> Iterator[Matrix]:
    with asyncio.Runner() as runner:
        clients = {target: Clients(served.gateway, f"to-{target}", runner) for target in FORMATS}
        yield Matrix(clients, served.provider, served.arrived)
        for each in clients.values():
            each.close()


by_caller = pytest.mark.parametrize("caller", FORMATS)
by_target = pytest.mark.parametrize("target", FORMATS)
by_mode = pytest.mark.parametrize("mode", ["sync", "async"])


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_asks_for_the_same_in_every_format(name: str) -> None:
    first, *others = [meant(asked(format, QUESTIONS[name].body(format))) for format in QUESTIONS[name].formats]
    assert [unequal(other, first) for other in others] == [{}] * len(others)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@by_mode
@pytest.mark.parametrize(("name", "caller", "target"), [(n, *pair) for n, q in QUESTIONS.items() for pair in product(q.formats, repeat=2)])
def test_answers_mean_the_same_whoever_serves_them(
    matrix: Matrix, caller: Format, target: Format, name: str, mode: str, stream: bool
) -> None:
    heard, sent = matrix.ask(caller, target, name, mode, stream=stream)
    wanted = matrix.reference(caller, name, mode, stream)
    # Tools and messages are written differently, and so cost other input: what the caller heard is what was billed, see `ask`.
    assert unequal(settled(name, caller, heard), settled(name, caller, msgspec.structs.replace(wanted, input=heard.input))) == {}
    assert valid(target, sent.body)
    assert unequal(meant(asked(target, sent.body)), meant(asked(caller, expected(name, caller, target)))) == {}


def expected(name: str, caller: Format, target: Format) -> bytes:
    """The request as the caller would have to send it to mean what the target gets."""
    body = QUESTIONS[name].body(caller)
    if name == "instructions later" and target == "anthropic-messages" != caller:  # of which only its newest models know the role
        words = b'"content":"<system>\\nNow be brief.\\n</system>"'
        return body.replace(b'"system","content":"Now be brief."', b'"user",' + words)
    return body


def settled(name: str, caller: Format, heard: Said) -> Said:
    """Less what the formats cannot have in common."""
    if name == "arguments cut by the length":  # half an object is text in OpenAI's formats, and none in Anthropic's
        return msgspec.structs.replace(heard, calls=tuple((tool, None) for tool, _ in heard.calls))
    if name == "reasoning" and caller == "openai-chat":  # in which nobody can ask to see it; some servers show it all the same
        return msgspec.structs.replace(heard, reasoning="")
    return heard


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
