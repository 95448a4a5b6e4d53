"""The same work through other gateways: CPU per call and per chunk, calls/s per core, added latency, memory, start, size.

`python bench/peers.py [--rounds N] [--only NAME,…]`, after `make peers`. All stand before one upstream and take turns, in another order
in every round; figures are medians over the rounds, ratios medians of the ratios within one round. CPU is that of the gateway's own
processes, so that neither the driver nor the upstream has to be faster than it; calls/s per core are calls per second of that CPU while
32 connections keep it busy. Where a gateway checks keys it gets one: Holdfast a virtual key (with its limits, ledger and journal on, as
in data_plane.py), LiteLLM its master key.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import load
import peer_programs
import programs
from peer_programs import Peer, Started

LATENCY_RATE, LATENCY_S = 50, 3.0
BUSY_S, BUSY_CONNECTIONS = 2.0, 32
LARGE_S, LARGE_CONNECTIONS, LARGE_BYTES = 1.5, 8, 100_000
STREAMS, CHUNKS = 50, 20
HELD, HELD_PATIENCE_S = 1000, 60.0
START_PATIENCE_S = 120.0

FIGURES = {
    "busy": "CPU us per call, saturated",
    "slow": "CPU us per call, 50 calls/s",
    "large": "CPU us per 100 KB call",
    "chunk": "CPU us per streamed chunk",
    "p50": "added ms at 50 calls/s, p50",
    "p99": "added ms at 50 calls/s, p99",
    "rate": "calls/s, saturated",
}
Figures = dict[str, float]


class Running(NamedTuple):
    peer: Peer
    at: Started
    start_s: float
    idle_kb: int

    def message(self, size: int = 1900, *, stream: bool = False, note: str = "") -> bytes:
        return _message(self.at, size, stream=stream, note=note)


def _message(at: Started, size: int = 1900, *, stream: bool = False, note: str = "") -> bytes:
    """A chat completion whose body has about `size` bytes."""
    asked: dict[str, Any] = {"model": at.model, "max_tokens": 300}
    if stream:
        asked["stream"] = True
    asked["messages"] = [{"role": "system", "content": "s" * 500}, {"role": "user", "content": note + "u" * (size - 650)}]
    body = json.dumps(asked, separators=(",", ":")).encode()
    return load.message(at.port, body, key=at.key, path=at.path, more=at.headers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="names, separated by commas")
    options = parser.parse_args()
    print(programs.machine())
    wanted = [name.lower() for name in options.only.split(",") if name]
    with programs.upstream() as upstream, ExitStack() as stack:
        running = []
        for peer in peer_programs.PEERS:
            if wanted and peer.name.lower() not in wanted:
                continue
            if why := peer.missing():
                print(f"skipped: {peer.name}, because {why}")
                continue
            started = _start(peer, upstream, stack)
            if started is not None:
                running.append(started)
        rounds = [_round(number, running, upstream) for number in range(options.rounds)]
        _report(running, rounds)
        _memory(running)


def _start(peer: Peer, upstream: int, stack: ExitStack) -> Running | None:
    """Started, checked to forward to the upstream, and warm; None, with the reason printed, when it does not."""
    began = time.perf_counter()
    try:
        at = stack.enter_context(peer.start(upstream))
        before = programs.fetch(upstream, "/called")["calls"]
        answer = asyncio.run(_first_answer(at))
        seconds = time.perf_counter() - began
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"skipped: {peer.name}, because it did not start: {error}")
        return None
    called = programs.fetch(upstream, "/called")
    if not answer.startswith(b"HTTP/1.1 200") or called["calls"] == before:
        print(f"skipped: {peer.name}, because it does not forward calls: {answer[:200]!r}")
        return None
    idle = programs.family_rss_kb(at.pid)
    print(f"{peer.name} {peer.version()}: forwards, with the key {called['key'] or 'of nobody'}", flush=True)
    asyncio.run(load.saturated(at.port, _message(at), BUSY_CONNECTIONS, 1.0))
    return Running(peer, at, seconds, idle)


async def _first_answer(at: Started) -> bytes:
    """What the first call is answered with, tried again and again while nobody listens."""
    until = time.perf_counter() + START_PATIENCE_S
    while time.perf_counter() < until:
        with suppress(OSError):
            connection = await load.connect(at.port)
            answer = await asyncio.wait_for(connection.call(_message(at)), 30)
            connection.close()
            return answer
        await asyncio.sleep(0.01)
    raise RuntimeError(f"no answer within {START_PATIENCE_S:.0f} s")


def _round(number: int, running: list[Running], upstream: int) -> dict[str, Figures]:
    """Every peer once, in an order of this round's own."""
    order = list(running)
    random.Random(number).shuffle(order)
    found = {}
    for each in order:
        direct = asyncio.run(load.steady(upstream, LATENCY_RATE, LATENCY_S)).latencies
        found[each.peer.name] = _measure(each, direct)
    return found


