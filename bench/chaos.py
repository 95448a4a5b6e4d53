"""Every failure of the simulated provider under mixed traffic: 100 conversations, two workers, failures switching on and off by a schedule.

`python bench/chaos.py [--minutes M] [--seed N]`. Two simulated providers, the second the first one's reserve, and a tool's API stand
behind a real `holdfast up`. Each model goes through all failures in a seeded order of its own, at the first provider or at both. In the
end what the agents saw, what the providers were asked, and what the journal says are held against each other, call by call. It ends with 1
when a promise is broken.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import chaos_breakers
import chaos_verdict
import msgspec
import programs
from chaos_breakers import Breakers
from chaos_schedule import FAULTS, SERVERS, Schedule
from chaos_traffic import FORMATS, TOOL_TOTAL_S, TOTAL_S, Call, Traffic
from chaos_verdict import Check
from exchange import Lines

from holdfast.testing.simulated_provider.requests import Noted, Page

CONVERSATIONS, WORKERS = 100, 2
QUIET_S = 12.0
"""At the end nothing fails for so long, but the calls go on: by then everything has to be as it was."""
_SAMPLE_S = 3.0

_PRICES = '{"*": {input_per_million: 1, output_per_million: 4}}'
_CONFIG = """\
providers:
  first: {{kind: openai, base_url: "http://127.0.0.1:{first}/v1", api_key: env:CHAOS_KEY, prices: {prices}}}
  first-messages: {{kind: anthropic, base_url: "http://127.0.0.1:{first}", api_key: env:CHAOS_KEY, prices: {prices}}}
  reserve: {{kind: openai, base_url: "http://127.0.0.1:{reserve}/v1", api_key: env:CHAOS_KEY, prices: {prices}}}
  reserve-messages: {{kind: anthropic, base_url: "http://127.0.0.1:{reserve}", api_key: env:CHAOS_KEY, prices: {prices}}}
tools:
  orders: {{base_url: "http://127.0.0.1:{tool}", timeout: {tool_s:.0f}s, price_per_call: 0.001}}
limits:
  - {{usd: 100000, per: day}}
