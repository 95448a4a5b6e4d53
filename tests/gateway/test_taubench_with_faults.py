"""Recorded conversations of a real agent while its model fails in every way, under virtual time: all of them end as they were recorded."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from holdfast.clock import MILLISECOND, SECOND
from holdfast.config import load
from holdfast.errors import ConnectFailed
from holdfast.testing.exchange import MemoryResponse, request
from holdfast.testing.memory_gateway import MemoryGateway
from holdfast.testing.served import serve
from holdfast.testing.simulated_provider import Scripts, SimulatedProvider
from holdfast.testing.simulated_provider.answer import Answer, ToolUse
from holdfast.testing.simulated_provider.faults import Fault
from holdfast.testing.simulated_provider.prompt import Prompt
from holdfast.testing.upstream import MemoryExchange

Message = dict[str, Any]

CHAT = "/v1/chat/completions"
PRIMARY_PORT, RESERVE_PORT = 1, 2
CONFIG = """
providers:
  primary: {kind: openai, base_url: 'http://127.0.0.1:1/v1', api_key: env:KEY}
  reserve: %s
agents:
  airline:
    routes: {'*': [primary/*, reserve/*]}
    timeouts: {first_token: 20s, idle: 20s, total: 120s}
    fallback: {continue_streams: %s}
"""
RESERVES = {
    "chat": "{kind: openai, base_url: 'http://127.0.0.1:2/v1', api_key: env:KEY}",
    "messages": "{kind: anthropic, base_url: 'http://127.0.0.1:2', api_key: env:KEY}",
    "responses": "{kind: openai, base_url: 'http://127.0.0.1:2/v1', api_key: env:KEY, formats: [openai-responses]}",
}
"""The format in which the reserve is spoken to; the agent speaks chat."""

FAILURES = ["error-500", "error-503", "error-529", "error-429", "error-401", "cut-before", "end-early-0", "error-event-0"]
FAILURES += ["garbage", "garbage-shape", "garbage-http", "error-event-1"]
"""The last: its first token and its error come in one piece, so that nothing has been passed on yet."""
SLOW = ["stall-70000", "slow-70000", "hang"]
BEGUN = ["cut-stream-1", "cut-stream-2", "end-early-1"]
REFUSED = "no connection"
DEAD_NS = 30 * SECOND
"""The primary is dead for so long, then alive for as long, and so on."""
PATIENCE_NS = 3600 * SECOND


class Heard(MemoryResponse):
    """Tells when it is over."""

    def __init__(self, over: Callable[["Heard"], None]) -> None:
        super().__init__()
        self._tell = over

    def end(self) -> None:
        super().end()
        self._tell(self)

    def abort(self) -> None:
        super().abort()
        self._tell(self)


class Recorded(Scripts, frozen=True, kw_only=True):
    """What the agent that asks was answered when it was recorded."""

    answers: Callable[[Prompt], Answer]

    def answer(self, prompt: Prompt) -> Answer:
        return self.answers(prompt)


class Airline:
    """124 agents at once, each in its conversation, and their two models, of which the primary fails as a seed says.

    failed: ways in which it failed, as often as each did. spoiled: calls that ended without an answer; their agents ask again.
    """

    def __init__(self, config: Path, trajectories: list[list[Message]], seed: int) -> None:
        options = load(config, {"KEY": "sk-1"}).gateway
        self.continues = options.agents[0].fallback.continue_streams
        self.world = MemoryGateway(options, seed=seed)
        scripts = Recorded(answers=lambda prompt: self.agents[int(prompt.model)].model_says())
        self.primary = SimulatedProvider(clock=self.world.clock, scripts=scripts)
        self.reserve = SimulatedProvider(clock=self.world.clock, scripts=scripts)
        self.trajectories = trajectories
        self.random = Random(seed)
        self.failed: Counter[str] = Counter()
        self.broken_off: Counter[str] = Counter()
        self.spoiled = 0
        self.agents = [Agent(self, which) for which in range(len(trajectories))]
        self.world.upstream.serving = self._arrived

    def run(self) -> None:
        """Until every conversation has ended; not for ever."""
        clock = self.world.clock
        for agent in self.agents:
            clock.call_later(self.random.randrange(60 * SECOND), agent.go_on)
        while not all(agent.done for agent in self.agents) and clock.monotonic_ns() < PATIENCE_NS:
            clock.advance(SECOND)

    def _arrived(self, exchange: MemoryExchange) -> None:
        self.world.clock.call_later(self.random.randrange(50, 2000) * MILLISECOND, lambda: self._serve(exchange))

    def _serve(self, exchange: MemoryExchange) -> None:
        if exchange.request.origin.port == RESERVE_PORT:
            serve(exchange, self.reserve.application)
            return
        asked = msgspec.json.decode(exchange.request.body)
        fails = self._failure()
        if fails:
            self.failed[fails] += 1
        if fails in BEGUN and asked["stream"]:
            self.broken_off["text" if self.agents[int(asked["model"])].expected.get("content") else "tool call"] += 1
        if fails == REFUSED:
            exchange.fail(ConnectFailed("refused"))
            return
        self.primary.faults.switch(Fault("*", fails or None))
        serve(exchange, self.primary.application)

    def _failure(self) -> str:
        """How the primary fails at this request, "" when it does not."""
        if self.world.clock.monotonic_ns() // DEAD_NS % 2:
            return self.random.choice([REFUSED, "hang"])
        return self.random.choice([*FAILURES, *BEGUN, *SLOW, REFUSED]) if self.random.random() < 0.5 else ""


class Agent:
    """Takes every step of its trajectory as it was taken, and keeps the answers that it got itself; every other one streams."""

    def __init__(self, airline: Airline, which: int) -> None:
        steps = airline.trajectories[which]
        names = sorted({call["function"]["name"] for message in steps for call in message.get("tool_calls") or ()})
        self._airline = airline
        self._steps = iter(steps)
        self._history: list[Message] = []
        self._request: Message = {"model": str(which), "stream": which % 2 == 1, "messages": self._history}
        if names:
            self._request["tools"] = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names]
        self._response = Heard(self._over)
        self.expected: Message = {}
        self.done = False

    def go_on(self) -> None:
        for message in self._steps:
            if message["role"] == "assistant":
                self.expected = message
                self._ask()
                return
            ids = [call["id"] for call in self._history[-1].get("tool_calls") or ()] if self._history else []
            self._history.append(message | ({"tool_call_id": ids[0]} if message["role"] == "tool" else {}))
        self.done = True

    def model_says(self) -> Answer:
        """The recorded answer, or what is missing of it where some of it has come already."""
        said = read(self._response.body)["content"] or "" if self._response.body else ""
        calls = self.expected.get("tool_calls") or ()
        return Answer(
            text=(self.expected["content"] or "").removeprefix(said),
            calls=tuple(ToolUse(call["function"]["name"], call["function"]["arguments"]) for call in calls),
        )

    def _ask(self) -> None:
        self._response = Heard(self._over)
        self._airline.world.application(request("POST", CHAT, self._request), self._response)

    def _over(self, response: Heard) -> None:
        clock, random = self._airline.world.clock, self._airline.random
        if is_answer(response):
            received = read(response.body)
            assert meaning(received) == meaning(self.expected)
            self._history.append(received)
            clock.call_later(random.randrange(5 * SECOND), self.go_on)
        else:
            self._airline.spoiled += 1
            clock.call_later(SECOND, self._ask)


def is_answer(response: MemoryResponse) -> bool:
    if response.status != 200 or response.aborted:
        return False
    streamed = dict(response.headers)[b"content-type"].startswith(b"text/event-stream")
    return response.body.endswith(b"data: [DONE]\n\n") if streamed else True


def read(body: bytes) -> Message:
    """The message of a whole answer, or of as much of a stream as has come."""
    if not body.startswith(b"data: "):
        message: Message = msgspec.json.decode(body)["choices"][0]["message"]
        return message
    return assembled(json.loads(event[6:]) for event in body.decode().split("\n\n") if event.startswith('data: {"id"'))


def assembled(events: Iterator[Any]) -> Message:
    text, calls = "", {}
    for delta in (choice["delta"] for event in events for choice in event["choices"]):
        text += delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            held = calls.setdefault(call["index"], {"id": call.get("id"), "type": "function", "function": {"name": "", "arguments": ""}})
            for field in ("name", "arguments"):
                held["function"][field] += call["function"].get(field) or ""
    return {"role": "assistant", "content": text or None} | ({"tool_calls": list(calls.values())} if calls else {})


def meaning(message: Message) -> Any:
    calls = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message.get("tool_calls") or ()]
    return message.get("content") or "", calls


def action(message: Message) -> str:
    return "+".join(call["function"]["name"] for call in message.get("tool_calls") or ()) or "reply"


@pytest.fixture(scope="module")
def trajectories(shared_data: Path) -> list[list[Message]]:
    recorded = json.loads(gzip.decompress((shared_data / "taubench" / "gpt-4o-airline.json.gz").read_bytes()))
    return [run["traj"] for run in recorded]


@pytest.fixture(scope="module", params=[("chat", False), *((reserve, True) for reserve in RESERVES)], ids=str)
def airline(request: pytest.FixtureRequest, trajectories: list[list[Message]], tmp_path_factory: pytest.TempPathFactory) -> Airline:
    """All conversations, at their end; continued: whether streams that break off are gone on with."""
    reserve, continued = request.param
    config = tmp_path_factory.mktemp("airline") / "holdfast.yaml"
    config.write_text(CONFIG % (RESERVES[reserve], str(continued).lower()))
    airline = Airline(config, trajectories, seed=1)
    airline.run()
    return airline


def test_every_conversation_completes_with_its_recorded_decisions(airline: Airline) -> None:
    assert all(agent.done for agent in airline.agents)
    by_interaction: dict[str, list[str]] = {}
    for decision in airline.world.recorder.decisions:
        if decision.complete:
            by_interaction.setdefault(decision.interaction, []).append(decision.chosen_action)
    steps = ([message for message in trajectory if message["role"] == "assistant"] for trajectory in airline.trajectories)
    assert Counter(map(tuple, by_interaction.values())) == Counter(tuple(map(action, messages)) for messages in steps)


def test_both_targets_serve(airline: Airline) -> None:
    served = Counter(decision.served_by.partition("/")[0] for decision in airline.world.recorder.decisions if decision.complete)
    assert set(served) == {"primary", "reserve"} and min(served.values()) > 200
    assert set(airline.failed) == {*FAILURES, *SLOW, *BEGUN, REFUSED}


def test_only_what_had_begun_and_cannot_be_gone_on_with_is_noticed(airline: Airline) -> None:
    noticed = airline.broken_off["tool call"] + (0 if airline.continues else airline.broken_off["text"])
    assert airline.spoiled == noticed > 0


def test_every_failed_attempt_has_its_event_and_says_what_was_done(airline: Airline) -> None:
    recorder = airline.world.recorder
    recoveries = {error.error_id: error.recovery_action for error in recorder.errors}
    done = Counter(recoveries[call.error_id] for call in recorder.api_calls if call.error_id)
    assert len(recorder.api_calls) == len(airline.world.upstream.exchanges)
    assert done.total() == airline.failed.total()
    assert done["none"] == airline.spoiled
    assert set(done) <= {"none", "retried", "fell_back", "continued"}
