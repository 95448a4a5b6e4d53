"""The data plane against nginx, everything that guards switched on: CPU per call and chunk, latency, cancelling, start, memory.

`python bench/data_plane.py [--rounds N]`. Both proxies stand before the same upstream and get the same load in turn
(A B B A …); each figure is the median over the rounds. CPU is the worker process's own, all threads, user and system, read from the
kernel. Without nginx the comparisons are left out, and said so.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Coroutine
from contextlib import ExitStack

import load
import programs

RATES = (200, 1000, 2000)
SECONDS = 3.0
STARTS = 3
STREAMS = 50
Measured = Callable[[int], Coroutine[object, object, load.Outcome]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(programs.machine())
    with programs.upstream() as upstream:
        ready = statistics.median([_ready(upstream) for _ in range(STARTS + 1)][1:])  # the first start also writes the bytecode
        with ExitStack() as stack:
            port, pid, _ = stack.enter_context(programs.holdfast(upstream))
            if programs.nginx_program() is None:
                nginx = None
                print("skipped: CPU per call and per streamed chunk, because nginx is not installed (package nginx)")
            else:
                nginx = stack.enter_context(programs.nginx(upstream))
                _compare(rounds, (port, pid), nginx)
            _latency(rounds, port, upstream, None if nginx is None else nginx[0])
            _cancel(port, upstream)
            _line("ready after the start", f"{ready:.2f} s", "1 s")
            _line("RSS of the worker", f"{programs.rss_kb(pid) / 1024:.0f} MB", "80 MB")
    _start_up("import holdfast", "import holdfast", "100 ms")
    _start_up("holdfast --help", "import sys; sys.argv = ['holdfast', '--help']; from holdfast.cli import main; main()", "200 ms")


def _ready(upstream: int) -> float:
    with programs.holdfast(upstream) as (_, _, ready):
        return ready


def _compare(rounds: int, ours: tuple[int, int], theirs: tuple[int, int]) -> None:
    for port, _ in (ours, theirs):  # connections to the upstream are open, caches warm
        asyncio.run(load.steady(port, 500, 2))
    for rate in RATES:
        name = f"CPU per call at {rate} calls/s"
        _pairs(name, "call", 2.5, rounds, ours, theirs, lambda port, rate=rate: load.steady(port, rate, SECONDS))  # type: ignore[misc]
    _pairs("CPU per streamed chunk", "chunk", 1.7, rounds, ours, theirs, lambda port: load.streams(port, STREAMS))


def _pairs(name: str, unit: str, bound: float, rounds: int, ours: tuple[int, int], theirs: tuple[int, int], measured: Measured) -> None:
    costs: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for (port, pid), cost in list(zip((ours, theirs), costs, strict=True))[:: -1 if number % 2 else 1]:
            before = programs.cpu_ns(pid)
            outcome = asyncio.run(measured(port))
            assert not outcome.failed, f"{outcome.failed} calls failed"
            cost.append((programs.cpu_ns(pid) - before) / 1000 / (outcome.chunks or len(outcome.latencies)))
    ratios = [a / b for a, b in zip(*costs, strict=True)]
    own, other = (statistics.median(cost) for cost in costs)
    figures = (
        f"{statistics.median(ratios):.2f}x nginx ({min(ratios):.2f} to {max(ratios):.2f}; {own:.0f} us against {other:.0f} us per {unit})"
    )
    _line(name, figures, f"{bound}x")


def _latency(rounds: int, port: int, upstream: int, nginx: int | None) -> None:
    """At 50 calls/s, against the upstream alone."""
    proxies = [("", port, ("1 ms", "5 ms"))] + ([] if nginx is None else [(" (nginx)", nginx, ("-", "-"))])
    added: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in proxies}
    for _ in range(rounds):
        for name, where, _ in proxies:
            through, direct = (asyncio.run(load.steady(to, 50, SECONDS)).latencies for to in (where, upstream))
            added[name].append((_quantile(through, 0.5) - _quantile(direct, 0.5), _quantile(through, 0.99) - _quantile(direct, 0.99)))
    for name, _, limits in proxies:
        for quantile, values, limit in zip(("p50", "p99"), zip(*added[name], strict=True), limits, strict=True):
            _line(f"added latency at 50 calls/s, {quantile}{name}", f"{statistics.median(values) * 1000:.2f} ms", limit)


def _cancel(port: int, upstream: int) -> None:
    """From the client's leaving a stream to the upstream's seeing it."""

    async def leave() -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(load.request(port, stream=True, note=b'"user":"hold",'))
        await reader.readuntil(b" token")
        left = time.monotonic_ns()
        writer.close()
        await asyncio.sleep(0.2)
        with urllib.request.urlopen(f"http://127.0.0.1:{upstream}/left") as answer:
            return (int(answer.read()) - left) / 1e6

    taken = [asyncio.run(leave()) for _ in range(20)]
    _line("upstream cancelled after the client left", f"{statistics.median(taken):.1f} ms (at most {max(taken):.1f})", "50 ms")


def _start_up(name: str, code: str, bound: str) -> None:
    """Over an interpreter that does nothing; the median of alternating runs."""

    def timed(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - began) * 1000

    pairs = [(timed(code), timed("pass")) for _ in range(15)]
    whole, empty = (statistics.median(times) for times in zip(*pairs, strict=True))
    _line(name, f"{whole:.0f} ms ({whole - empty:.0f} ms over an empty interpreter)", bound)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def _line(name: str, figure: str, bound: str) -> None:
    print(f"{name:42} {figure:72} bound {bound}", flush=True)


if __name__ == "__main__":
    main()
