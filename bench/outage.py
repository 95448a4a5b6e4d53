"""Outage drill: a provider dies for a minute under 50 calls a second, killed (no connection) or stopped (it hangs), and comes back.

`python bench/outage.py [--seconds S]`. Four fifths of the calls are an agent's whose route has a reserve, half of them streamed; one fifth
an agent's that has none and queues. Printed of each kind of death: who answered, how long calls took before it, at the switch, during it
and after it, what was queued and answered later, and what was lost: of that there must be nothing.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

import programs
from exchange import Lines

RATE, WORKERS = 50, 2
BEFORE_S, AFTER_S, SWITCH_S = 10.0, 75.0, 5.0
"""After it long enough for a breaker's longest cooldown, a minute, and a little more."""
AGENTS = ("reserve", "reserve", "queue", "reserve", "reserve")
_MODEL = "sim-slow-20"
_PRICES = '{"*": {input_per_million: 1, output_per_million: 4}}'
_CONFIG = """\
providers:
  first: {{kind: openai, base_url: "http://127.0.0.1:{first}/v1", api_key: env:OUTAGE_KEY, prices: {prices}}}
  second: {{kind: openai, base_url: "http://127.0.0.1:{second}/v1", api_key: env:OUTAGE_KEY, prices: {prices}}}
limits:
  - {{usd: 100000, per: day}}
agents:
  reserve:
    key: env:OUTAGE_RESERVE_KEY
    routes: {{"*": [first/*, second/*]}}
    timeouts: {{connect: 1s, first_token: 2s, answer: 2s, total: 30s}}
  queue:
    key: env:OUTAGE_QUEUE_KEY
    routes: {{"*": [first/*]}}
    timeouts: {{connect: 1s, first_token: 2s, total: {patience_s:.0f}s}}
    on_unavailable: queue
"""
_KEYS = {"OUTAGE_KEY": "sk-real", "OUTAGE_RESERVE_KEY": "reserve", "OUTAGE_QUEUE_KEY": "queue"}


class Call(NamedTuple):
    """at: seconds from the beginning to when it was due; took counts from then."""

    at: float
    agent: str
    stream: bool
    ending: str
    status: int
    served_by: str
    took: float


