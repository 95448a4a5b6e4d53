"""Whatever happens to calls, in any order: every one ends once, nothing stays reserved, held or waiting, and all of it is on record."""

import re
from collections import Counter
from collections.abc import Callable

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.clock import SECOND
from holdfast.errors import ConnectFailed, ConnectionCut, StorageError
from holdfast.gateway.options import GatewayOptions
from holdfast.policy.circuit_breaker import Isolation
from holdfast.testing import MemoryResponse, request
from holdfast.testing.memory_gateway import MemoryGateway
from holdfast.testing.upstream import MemoryExchange

CHAT = "/v1/chat/completions"
TOTAL_S = 60
CALLS = 12
LIMITED = f"timeouts: {{total: {TOTAL_S}s}}, limits: [{{usd: 2, per: day}}, {{calls: {CALLS}, per: day}}]"
YAML = f"""
breakers: {{minimum_calls: 3, cooldown: 5s, probes: 1}}
limits: [{{calls: 40, per: day}}]
tools: {{crm: {{base_url: 'http://127.0.0.1:9', timeout: {TOTAL_S}s, price_per_call: 0.01}}}}
agents:
  plain: {{routes: {{'*': [simulated/one]}}, {LIMITED}}}
  hedged: {{routes: {{'*': [simulated/one, openai/gpt-4o]}}, hedge: {{after: 2s}}, on_unavailable: queue, {LIMITED}}}
  all: {{routes: {{'*': [simulated/one, openai/gpt-4o, simulated/two]}}, hedge: {{after: 2s}}, on_unavailable: queue,
    fallback: {{continue_streams: true, content_filter: true}}, {LIMITED}}}
  canned: {{routes: {{'*': [simulated/one, openai/gpt-4o, {{reply: sorry}}]}}, fallback: {{continue_streams: true}},
    on_unavailable: queue, {LIMITED}}}
  foreign: {{routes: {{'*': [anthropic/claude-sonnet-4-5, openai/gpt-4o]}}, hedge: {{after: 2s}}, fallback: {{continue_streams: true}},
    {LIMITED}}}
  slow: {{routes: {{'*': [simulated/one, openai/gpt-4o]}}, on_unavailable: queue, rates: [{{requests: 2, per: second}}], {LIMITED}}}
"""
AGENTS = ["plain", "hedged", "all", "canned", "foreign", "slow"]

_encode = msgspec.json.encode


class Answering(MemoryResponse):
    """Knows when it was given something after its end."""

    def __init__(self, since_ns: int, total_at_ns: int) -> None:
        super().__init__()
        self.since_ns = since_ns
        self.total_at_ns = total_at_ns
        self.begun = 0
        self.late: list[str] = []

    def start(self, status: int, headers: tuple[tuple[bytes, bytes], ...], length: int | None = None) -> None:  # type: ignore[override]
        self.begun += 1
        self._note("start")
        super().start(status, headers, length)

    def write(self, data: bytes) -> None:
        self._note("write")
        super().write(data)

    def end(self) -> None:
        self._note("end")
        super().end()

    def abort(self) -> None:
        self._note("abort")
        super().abort()

    def _note(self, what: str) -> None:
        if self.ended or self.aborted:
            self.late.append(what)


def call_of(exchange: MemoryExchange) -> str:
    """The number of a model's call; "" for a tool's."""
    found = re.search(rb"call <(\d+)>", exchange.request.body)
    return "" if found is None else found[1].decode()


