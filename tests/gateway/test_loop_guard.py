"""Agents built on the official SDKs that go round in circles are warned of, then stopped with what to do; others are let through."""

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from holdfast.store.interactions import Story
from holdfast.store.reader import JournalReader, has_failed
from holdfast.testing.gateway import gateway_in_thread, options_for
from holdfast.testing.memory_gateway import MemoryGateway
from holdfast.testing.simulated_provider import Address, SimulatedProvider, running_in_thread

Build = Callable[[str], MemoryGateway]

SCHEMA: Any = {"type": "object", "properties": {"query": {"type": "string"}}}
MOST = 40
"""Turns after which these agents give up by themselves."""


class World:
    """A gateway before the simulated provider, and what it has written down."""

    def __init__(self, address: Address, folder: Path) -> None:
        self.address, self.folder = address, folder

    def told(self) -> Story:
        """Of the one interaction."""
        (summary,) = JournalReader(self.folder).interactions()
        story = JournalReader(self.folder).interaction(summary.interaction)
        assert story is not None
        return story


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with (
        running_in_thread(SimulatedProvider().application) as upstream,
        gateway_in_thread(options_for(upstream, "", tmp_path), tmp_path) as address,
    ):
        yield World(address, tmp_path)


def chat_agent(address: Address, *, stream: bool = False) -> None:
    """A loop as in the SDK's own documentation."""
    messages: list[Any] = [{"role": "user", "content": "find the order"}]
    tools: Any = [{"type": "function", "function": {"name": "search", "parameters": SCHEMA}}]
    with openai.OpenAI(base_url=address.openai, api_key="any") as client:
        for _ in range(MOST):
            if stream:
                with client.chat.completions.stream(model="sim-loop", messages=messages, tools=tools) as events:
                    message = events.get_final_completion().choices[0].message
            else:
                message = client.chat.completions.create(model="sim-loop", messages=messages, tools=tools).choices[0].message
            messages.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
            messages += [{"role": "tool", "tool_call_id": call.id, "content": "no such order"} for call in message.tool_calls or ()]


async def async_chat_agent(address: Address) -> None:
    messages: list[Any] = [{"role": "user", "content": "find the order"}]
    tools: Any = [{"type": "function", "function": {"name": "search", "parameters": SCHEMA}}]
    async with openai.AsyncOpenAI(base_url=address.openai, api_key="any") as client:
        for _ in range(MOST):
            message = (await client.chat.completions.create(model="sim-loop", messages=messages, tools=tools)).choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            messages += [{"role": "tool", "tool_call_id": call.id, "content": "no such order"} for call in message.tool_calls or ()]


def anthropic_agent(address: Address) -> None:
    messages: list[Any] = [{"role": "user", "content": "find the order"}]
    tools: Any = [{"name": "search", "input_schema": SCHEMA}]
    with anthropic.Anthropic(base_url=address.anthropic, api_key="any") as client:
        for _ in range(MOST):
            message = client.messages.create(model="sim-loop", max_tokens=100, messages=messages, tools=tools)
            messages.append({"role": "assistant", "content": message.content})
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": "no such order"}
                for block in message.content
                if block.type == "tool_use"
            ]
            messages.append({"role": "user", "content": results})


def responses_agent(address: Address, *, resent: bool) -> None:
    asked: list[Any] = [{"role": "user", "content": "find the order"}]
    tools: Any = [{"type": "function", "name": "search", "parameters": SCHEMA, "strict": False}]
    previous: Any = openai.omit
    with openai.OpenAI(base_url=address.openai, api_key="any") as client:
        for _ in range(MOST):
            answer = client.responses.create(model="sim-loop", input=asked, tools=tools, previous_response_id=previous)
            results = [
                {"type": "function_call_output", "call_id": item.call_id, "output": "no such order"}
                for item in answer.output
                if item.type == "function_call"
            ]
            if resent:
                asked += [*[item.model_dump(exclude_none=True) for item in answer.output], *results]
            else:
                asked, previous = results, answer.id


AGENTS: dict[str, Callable[[Address], object]] = {
    "chat": chat_agent,
    "chat streamed": lambda address: chat_agent(address, stream=True),
    "chat async": lambda address: asyncio.run(async_chat_agent(address)),
    "messages": anthropic_agent,
    "responses": lambda address: responses_agent(address, resent=True),
    "responses kept by the provider": lambda address: responses_agent(address, resent=False),
}


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_in_a_loop_is_warned_of_and_then_stopped_with_what_to_do_instead(world: World, agent: str) -> None:
    with pytest.raises((openai.PermissionDeniedError, anthropic.PermissionDeniedError)) as caught:
        AGENTS[agent](world.address)
    said = str(caught.value)
    assert caught.value.status_code == 403
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "loop_guard" in json.dumps(caught.value.body)
    for words in (
        "The tool search was called 8 times in a row with the same arguments",
        "since turn 1",
        "Change the arguments",
        "ask the user",
    ):
        assert words in said
    told = world.told()
    loops = [error for error in told.errors if error.error_type == "loop"]
    same = [(error.severity, error.recovery_action) for error in loops if "same arguments" in error.message]
    assert same == [("warning", "none"), ("warning", "loop_stopped")]
    assert (told.summary.decisions, told.summary.refusals) == (8, 1)  # the ninth call is the one that is refused
    warned = next(error for error in loops if error.recovery_action == "none")
    assert warned.decision_id == told.decisions[4].decision_id
    assert not any(has_failed(decision) for decision in told.decisions)