breakers: {breakers}
agents:
  steady:
    key: env:CHAOS_STEADY_KEY
    routes: {{"*": [first/*, reserve-messages/*, reserve/*]}}
    timeouts: &timeouts {{connect: 2s, first_token: 2s, idle: 1500ms, total: {total_s:.0f}s}}
    limits: [{{calls: 10000000, per: hour}}]
    fallback: {{continue_streams: true, content_filter: true}}
  spoken:
    key: env:CHAOS_SPOKEN_KEY
    routes: {{"*": [first-messages/*, reserve/*, {{reply: "Please come back later."}}]}}
    timeouts: *timeouts
  queueing:
    key: env:CHAOS_QUEUEING_KEY
    routes: {{"*": [first/*]}}
    timeouts: *timeouts
    on_unavailable: queue
"""
_KEYS = {"CHAOS_KEY": "sk-real", "CHAOS_STEADY_KEY": "steady", "CHAOS_SPOKEN_KEY": "spoken", "CHAOS_QUEUEING_KEY": "queueing"}


@dataclass
class Observer:
    """Fetches what the servers note before they forget it, and looks at the workers' memory."""

    lines: dict[str, Lines]
    up: programs.Up
    data: Path
    records: dict[str, dict[int, Noted]] = field(default_factory=lambda: {server: {} for server in SERVERS})
    samples: list[chaos_verdict.Sample] = field(default_factory=list)
    lost: int = 0
    since: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SERVERS, 0))

    async def run(self) -> None:
        """Until it is cancelled."""
        began = time.monotonic()
        while True:
            await self.fetch()
            workers = await asyncio.to_thread(lambda: self.up.workers)
            at = time.monotonic() - began
            self.samples += [chaos_verdict.Sample(at, pid, programs.rss_kb(pid), programs.own_rss_kb(pid, self.data)) for pid in workers]
            await asyncio.sleep(_SAMPLE_S)

    async def fetch(self) -> None:
        for server, lines in self.lines.items():
            page = msgspec.convert(await lines.fetch(f"/requests?since={self.since[server]}"), Page)
            self.records[server] |= {noted.number: noted for noted in page.requests}
            self.lost += page.lost
            self.since[server] = page.next


async def _drive(up: programs.Up, data: Path, ports: dict[str, int], seconds: float, seed: int) -> tuple[Traffic, Schedule, Observer]:
    lines = {server: Lines(port) for server, port in ports.items()}
    traffic, schedule = Traffic(up.port, seed), Schedule(lines, seed, short=seconds < 600)
    observer = Observer(lines, up, data)
    running, failing, observing = (asyncio.create_task(task) for task in (traffic.run(CONVERSATIONS), schedule.run(), observer.run()))
    await _until({running, failing, observing}, seconds - QUIET_S)
    failing.cancel()
    await asyncio.gather(failing, return_exceptions=True)
    await _until({running, observing}, QUIET_S)
    traffic.stopped = True
    await running
    observing.cancel()
    await asyncio.gather(observing, return_exceptions=True)
    await observer.fetch()
    for line in lines.values():
        line.close()
    return traffic, schedule, observer


async def _until(tasks: set[asyncio.Task[None]], seconds: float) -> None:
    """For so long; none of the tasks ends by itself but by an error."""
    for task in (await asyncio.wait(tasks, timeout=max(seconds, 1.0), return_when=asyncio.FIRST_COMPLETED))[0]:
        task.result()


def _endings(calls: list[Call]) -> None:
    found = Counter((call.kind, call.ending if call.ending != "refused" else f"refused: {call.refusal}") for call in calls)
    kinds = [*FORMATS, "GET", "POST"]
    print(f"\n{'how calls ended':40}" + "".join(f"{kind:>11}" for kind in kinds))
    for ending in sorted({ending for _, ending in found}):
        print(f"{ending:40}" + "".join(f"{found[kind, ending]:>11}" for kind in kinds))
    print(f"{'in all':40}" + "".join(f"{sum(call.kind == kind for call in calls):>11}" for kind in kinds))


def _report(traffic: Traffic, schedule: Schedule, seconds: float, verdict: list[Check], journal: chaos_verdict.Journal) -> None:
    calls = traffic.calls
    _endings(calls)
    begun = Counter(window.fault for window in schedule.windows)
    print(
        f"\nfailures switched on: {begun.total()}, of {len(begun)} kinds: "
        + ", ".join(f"{name} {count}" for name, count in sorted(begun.items()))
    )
    print("served by: " + ", ".join(f"{name.partition('/')[0]} {count}" for name, count in _servers(calls).most_common()))
    print("errors and what was done: " + ", ".join(f"{name} {count}" for name, count in journal.recoveries.most_common()))
    print(f"\n{len(calls)} calls, {len(calls) / seconds:.0f} a second")
    for check in verdict:
        print(f"  {'holds' if check.holds else 'BROKEN':8}{check.promise}: {check.measured}")
        for example in check.found:
            print(f"            {example}")


def _servers(calls: list[Call]) -> Counter[str]:
    return Counter(call.served_by.partition("/")[0] for call in calls if call.ending == "answer" and call.kind in FORMATS)


@contextmanager
def _world(data: Path) -> Iterator[tuple[programs.Up, dict[str, int]]]:
    """Holdfast, and the ports of the servers behind it."""
    with ExitStack() as stack:
        ports = {"first": stack.enter_context(programs.sim()), "reserve": stack.enter_context(programs.sim())}
        tool = stack.enter_context(programs.process([sys.executable, str(programs.HERE / "tool_server.py")]))
        assert tool.stdout is not None
        ports["tool"] = int(tool.stdout.readline())
        config = _CONFIG.format(**ports, prices=_PRICES, total_s=TOTAL_S, tool_s=TOOL_TOTAL_S, breakers=chaos_breakers.CONFIG)
        yield stack.enter_context(programs.up(config, data, WORKERS, _KEYS)), ports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    seconds = asked.minutes * 60
    print(f"{programs.machine()}\n{asked.minutes:g} minutes, seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with _world(data) as (up, ports):
            before = up.workers
            traffic, schedule, observer = asyncio.run(_drive(up, data, ports, seconds, asked.seed))
            alive = up.workers == before
        journal = chaos_verdict.read_journal(data)
    requests = chaos_verdict.by_id({server: list(record.values()) for server, record in observer.records.items()}, schedule)
    attempts = [attempt for made in journal.attempts.values() for attempt in made]
    missed = tuple(sorted(set(FAULTS) - {window.fault for window in schedule.windows}))
    verdict = [
        *chaos_verdict.checks(traffic.calls, requests, journal),
        *Breakers(journal.breakers, attempts, schedule).checks(),
        Check("the providers' records are whole", f"{observer.lost} requests lost", not observer.lost),
        Check("no worker ended", "all live" if alive else "replaced", alive),
        Check("every failure was switched on", f"{len(FAULTS) - len(missed)} of {len(FAULTS)}", not missed, missed),
        chaos_verdict.memory(observer.samples, seconds),
    ]
    _report(traffic, schedule, seconds, verdict, journal)
    sys.exit(not all(check.holds for check in verdict))


if __name__ == "__main__":
    main()