class World:
    """Calls in every state at once, and the things that may happen to them."""

    def __init__(self, options: GatewayOptions) -> None:
        self.gateway = MemoryGateway(options)
        self.clock = self.gateway.clock
        self.upstream = self.gateway.upstream
        self.responses: list[Answering] = []
        self.pieces: Counter[MemoryExchange] = Counter()
        self.served: dict[str, int] = {}
        self.agents: dict[str, str] = {}
        self.unreached: set[MemoryExchange] = set()

    def ask(self, number: int, stream: bool) -> None:
        agent, call = AGENTS[number % len(AGENTS)], len(self.responses)
        messages = [{"role": "user", "content": f"call <{call}>"}]
        body = {"model": "m", "max_tokens": 100, "stream": stream, "messages": messages}
        self.agents[str(call)] = agent
        self._begin(request("POST", CHAT, body, {"x-holdfast-agent": agent}))

    def use_tool(self, number: int) -> None:
        call = len(self.responses)
        self._begin(request(["GET", "POST"][number % 2], f"/tools/crm/orders?<{call}>", headers={"x-holdfast-agent": "plain"}))

    def _begin(self, asked: object) -> None:
        now = self.clock.monotonic_ns()
        response = Answering(now, now + TOTAL_S * SECOND)
        self.responses.append(response)
        self.gateway.application(asked, response)  # type: ignore[arg-type]

    @property
    def open(self) -> list[MemoryExchange]:
        return [exchange for exchange in self.upstream.exchanges if not exchange.over]

    def answer(self, exchange: MemoryExchange, kind: int) -> None:
        kinds: list[Callable[[MemoryExchange], None]] = [
            self.whole, self.begin, self.piece, self.finish, self.cut, self.error, self.busy, self.bad, self.error_event, self.garbage,
            self.torn, self.filtered,
        ]  # fmt: skip
        kinds[kind % len(kinds)](exchange)
        streamed = b'"stream":true' in exchange.request.body
        if not exchange.cancelled and kinds[kind % len(kinds)] == (self.finish if streamed else self.whole) and call_of(exchange):
            self.served[call_of(exchange)] = len(self.upstream.exchanges)

    def whole(self, exchange: MemoryExchange) -> None:
        if exchange in self.pieces:
            self.finish(exchange)
            return
        usage = {"prompt_tokens": 9, "completion_tokens": 3}
        said = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}], "usage": usage}
        if self.foreign(exchange):
            usage = {"input_tokens": 9, "output_tokens": 3}
            said = {"content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn", "usage": usage}
            said |= {"id": "m", "type": "message", "role": "assistant", "model": "c"}
        exchange.answer(_encode({"id": "c", **said}))

    def foreign(self, exchange: MemoryExchange) -> bool:
        return b"claude" in exchange.request.body

    def begin(self, exchange: MemoryExchange) -> None:
        if exchange not in self.pieces:
            self.pieces[exchange] = 0
            exchange.start()
            if self.foreign(exchange):
                message = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": []}
                message["usage"] = {"input_tokens": 9, "output_tokens": 1}  # type: ignore[assignment]
                self.events(exchange, {"type": "message_start", "message": message})
                self.events(exchange, {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})

    def events(self, exchange: MemoryExchange, *events: dict[str, object]) -> None:
        for event in events:
            name = str(event.get("type", ""))
            exchange.data((f"event: {name}\n" if name else "").encode() + b"data: " + _encode(event) + b"\n\n")

    def piece(self, exchange: MemoryExchange) -> None:
        self.begin(exchange)
        if exchange.over:
            return
        self.pieces[exchange] += 1
        text = f"({self.upstream.exchanges.index(exchange)}.{self.pieces[exchange]})"
        if self.foreign(exchange):
            self.events(exchange, {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
        else:
            self.events(exchange, {"choices": [{"index": 0, "delta": {"content": text}}]})

    def finish(self, exchange: MemoryExchange) -> None:
        self.begin(exchange)
        if self.foreign(exchange):
            self.events(exchange, {"type": "content_block_stop", "index": 0})
            done = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}
            self.events(exchange, done, {"type": "message_stop"})
        else:
            self.events(exchange, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            exchange.data(b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}\n\ndata: [DONE]\n\n')
        exchange.end()

    def cut(self, exchange: MemoryExchange) -> None:
        exchange.fail(ConnectionCut("reset"))

    def error(self, exchange: MemoryExchange) -> None:
        if exchange not in self.pieces:
            exchange.answer(b'{"error":{"message":"no"}}', 500)

    def busy(self, exchange: MemoryExchange) -> None:
        if exchange not in self.pieces:
            exchange.answer(b'{"error":{"message":"busy"}}', 429, ((b"content-type", b"application/json"), (b"retry-after", b"3")))

    def bad(self, exchange: MemoryExchange) -> None:
        if exchange not in self.pieces:
            exchange.answer(b'{"error":{"message":"bad"}}', 400)

    def error_event(self, exchange: MemoryExchange) -> None:
        self.begin(exchange)
        kind = {"type": "error"} if self.foreign(exchange) else {}
        self.events(exchange, {**kind, "error": {"type": "overloaded_error", "message": "x"}})
        exchange.end()

    def garbage(self, exchange: MemoryExchange) -> None:
        if exchange not in self.pieces:
            exchange.answer(b"<html>")

    def torn(self, exchange: MemoryExchange) -> None:
        self.begin(exchange)
        exchange.data(b'data: {"choi')
        exchange.fail(ConnectionCut("reset"))

    def filtered(self, exchange: MemoryExchange) -> None:
        if exchange not in self.pieces and not self.foreign(exchange):
            choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "content_filter"}
            exchange.answer(_encode({"id": "c", "choices": [choice]}))

    def control(self, number: int) -> None:
        """What people, the disk and the network do."""
        gateway = self.gateway
        ways: list[Callable[[], object]] = [
            lambda: gateway.kill("agent", "hedged", "cut"),
            lambda: gateway.kill("all", mode="drain"),
            lambda: gateway.kill("model", "gpt-4o", "cut"),
            self.resume,
            lambda: gateway.isolations.isolate(Isolation(name="simulated/one")),
            lambda: gateway.isolations.reset("simulated/one"),
            lambda: setattr(self.upstream, "refusing", ConnectFailed("refused")),
            lambda: setattr(self.upstream, "refusing", None),
            lambda: setattr(gateway.ledger, "failing", StorageError("disk")),
            lambda: setattr(gateway.ledger, "failing", None),
            lambda: setattr(gateway.ledger, "delay_ns", SECOND - gateway.ledger.delay_ns),
        ]
        ways[number % len(ways)]()

    def resume(self) -> None:
        self.gateway.kill_switch.resume()
        self.gateway.application.kills_changed()

    def pause(self, number: int, on: bool) -> None:
        response = self.responses[number]
        told = response.pausing if on else response.resuming
        if told is not None and not response.over:
            told()

    def happen(self, what: str, one: int, two: int) -> None:
        before, calls, sent = len(self.upstream.exchanges), len(self.responses), self.open
        pauses = [0, SECOND // 10, SECOND, 2 * SECOND, 5 * SECOND, 20 * SECOND, 61 * SECOND]
        ways: dict[str, Callable[[], object]] = {
            "ask": lambda: self.ask(one, two % 3 > 0),
            "tool": lambda: self.use_tool(one),
            "answer": lambda: sent and self.answer(sent[one % len(sent)], two),
            "leave": lambda: calls and self.responses[one % calls].leave(),
            "pause": lambda: calls and self.pause(one % calls, two % 2 > 0),
            "control": lambda: self.control(one),
            "pass": lambda: self.clock.advance(pauses[one % len(pauses)]),
        }
        ways[what]()
        if self.upstream.refusing is not None:
            self.unreached.update(self.upstream.exchanges[before:])
        self.check()

    def check(self) -> None:
        now = self.clock.monotonic_ns()
        for number, response in enumerate(self.responses):
            assert not response.late and response.begun <= 1, (number, response.late)
            assert response.over or now <= response.total_at_ns + 2 * SECOND, f"call {number} outlives its total time-out"

    def settle(self) -> None:
        """Everybody has what they need, and time passes."""
        self.upstream.refusing = None
        self.resume()
        self.gateway.isolations.reset("simulated/one")
        self.gateway.ledger.failing = None
        for _ in range(20):
            self.clock.advance(60 * SECOND)
        self.check()

    def nothing_is_left(self) -> None:
        gateway = self.gateway
        assert all(response.over for response in self.responses)
        assert not self.open
        assert not gateway.application._parts.in_progress
        assert (gateway.queue.waiting, gateway.queue.awaited) == (0, {})
        gate = gateway.application._parts.gate
        assert (gate.waiting, gate._turning) == (0, {})
        assert not gateway.breakers._probing
        assert not any(standing.probes for standing in gateway.breaker_table.standings(self.clock.monotonic_ns()))
        assert not sum(account.reserved for book in gateway.limiter._books.values() for account in book.accounts.values())
        assert gateway.limiter.overruns == 0
        assert self.clock.pending == 0

    def all_is_on_record(self) -> None:
        record = self.gateway.recorder
        record.flush()
        assert not [error for error in record.errors if error.error_type == "internal"]
        assert len(record.api_calls) == len(self.upstream.exchanges)
        made = Counter(call.call_id.rpartition(".")[0] for call in record.api_calls)
        ways = Counter(
            error.error_id.rpartition(".")[0]
            for error in record.errors
            if error.recovery_action in {"retried", "fell_back", "hedged", "queued", "continued"}
        )
        assert all(ways[call] >= attempts - 1 for call, attempts in made.items()), "a further attempt that no error explains"
        assert len({call.call_id for call in record.api_calls}) == len(record.api_calls)
        assert len({decision.decision_id for decision in record.decisions}) == len(record.decisions)

    def no_answer_is_bought_twice(self) -> None:
        reached: Counter[str] = Counter()
        for number, exchange in enumerate(self.upstream.exchanges):
            call = call_of(exchange)
            assert number < self.served.get(call, number + 1), f"call {call} went out again after its answer"
            if call and exchange not in self.unreached:
                reached[self.agents[call]] += 1
        assert all(calls <= CALLS for calls in reached.values()), reached

    def streams_are_whole(self) -> None:
        for response in self.responses:
            body = response.body
            if response.status == 200 and body.startswith((b"data:", b"event:")):
                assert body.count(b"[DONE]") + body.count(b'"error":') <= 1, body
                if response.ended:
                    assert b"[DONE]" in body or b'"error":' in body, body
                said = [(int(each), int(number)) for each, number in re.findall(rb"\((\d+)\.(\d+)\)", body)]
                assert said == sorted(said) and len(set(said)) == len(said), said
                first = [each for each, _ in said]
                for exchange in set(first):
                    numbers = [number for each, number in said if each == exchange]
                    assert numbers == list(range(1, len(numbers) + 1)), "the pieces of a stream come in order, none left out"


WHAT = st.sampled_from(["ask"] * 4 + ["tool"] + ["answer"] * 8 + ["leave", "pause", "control", "control"] + ["pass"] * 4)
STEPS = st.lists(st.tuples(WHAT, st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=50)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS)
def test_every_call_ends_once_and_nothing_is_left(options_of: Callable[[str], GatewayOptions], steps: list[tuple[str, int, int]]) -> None:
    world = World(options_of(YAML))
    for step in steps:
        world.happen(*step)
    world.settle()
    world.nothing_is_left()
    world.all_is_on_record()
    world.streams_are_whole()
    world.no_answer_is_bought_twice()
