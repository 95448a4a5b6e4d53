"""10,000 agents x 10,000 users with limits, against one agent: CPU per call, and memory per account that is alive.

`python bench/many.py [--agents N] [--pairs N] [--rounds N]`. The real gateway object, limiter and SQLite ledger run in this process on the
machine's clock; the upstream answers at once in memory and the record is encoded and thrown away. Every agent has its own key, a spend
limit per hour, and a call limit per day for each of its users. One agent and all of them take turns in alternating pairs, medians count:

- warm: calls of agents and users that were seen a moment ago, 500 pairs in turn: what a busy installation pays
- tail: agents and users drawn with the long tail of real traffic (Zipf), over everything that was touched
- first: each call is the first of its agent and user; it waits for the ledger, and opens the books of what is new
"""

import argparse
import asyncio
import gc
import os
import random
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice
from pathlib import Path

import msgspec
import programs
from upstream import ANSWER

from holdfast.assembly.limits import open_limits
from holdfast.config import load
from holdfast.config.document import MAX_SIZE, MAX_VALUES
from holdfast.config.ledger import LedgerOptions
from holdfast.errors import ConfigError
from holdfast.execution.breakers import Breakers
from holdfast.execution.rates import Rates
from holdfast.execution.upstream import Receiver, UpstreamRequest
from holdfast.gateway.application import Gateway
from holdfast.gateway.gate import Gate
from holdfast.gateway.options import GatewayOptions
from holdfast.gateway.parts import Parts
from holdfast.gateway.recovery import RetryAllowances
from holdfast.gateway.routing import Routing
from holdfast.gateway.turns import Turns
from holdfast.http.message import Request
from holdfast.policy.history import Conversations
from holdfast.shared.breakers import SIZE, BreakerTable
from holdfast.shared.private_memory import PrivateMemory
from holdfast.shared.rate_tables import RateTables
from holdfast.system_clock import SystemClock
from holdfast.testing import MemoryResponse
from holdfast.testing.isolations import MemoryIsolations
from holdfast.testing.kill_switch import MemoryKillSwitch
from holdfast.testing.upstream import MemoryExchange
from policy import Buffer

USERS = 10_000
WORKING_SET = 500
AT_ONCE = 100
WARM_CALLS, FIRST_CALLS = 4_000, 1_000
FILLING = 21_000
PATIENCE_S = 120
BOUND = "within 10 %"

Pair = tuple[int, int]
"""Number of an agent and of a user."""

_PROVIDERS = """\
providers:
  openai: {kind: openai, base_url: "http://127.0.0.1:9/v1", api_key: env:BENCH_KEY}
"""
_AGENT = "  agent-{0}: {{key: env:KEY_{0}, limits: [{{usd: 1000, per: hour}}, {{calls: 100000, per: day, scope: user}}]}}\n"
_BODY = b'{"model":"gpt-4o-mini","max_tokens":300,"user":"user-%d","messages":[{"role":"user","content":"' + b"u" * 1700 + b'"}]}'
_HEADERS = ((b"host", b"127.0.0.1:8787"), (b"content-type", b"application/json"), (b"user-agent", b"OpenAI/Python 3.54.0"))
_JSON = ((b"content-type", b"application/json"),)


class AnsweringUpstream:
    """Answers every request in the next turn of the loop."""

    def send(self, request: UpstreamRequest, receiver: Receiver) -> MemoryExchange:
        exchange = MemoryExchange(request, receiver)
        asyncio.get_running_loop().call_soon(exchange.answer, ANSWER, 200, _JSON)
        return exchange


