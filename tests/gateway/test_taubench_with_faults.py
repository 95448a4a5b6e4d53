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
from holdfast.errors import ConnectFailed, ConnectionCut, GarbageReceived
from holdfast.gateway.options import GatewayOptions
from holdfast.testing.exchange import MemoryResponse, request
from holdfast.testing.memory_gateway import MemoryGateway
from holdfast.testing.upstream import MemoryExchange

Message = dict[str, Any]
Options = Callable[[str], GatewayOptions]

CHAT = "/v1/chat/completions"
PRIMARY, RESERVE = "primary", "reserve"
ROUTE = """
agents:
  airline:
    routes: {gpt-4o: [openai/primary, simulated/reserve]}
    timeouts: {first_token: 20s, idle: 20s, total: 120s}
"""
DEAD_NS = 30 * SECOND
"""The primary is dead for so long, then alive for as long, and so on."""
BELOW_HTTP = {"connect": ConnectFailed("refused"), "closed": ConnectionCut("closed"), "not http": GarbageReceived("not HTTP")}
FAILURES = ["503", "500", "529", "429", "401", "garbage", *BELOW_HTTP]
FAILURES_OF_STREAMS = ["slow", "silent", "cut before", "event before", "cut after", "event after"]
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


class Airline:
    """124 agents at once, each in its conversation, and their two models: the primary fails as a seed says.

    failed: ways in which the primary failed, as often as each did. spoiled: calls that ended without an answer; their agents ask again.
    """

    def __init__(self, options: GatewayOptions, trajectories: list[list[Message]], seed: int) -> None:
        self.world = MemoryGateway(options, seed=seed)
        self.trajectories = trajectories
        self.random = Random(seed)
        self.failed: Counter[str] = Counter()
        self.spoiled: list[MemoryResponse] = []
        self.agents = [Agent(self, which) for which in range(len(trajectories))]
        self.world.upstream.serving = self._serve

    def run(self) -> None:
        """Until every conversation has ended; not for ever."""
        clock = self.world.clock
        for agent in self.agents:
            clock.call_later(self.random.randrange(60 * SECOND), agent.go_on)
        while not all(agent.done for agent in self.agents) and clock.monotonic_ns() < PATIENCE_NS:
            clock.advance(SECOND)

    @property
    def dead(self) -> bool:
        return self.world.clock.monotonic_ns() // DEAD_NS % 2 == 1

    def _serve(self, exchange: MemoryExchange) -> None:
        body = msgspec.json.decode(exchange.request.body)
        message = self.agents[int(dict(exchange.request.headers)[b"x-replay"])].expected
        pieces = chunks(message) if body["stream"] else [msgspec.json.encode(whole(message))]
        fails = self._failure(body["stream"]) if body["model"] == PRIMARY else ""
        if body["model"] == PRIMARY and fails:
            self.failed[fails] += 1
        self._after(self.random.randrange(50, 2000) * MILLISECOND, lambda: self._answer(exchange, pieces, fails, stream=body["stream"]))

    def _failure(self, stream: bool) -> str:
        if self.dead:
            return self.random.choice(["connect", "closed", "slow"] if stream else ["connect", "closed"])
        if self.random.random() < 0.5:
            return ""
        always = ["503", "500", "529", "429", "401", "connect", "closed", "garbage", "not http"]
        return self.random.choice(
            [*always, "slow", "silent", "cut before", "event before", "cut after", "event after"] if stream else always
        )

    def _answer(self, exchange: MemoryExchange, pieces: list[bytes], fails: str, *, stream: bool) -> None:
        if fails.isdigit():
            exchange.answer(b'{"error":{"message":"on purpose","type":"t"}}', int(fails), ((b"retry-after", b"2"),))
        elif fails in BELOW_HTTP:
            exchange.fail(BELOW_HTTP[fails])
        elif fails == "garbage":
            exchange.answer(b"<html>")
        elif fails == "slow":
            self._after(40 * SECOND, lambda: exchange.stream(*pieces))
        elif stream:
            self._stream(exchange, pieces, fails)
        else:
            exchange.answer(pieces[0])

    def _stream(self, exchange: MemoryExchange, pieces: list[bytes], fails: str) -> None:
        exchange.start()
        if fails == "silent":
            return
        exchange.data(*(pieces if not fails else pieces[: 1 if "before" in fails else 3]))
        if "event" in fails:
            exchange.data(b'data: {"error":{"message":"on purpose","type":"server_error"}}\n\n')
        if "cut" in fails:
            exchange.fail(ConnectionCut("cut"))
        else:
            exchange.end()

    def _after(self, delay_ns: int, action: Callable[[], None]) -> None:
        self.world.clock.call_later(delay_ns, action)