class Provider:
    """The one that dies."""

    def __init__(self) -> None:
        self._port = programs.free_port()
        self._process: subprocess.Popen[bytes]
        self.start()

    @property
    def port(self) -> int:
        return self._port

    def start(self) -> None:
        command = [*programs.HOLDFAST, "sim", "--json", "--port", str(self._port)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def stop(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def provider() -> Iterator[Provider]:
    started = Provider()
    try:
        yield started
    finally:
        started.kill()


class Load:
    def __init__(self, port: int) -> None:
        self.calls: list[Call] = []
        self.began = 0.0
        self._port = port
        self._lines = Lines(port)

    async def run(self, seconds: float) -> None:
        """Until every call that was due in `seconds` has ended."""
        self.began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(RATE * seconds)):
                at = number / RATE
                await asyncio.sleep(max(0.0, self.began + at - time.monotonic()))
                group.create_task(self._one(at, number))
        self._lines.close()

    async def _one(self, at: float, number: int) -> None:
        agent, stream = AGENTS[number % len(AGENTS)], number % 2 == 1
        body = {"model": _MODEL, "stream": stream, "max_tokens": 100, "messages": [{"role": "user", "content": f"Question {number}"}]}
        data = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\nauthorization: Bearer {agent}\r\n"
            f"content-type: application/json\r\nx-sim-id: {number}\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        status, served_by = 0, ""
        try:
            reply = await self._lines.call(head.encode() + data, 300)
            ending, status, served_by = reply.ending("chat", stream=stream), reply.status, reply.header("x-holdfast-served-by")
            if ending == "refused":
                ending = f"refused: {reply.header('x-holdfast-refusal')}"
        except (TimeoutError, OSError) as error:
            ending = repr(error)
        self.calls.append(Call(at, agent, stream, ending, status, served_by.partition("/")[0], time.monotonic() - self.began - at))


async def _drill(up: programs.Up, seconds: float, dies: Callable[[], None], returns: Callable[[], None]) -> list[Call]:
    load = Load(up.port)
    running = asyncio.create_task(load.run(BEFORE_S + seconds + AFTER_S))
    await asyncio.sleep(BEFORE_S)
    dies()
    await asyncio.sleep(seconds)
    await asyncio.to_thread(returns)
    await running
    return load.calls


def _times(calls: list[Call]) -> tuple[float, float, float]:
    """Median, 99th percentile and maximum of how long answers took, in ms."""
    took = [call.took * 1000 for call in calls if call.ending == "answer"] or [float("nan")]
    cut = quantiles(took * 2, n=100)
    return cut[49], cut[98], max(took)


def _report(how: str, calls: list[Call], seconds: float) -> int:
    """Print it; how many calls were lost."""
    dead = (BEFORE_S, BEFORE_S + seconds)
    phases = {
        "before": (0.0, dead[0]),
        f"first {SWITCH_S:.0f} s of the outage": (dead[0], dead[0] + SWITCH_S),
        "rest of the outage": (dead[0] + SWITCH_S, dead[1]),
        "after its return": (dead[1], dead[1] + AFTER_S),
    }
    print(f"\n{how}: {len(calls)} calls\n{'with a reserve (ms)':28}{'p50':>7}{'p99':>9}{'max':>9}   served by")
    reserve = [call for call in calls if call.agent == "reserve"]
    times = []
    for name, (begin, end) in phases.items():
        within = [call for call in reserve if begin <= call.at < end]
        times.append(_times(within))
        served = dict(Counter(call.served_by for call in within if call.ending == "answer"))
        print(f"{name:28}{times[-1][0]:7.0f}{times[-1][1]:9.0f}{times[-1][2]:9.0f}   {served}")
    print(
        f"added at the switch: {times[1][0] - times[0][0]:.0f} ms at the median, {times[1][1] - times[0][1]:.0f} ms at the 99th percentile"
    )
    lost = [call for call in calls if call.ending != "answer"]
    during = [call for call in reserve if dead[0] <= call.at < dead[1]]
    fallback = sum(call.served_by == "second" and call.ending == "answer" for call in during)
    print(f"share of the outage's {len(during)} calls answered by the reserve: {fallback / max(len(during), 1):.2%}")
    queued = [call for call in calls if call.agent == "queue" and call.at < dead[1] and call.at + call.took > dead[0]]
    later = [call for call in queued if call.ending == "answer"]
    waited = max((call.took for call in later), default=0.0)
    spread = max((call.at + call.took - dead[1] for call in later), default=0.0)
    print(
        f"without a reserve: {len(queued)} calls met the outage, {len(later)} ({len(later) / max(len(queued), 1):.2%}) waited and were"
        f" answered (longest wait {waited:.1f} s; the last {spread:.1f} s after its return)"
    )
    back = [call.at - dead[1] for call in reserve if call.at >= dead[1] and call.served_by == "first"]
    print(f"the first provider is given calls again {min(back, default=float('nan')):.2f} s after its return")
    endings = Counter(f"{call.agent} {'stream' if call.stream else 'whole'} {call.ending} {call.status or ''}" for call in lost)
    print(f"lost {len(lost)} (bound: 0)" + "".join(f"\n    {count} x {name}" for name, count in endings.items()))
    return len(lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    seconds = parser.parse_args().seconds
    print(programs.machine())
    lost = 0
    for how in ("killed", "stopped"):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            first, second = stack.enter_context(provider()), stack.enter_context(programs.sim())
            text = _CONFIG.format(first=first.port, second=second, prices=_PRICES, patience_s=2 * seconds + 30)
            up = stack.enter_context(programs.up(text, folder / "data", WORKERS, _KEYS))
            dies, returns = (first.kill, first.start) if how == "killed" else (first.stop, first.go_on)
            calls = asyncio.run(_drill(up, seconds, dies, returns))
        lost += _report(f"provider {how} for {seconds:.0f} s", calls, seconds)
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