class Site:
    """A gateway with `agents` agents, and a ledger of its own in `folder`."""

    def __init__(self, agents: int, folder: Path) -> None:
        options = _options(agents, folder)
        clock = SystemClock()
        self.folder = folder
        self.agents = agents
        self._record = Buffer()
        self.limits = open_limits(LedgerOptions(), folder, "bench", clock, self._record)
        self.limiter = self.limits.limiter
        tables = RateTables(None)
        turns = Turns(Rates(tables.rates, tables.pools, clock), options.rates, clock)
        source = random.Random(0)
        breakers = Breakers(BreakerTable(PrivateMemory(SIZE)), MemoryIsolations(), clock, self._record, source.random)
        self.application = Gateway(
            Parts(
                options=options,
                clock=clock,
                upstream=AnsweringUpstream(),
                gate=Gate(self.limiter, options.limits, turns, MemoryKillSwitch(), breakers),
                recorder=self._record,
                conversations=Conversations(),
                routing=Routing(options.providers),
                allowances=RetryAllowances(clock),
                uniform=source.random,
                bits=source.getrandbits,
                in_progress=set(),
                limit_refused=lambda reached: None,
            )
        )

    async def calls(self, pairs: Iterable[Pair]) -> None:
        """One call for each pair, AT_ONCE at a time; raises RuntimeError when one is not answered."""
        waiting = iter(pairs)
        while batch := [self._begin(*pair) for pair in islice(waiting, AT_ONCE)]:
            turns, until = 0, time.monotonic() + PATIENCE_S
            while not all(response.ended for response in batch):
                turns += 1
                await asyncio.sleep(0 if turns < 3 else 0.0005)  # the third turn waits for the ledger
                if time.monotonic() > until:
                    raise RuntimeError("calls wait without end")
            if wrong := [response for response in batch if response.status != 200]:
                raise RuntimeError(f"{len(wrong)} calls were answered with {wrong[0].status}: {wrong[0].body[:300]!r}")

    async def cost(self, pairs: list[Pair]) -> float:
        """CPU per call in microseconds, the ledger's thread included."""
        began = time.process_time_ns()
        await self.calls(pairs)
        return (time.process_time_ns() - began) / 1000 / len(pairs)

    def _begin(self, agent: int, user: int) -> MemoryResponse:
        response = MemoryResponse()
        key = (b"authorization", b"Bearer key-%d" % (agent % self.agents))
        request = Request(
            method=b"POST", path=b"/v1/chat/completions", query=b"", headers=[*_HEADERS, key], body=_BODY % user, peer="127.0.0.1"
        )
        self.application(request, response)
        return response


def _options(agents: int, folder: Path) -> GatewayOptions:
    """Read from a file as far as its bounds allow, and multiplied from there."""
    file = folder / "holdfast.yaml"
    file.write_text(_PROVIDERS + "agents:\n" + _AGENT.format(0))
    options = load(file, {"BENCH_KEY": "sk-real", "KEY_0": "key-0"}).gateway
    (model,) = options.agents
    replace = msgspec.structs.replace
    made = []
    for number in range(agents):
        name = f"agent-{number}"
        limits = tuple(replace(limit, owner=name) for limit in model.limits)
        made.append(replace(model, name=name, key=f"key-{number}", limits=limits))
    return replace(options, agents=tuple(made))


def zipf(seed: int, number: int, skew: float = 1.0) -> Iterator[int]:
    """Numbers below `number`, the n-th most frequent 1/n^skew as often as the first."""
    drawn = random.Random(seed)
    weights = list(accumulate(1 / (rank**skew) for rank in range(1, number + 1)))
    while True:
        yield bisect_left(weights, drawn.random() * weights[-1])


def distinct_pairs(agents: int, count: int) -> list[Pair]:
    """A long tail: most agents have a few users, a few agents most of them; every agent at least one."""
    found = dict.fromkeys((number, number % USERS) for number in range(min(agents, count)))
    for pair in zip(zipf(1, agents, 0.8), zipf(2, USERS, 0.8), strict=True):
        if len(found) >= count:
            return list(found)
        found[pair] = None
    return list(found)