CHAT = "/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "search", "parameters": {}}}


def looped(rounds: int, **last: str) -> list[object]:
    messages: list[object] = [{"role": "user", "content": "find it"}]
    for at in range(rounds):
        call = {"id": f"c{at}", "type": "function", "function": {"name": "search", "arguments": "{}"}}
        messages.append({"role": "assistant", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{at}", "content": "nothing"})
    return [*messages, *([last] if last else [])]


def body(messages: list[object], **fields: object) -> dict[str, object]:
    return {"model": "m", "messages": messages, "tools": [TOOL], **fields}


ONE = "agents: {a: {routes: {'*': [simulated/*]}%s}}"


def test_a_refused_call_reaches_nobody_and_costs_nothing(gateway: Build) -> None:
    world = gateway(ONE % "")
    response = world.call("POST", CHAT, body(looped(8)))
    assert (response.status, world.upstream.exchanges) == (403, [])
    details = json.loads(response.body)["error"]
    assert {name: details[name] for name in ("code", "check", "tools", "count", "limit", "since_turn")} == {
        "code": "loop_guard",
        "check": "same_call",
        "tools": "search",
        "count": 8,
        "limit": 8,
        "since_turn": 1,
    }
    (error,) = world.recorder.errors
    assert (error.error_type, error.recovery_action, error.severity) == ("loop", "loop_stopped", "warning")
    assert "arguments:" not in error.message


def test_the_ways_out_that_the_refusal_names_are_open(gateway: Build) -> None:
    world = gateway(ONE % "")
    assert world.call("POST", CHAT, body(looped(9))).status == 403
    for passes in (body(looped(9), tool_choice="none"), body(looped(9, role="user", content="use what you have"))):
        before = len(world.upstream.exchanges)
        world.call("POST", CHAT, passes)
        assert len(world.upstream.exchanges) == before + 1


def test_the_warning_comes_once_however_often_the_request_does(gateway: Build) -> None:
    world = gateway(ONE % "")
    for _ in range(3):
        world.call("POST", CHAT, body(looped(4)), {"x-holdfast-interaction": "order-7"})
        world.upstream.latest.answer(b"{}", 400)
    warnings = [error.message for error in world.recorder.errors if error.error_type == "loop"]
    assert len(warnings) == 1
    assert "The tool search was called 4 times" in warnings[0]
    assert "It is stopped at 8" in warnings[0]


def test_the_limits_of_an_agent_are_its_own(gateway: Build) -> None:
    strict = gateway(ONE % ", loop_guard: {same_call: 3, warn_at: 100%}")
    assert strict.call("POST", CHAT, body(looped(3))).status == 403
    for lenient in ("off", "{polling: [search]}", "{same_call: 100, no_new_result: off, same_result: off}"):
        world = gateway(ONE % f", loop_guard: {lenient}")
        world.call("POST", CHAT, body(looped(20)))
        assert len(world.upstream.exchanges) == 1


def test_agents_do_not_count_for_each_other_under_one_interaction_id(gateway: Build) -> None:
    world = gateway("agents: {a: {key: env:UPSTREAM_KEY}, b: {}}")
    for key in ("sk-upstream", "any"):
        world.call("POST", CHAT, body(looped(4)), {"authorization": f"Bearer {key}", "x-holdfast-interaction": "one"})
        world.upstream.latest.answer(b"{}", 400)
    assert [error.agent for error in world.recorder.errors if error.error_type == "loop"] == ["a", "b"]


def test_no_recorded_conversation_of_a_real_agent_is_stopped(shared_data: Path, options_of: Callable[[str], Any]) -> None:
    recorded = json.loads(gzip.decompress((shared_data / "taubench" / "gpt-4o-airline.json.gz").read_bytes()))
    world = MemoryGateway(options_of(ONE % ""))
    for number, run in enumerate(recorded):
        trajectory = run["traj"]
        for at, message in enumerate(trajectory):
            if message["role"] == "assistant":
                world.call("POST", CHAT, body(trajectory[:at]), {"x-holdfast-interaction": f"run-{number}"})
                world.upstream.latest.answer(b"{}", 400)
    assert [error.message for error in world.recorder.errors if error.error_type == "loop"] == []
    assert len(world.upstream.exchanges) == sum(message["role"] == "assistant" for run in recorded for message in run["traj"])
