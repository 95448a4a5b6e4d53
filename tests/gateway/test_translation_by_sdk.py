"""What the official SDKs build on answers: parsed output, streaming helpers, the next turn; in every caller format against every target."""

import asyncio
from collections.abc import Coroutine, Iterator
from itertools import product
from typing import Any

import anthropic
import msgspec
import openai
import pytest
from pydantic import BaseModel

from holdfast.testing.meaning import Format, Said, asked, said, unequal
from holdfast.testing.meaning.questions import FORMATS, QUESTIONS


class City(BaseModel):
    name: str
    population: int
    districts: list[str]


CITY = City(name="name", population=1, districts=["districts"])
FINAL = {"openai-chat": "get_final_completion", "openai-responses": "get_final_response", "anthropic-messages": "get_final_message"}


class Caller:
    """An SDK of one format, synchronous or not, at an agent that is served by one target."""

    def __init__(self, served: Any, format: Format, agent: str, mode: str, runner: asyncio.Runner) -> None:
        options: Any = {"api_key": "any", "max_retries": 0, "timeout": 60, "default_headers": {"x-holdfast-agent": agent}}
        self.format = format
        self._runner = runner
        at = mode == "async"
        if format == "anthropic-messages":
            self._client: Any = (anthropic.Anthropic, anthropic.AsyncAnthropic)[at](base_url=served.gateway.anthropic, **options)
            self.api: Any = self._client.messages
        else:
            self._client = (openai.OpenAI, openai.AsyncOpenAI)[at](base_url=served.gateway.openai, **options)
            self.api = self._client.chat.completions if format == "openai-chat" else self._client.responses

    def wait(self, result: Any) -> Any:
        return self._runner.run(result) if isinstance(result, Coroutine) else result

    def helped(self, manager: Any) -> Any:
        """What a streaming helper puts together."""

        async def gather() -> Any:
            async with manager as stream:
                return await getattr(stream, FINAL[self.format])()

        if hasattr(manager, "__aenter__"):
            return self.wait(gather())
        with manager as stream:
            return getattr(stream, FINAL[self.format])()

    def close(self) -> None:
        self.wait(self._client.close())


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest, served: Any) -> Iterator[Any]:
    """Makes callers of a format, served by an agent's targets."""
    made = []
    with asyncio.Runner() as runner:

        def make(format: Format, agent: str) -> Caller:
            made.append(Caller(served, format, agent, request.param, runner))
            return made[-1]

        yield make
        for each in made:
            each.close()


by_pair = pytest.mark.parametrize(("format", "target"), list(product(FORMATS, repeat=2)))
PARSED: dict[Format, dict[str, Any]] = {
    "openai-chat": {"response_format": City},
    "openai-responses": {"text_format": City},
    "anthropic-messages": {"output_format": City},
}


def parsed(format: Format, answer: Any) -> Any:
    if format == "openai-chat":
        return answer.choices[0].message.parsed
    return answer.output_parsed if format == "openai-responses" else answer.parsed_output


@by_pair
def test_structured_output_parses(caller: Any, format: Format, target: Format) -> None:
    asking = caller(format, f"to-{target}")
    options = {**QUESTIONS["plain"].options(format), **PARSED[format]}
    assert parsed(format, asking.wait(asking.api.parse(**options))) == CITY
    assert parsed(format, asking.helped(asking.api.stream(**options))) == CITY


@by_pair
@pytest.mark.parametrize("name", ["plain", "echo", "text and tools", "tools in parallel", "reasoning"])
def test_a_streaming_helper_puts_the_same_together_as_a_whole_answer_says(
    caller: Any, served: Any, format: Format, target: Format, name: str
) -> None:
    asking = caller(format, f"to-{target}")
    options = QUESTIONS[name].options(format)
    whole = asking.wait(asking.api.create(**options))
    helped = asking.helped(asking.api.stream(**options))
    without_usage = {"input": None, "cached": None, "output": None, "thought": None} if format == "openai-chat" else {}
    one, other = (msgspec.structs.replace(heard(format, answer), **without_usage) for answer in (whole, helped))
    assert unequal(one, other) == {}
    assert [call.arguments and msgspec.json.decode(call.arguments) for call in chat_calls(format, helped)] == [
        arguments for _, arguments in one.calls if format == "openai-chat"
    ]


def heard(format: Format, answer: Any) -> Said:
    return said(format, answer.to_dict())


def chat_calls(format: Format, answer: Any) -> Any:
    return [call.function for call in answer.choices[0].message.tool_calls or ()] if format == "openai-chat" else []


@by_pair
@pytest.mark.parametrize("thinking", [False, True], ids=["", "thinking"])
def test_a_conversation_goes_on_from_its_own_answers(caller: Any, served: Any, format: Format, target: Format, thinking: bool) -> None:
    """As agents do: the answer's own objects go back, then the tools' results by their ids; the target knows which belongs to which."""
    asking = caller(format, f"to-{target}")
    options = QUESTIONS["text and tools"].options(format)
    if thinking:
        options |= {"model": "sim-tools-parallel", **thinking_options(format)}
    first = asking.wait(asking.api.create(**options))
    calls = heard(format, first).calls
    assert len(calls) == (2 if thinking else 3)
    field = "input" if format == "openai-responses" else "messages"
    history = [*options[field], *continued(format, first)]
    served.arrived.clear()
    second = heard(format, asking.wait(asking.api.create(**{**options, field: history})))
    assert second.stop == "end" and second.text
    (user, _), (assistant, acted), (results, given) = asked(target, served.arrived[0].body).turns
    assert (user, assistant, results) == ("user", "assistant", "user")
    acted = tuple(part for part in acted if part[0] != "reasoning")  # a target may be shown its own thoughts again
    said_first = () if thinking else (("text", "I will look."),)
    assert acted == (*said_first, *(("call", index, *call) for index, call in enumerate(calls)))
    assert given == tuple(("result", index, (("text", f"result {index}"),)) for index in range(len(calls)))


def thinking_options(format: Format) -> dict[str, Any]:
    asking: dict[Format, dict[str, Any]] = {
        "openai-chat": {"reasoning_effort": "high"},
        "openai-responses": {"reasoning": {"effort": "high", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
        "anthropic-messages": {"thinking": {"type": "adaptive", "display": "summarized"}},
    }
    return asking[format]


def continued(format: Format, answer: Any) -> list[Any]:
    """The answer as its SDK's users send it back, and a result for each of its calls."""
    if format == "openai-chat":
        message = answer.choices[0].message
        return [
            message,
            *({"role": "tool", "tool_call_id": call.id, "content": f"result {i}"} for i, call in enumerate(message.tool_calls)),
        ]
    if format == "openai-responses":
        calls = [item for item in answer.output if item.type == "function_call"]
        results = ({"type": "function_call_output", "call_id": call.call_id, "output": f"result {i}"} for i, call in enumerate(calls))
        return [*answer.output, *results]
    calls = [block for block in answer.content if block.type == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": f"result {i}"} for i, call in enumerate(calls)]
    return [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]


@pytest.mark.parametrize("target", FORMATS)
def test_a_chat_stream_reports_usage_only_when_asked(caller: Any, served: Any, target: Format) -> None:
    asking = caller("openai-chat", f"to-{target}")

    async def collected(stream: Any) -> list[Any]:
        return [chunk async for chunk in stream]

    stream = asking.wait(asking.api.create(**QUESTIONS["plain"].options("openai-chat"), stream=True))
    chunks = asking.wait(collected(stream)) if hasattr(stream, "__aiter__") else list(stream)
    assert not any(chunk.usage for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).startswith("Understood")