async def measure(agents: int, pairs: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as one_folder, tempfile.TemporaryDirectory() as many_folder:
        one, many = Site(1, Path(one_folder)), Site(agents, Path(many_folder))
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)  # as in a worker
        for site in (one, many):  # fills what remembers conversations, up to its bound
            await site.calls((0, user) for user in range(FILLING))
        fresh = distinct_pairs(agents, pairs)
        random.Random(3).shuffle(fresh)
        await _first(one, many, fresh)
        await _compare("warm", rounds, one, many, fresh[:WORKING_SET] * (WARM_CALLS // WORKING_SET))
        tail = list(islice(zip(zipf(4, agents), zipf(5, USERS), strict=True), WARM_CALLS))
        await _compare("tail", rounds, one, many, tail)
        await _stall(many)
        for site in (one, many):
            await site.limits.close()


async def _first(one: Site, many: Site, fresh: list[Pair]) -> None:
    """Touch everything once: CPU per first touch as it goes on; memory when most accounts were alive, for idle ones are forgotten."""
    before, alive = _rss_kb(), many.limiter.accounts
    costs, held = [], []
    for at in range(0, len(fresh), FIRST_CALLS):
        costs.append(await many.cost(fresh[at : at + FIRST_CALLS]))
        held.append((many.limiter.accounts, _rss_kb()))
    most, rss = max(held)
    each = (rss - before) * 1024 / max(most - alive, 1)
    own = [await one.cost([(0, FILLING + number * FIRST_CALLS + user) for user in range(FIRST_CALLS)]) for number in range(5)]
    print(f"touched {len(fresh)} pairs of {many.agents} agents x {USERS} users; at most {most} accounts were alive at once")
    print(f"first call of a pair: {costs[0]:.0f} us CPU at first, {costs[-1]:.0f} at last, {sum(costs) / len(costs):.0f} on average")
    print(f"first call of a user of one agent: {statistics.median(own):.0f} us CPU")
    print(f"RSS: {before / 1024:.0f} MB before, {(rss - before) / 1024:.0f} MB more with them: {each:.0f} bytes per live account")
    print(f"RSS in the end: {_rss_kb() / 1024:.0f} MB with {many.limiter.accounts} accounts", flush=True)


async def _compare(name: str, rounds: int, one: Site, many: Site, pairs: list[Pair]) -> None:
    for site in (one, many):
        await site.calls(pairs)
    costs: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for site, cost in list(zip((one, many), costs, strict=True))[:: -1 if number % 2 else 1]:
            cost.append(await site.cost(pairs))
    ratios = [b / a for a, b in zip(*costs, strict=True)]
    single, all_of_them = (statistics.median(cost) for cost in costs)
    print(
        f"{name}: {all_of_them:.1f} us CPU per call against {single:.1f} of one agent: {statistics.median(ratios) - 1:+.1%} "
        f"({min(ratios) - 1:+.1%} to {max(ratios) - 1:+.1%})   bound {BOUND}",
        flush=True,
    )


async def _stall(many: Site) -> None:
    """How long one turn of the loop works while nothing is called and the accounts are swept."""
    longest, until = 0, time.monotonic() + 10
    before = time.thread_time_ns()
    while time.monotonic() < until:
        await asyncio.sleep(0.001)
        now = time.thread_time_ns()
        longest, before = max(longest, now - before), now
    accounts = many.limiter.accounts
    print(f"longest turn of the loop in 10 s with {accounts} accounts and no calls: {longest / 1e6:.1f} ms CPU", flush=True)


def largest_file(agents: int) -> None:
    """How many such agents a configuration file can hold, and what it takes to read them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "holdfast.yaml"
        keys = {"BENCH_KEY": "sk-real"} | {f"KEY_{number}": f"key-{number}" for number in range(agents)}

        def reads(count: int) -> str:
            file.write_text(_PROVIDERS + "agents:\n" + "".join(map(_AGENT.format, range(count))))
            try:
                load(file, keys)
            except ConfigError as error:
                return str(error).partition(": ")[2]
            return ""

        why, most, too_many = reads(agents), 1, agents
        if not why:
            most = agents
        while why and too_many - most > 1:
            middle = (most + too_many) // 2
            if failed := reads(middle):
                why, too_many = failed, middle
            else:
                most = middle
        began = time.process_time()
        reads(most)
        spent = time.process_time() - began
    print(
        f"configuration file: {most} of {agents} agents fit ({why or 'all'}; bounds {MAX_SIZE // 1024} KiB, {MAX_VALUES} values); "
        f"reading them takes {spent:.2f} s CPU"
    )


def _rss_kb() -> int:
    return programs.rss_kb(os.getpid())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(programs.machine())
    asyncio.run(measure(options.agents, options.pairs, options.rounds))
    largest_file(options.agents)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