class Agent:
    """Takes every step of its trajectory as it was taken, and keeps the answers that it got itself; every other one streams."""

    def __init__(self, airline: Airline, which: int) -> None:
        self._airline = airline
        self._which = which
        self._steps = iter(airline.trajectories[which])
        self._history: list[Message] = []
        self.expected: Message = {}
        self.done = False
        self.served_by: list[str] = []

    def go_on(self) -> None:
        for message in self._steps:
            if message["role"] == "assistant":
                self.expected = message
                self._ask()
                return
            self._history.append(message)
        self.done = True

    def _ask(self) -> None:
        body = {"model": "gpt-4o", "messages": self._history, "stream": self._which % 2 == 1}
        self._airline.world.application(request("POST", CHAT, body, {"x-replay": str(self._which)}), Heard(self._over))

    def _over(self, response: Heard) -> None:
        clock, random = self._airline.world.clock, self._airline.random
        received = read(response)
        if received is None:
            self._airline.spoiled.append(response)
            clock.call_later(SECOND, self._ask)
            return
        assert meaning(received) == meaning(self.expected)
        self._history.append(received)
        self.served_by.append(dict(response.headers)[b"x-holdfast-served-by"].decode())
        clock.call_later(random.randrange(5 * SECOND), self.go_on)


def whole(message: Message) -> Any:
    reason = "tool_calls" if message.get("tool_calls") else "stop"
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": usage} | {
        "choices": [{"index": 0, "message": message, "finish_reason": reason}]
    }


def chunks(message: Message) -> list[bytes]:
    """The answer as it is streamed: the role, at least two pieces with tokens, the end."""
    deltas: list[Any] = [{"role": "assistant", "content": None}]
    text = message.get("content") or ""
    deltas += [{"content": text[:4]}, {"content": text[4:]}] if text else []
    for index, call in enumerate(message.get("tool_calls") or ()):
        arguments = call["function"]["arguments"]
        begun = call | {"index": index, "function": {"name": call["function"]["name"], "arguments": arguments[:4]}}
        deltas += [{"tool_calls": [begun]}, {"tool_calls": [{"index": index, "function": {"arguments": arguments[4:]}}]}]
    full = whole(message)
    events: list[Any] = [{"id": "c", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events += [{"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": full["choices"][0]["finish_reason"]}]}]
    events += [{"id": "c", "choices": [], "usage": full["usage"]}]
    return [b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]


def read(response: MemoryResponse) -> Message | None:
    """The message that came, None for anything else."""
    if response.status != 200 or response.aborted:
        return None
    if not dict(response.headers)[b"content-type"].startswith(b"text/event-stream"):
        message: Message = msgspec.json.decode(response.body)["choices"][0]["message"]
        return message
    if not response.body.endswith(b"data: [DONE]\n\n"):
        return None
    return assembled(json.loads(line[6:]) for line in response.body.decode().split("\n\n")[:-2])


def assembled(events: Iterator[Any]) -> Message:
    text, calls = "", {}
    for event in events:
        for choice in event["choices"]:
            delta = choice["delta"]
            text += delta.get("content") or ""
            for call in delta.get("tool_calls") or ():
                held = calls.setdefault(
                    call["index"], {"id": call.get("id"), "type": "function", "function": {"name": "", "arguments": ""}}
                )
                for field in ("name", "arguments"):
                    held["function"][field] += call["function"].get(field) or ""
    return {"role": "assistant", "content": text or None} | ({"tool_calls": list(calls.values())} if calls else {})


def meaning(message: Message) -> Any:
    calls = [(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message.get("tool_calls") or ()]
    return message.get("content") or "", calls


def action(message: Message) -> str:
    return "+".join(call["function"]["name"] for call in message.get("tool_calls") or ()) or "reply"


@pytest.fixture(scope="module")
def trajectories(shared_data: Path) -> list[list[Message]]:
    recorded = json.loads(gzip.decompress((shared_data / "taubench" / "gpt-4o-airline.json.gz").read_bytes()))
    return [run["traj"] for run in recorded]


@pytest.mark.parametrize("seed", [1, 2])
def test_every_conversation_completes_with_its_recorded_decisions(
    options_of: Options, trajectories: list[list[Message]], seed: int
) -> None:
    airline = Airline(options_of(ROUTE), trajectories, seed)
    airline.run()
    assert all(agent.done for agent in airline.agents)
    recorder = airline.world.recorder
    by_interaction: dict[str, list[str]] = {}
    for decision in recorder.decisions:
        if decision.complete:
            by_interaction.setdefault(decision.interaction, []).append(decision.chosen_action)
    expected = Counter(tuple(action(message) for message in steps if message["role"] == "assistant") for steps in trajectories)
    assert Counter(map(tuple, by_interaction.values())) == expected
    served = Counter(decision.served_by for decision in recorder.decisions if decision.complete)
    assert set(served) == {"openai/primary", "simulated/reserve"} and min(served.values()) > 200
    assert len(recorder.api_calls) == len(airline.world.upstream.exchanges)


@pytest.mark.parametrize("seed", [1])
def test_only_what_fails_after_its_first_token_is_noticed(options_of: Options, trajectories: list[list[Message]], seed: int) -> None:
    airline = Airline(options_of(ROUTE), trajectories, seed)
    airline.run()
    failed, recorder = airline.failed, airline.world.recorder
    assert set(failed) == {*FAILURES, *FAILURES_OF_STREAMS}
    assert len(airline.spoiled) == failed["cut after"] + failed["event after"] > 0
    recoveries = {error.error_id: error.recovery_action for error in recorder.errors}
    done = Counter(recoveries[call.error_id] for call in recorder.api_calls if call.error_id)
    assert done == {"none": len(airline.spoiled), "retried": done["retried"], "fell_back": done["fell_back"]}
    assert done.total() == failed.total()