def _measure(each: Running, direct: list[float]) -> Figures:
    port = each.at.port
    short, large = each.message(), each.message(LARGE_BYTES)
    stream = each.message(stream=True, note=f"chunks-{CHUNKS} ")
    slow, slow_ns = _costing(each, lambda: load.steady(port, LATENCY_RATE, LATENCY_S, message=short))
    busy, busy_ns = _costing(each, lambda: load.saturated(port, short, BUSY_CONNECTIONS, BUSY_S))
    big, big_ns = _costing(each, lambda: load.saturated(port, large, LARGE_CONNECTIONS, LARGE_S))
    _, chunks_ns = _costing(each, lambda: load.streams(port, STREAMS, stream))
    return {
        "slow": slow_ns / 1000 / len(slow.latencies),
        "busy": busy_ns / 1000 / len(busy.latencies),
        "rate": len(busy.latencies) / BUSY_S,
        "large": big_ns / 1000 / len(big.latencies),
        "chunk": chunks_ns / 1000 / (STREAMS * CHUNKS),
        "p50": (_quantile(slow.latencies, 0.5) - _quantile(direct, 0.5)) * 1000,
        "p99": (_quantile(slow.latencies, 0.99) - _quantile(direct, 0.99)) * 1000,
    }


def _costing(each: Running, work: Callable[[], Coroutine[object, object, load.Outcome]]) -> tuple[load.Outcome, int]:
    """What came of the work, and the CPU that the gateway spent on it in nanoseconds."""
    before = programs.family_cpu_ns(each.at.pid)
    outcome = asyncio.run(asyncio.wait_for(work(), 120))
    if outcome.failed:
        raise RuntimeError(f"{each.peer.name} failed {outcome.failed} calls")
    return outcome, programs.family_cpu_ns(each.at.pid) - before


def _report(running: list[Running], rounds: list[dict[str, Figures]]) -> None:
    names = [each.peer.name for each in running]
    print(f"\n{'median of ' + str(len(rounds)) + ' rounds':32}" + "".join(f"{name:>12}" for name in names))
    for figure, title in FIGURES.items():
        _row(title, [statistics.median(found[name][figure] for found in rounds) for name in names])
    _row("calls/s per core, saturated", [statistics.median(1e6 / found[name]["busy"] for found in rounds) for name in names])
    for base in ("Holdfast", "nginx"):
        if base in names:
            for figure in ("busy", "slow", "large", "chunk"):
                ratios = [statistics.median(found[name][figure] / found[base][figure] for found in rounds) for name in names]
                _row(f"{FIGURES[figure].removeprefix('CPU us ')}: CPU / {base}", ratios)
    _row("start to first answer, s", [each.start_s for each in running])
    _row("installed, MB", [each.peer.size() / peer_programs.MB for each in running])


def _memory(running: list[Running]) -> None:
    """With 1,000 streams that have begun and say nothing more; idle is before the first load."""
    rows = defaultdict(list)
    for each in running:
        before = programs.family_rss_kb(each.at.pid)
        begun, during = asyncio.run(_holding(each))
        rows["RSS idle, MB"].append(each.idle_kb / 1024)
        rows["RSS after the load, MB"].append(before / 1024)
        rows[f"streams open of {HELD}"].append(begun)
        rows["RSS with them, MB"].append(during / 1024)
        rows["RSS per open stream, KB"].append((during - before) / max(begun, 1))
    for title, values in rows.items():
        _row(title, values)


async def _holding(each: Running) -> tuple[int, int]:
    held = await load.hold(each.at.port, each.message(stream=True, note="hold "), HELD, HELD_PATIENCE_S)
    rss = programs.family_rss_kb(each.at.pid)
    for stream in held:
        stream.transport.abort()
    return sum(stream.begun for stream in held), rss


def _row(title: str, values: list[float]) -> None:
    print(f"{title:32}" + "".join(f"{value:12,.2f}" if value < 10 else f"{value:12,.0f}" for value in values), flush=True)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


if __name__ == "__main__":
    main()
