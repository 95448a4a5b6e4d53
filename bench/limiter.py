"""What a limit costs: reserve + settle with slices in hand, against an empty call, in alternating pairs.

Run: python bench/limiter.py
"""

import platform
import statistics
from time import perf_counter_ns

from holdfast.execution.limiter import Ask, Limiter, Outcome, Reservation
from holdfast.policy.limit import Limit, Scope
from holdfast.system_clock import SystemClock
from holdfast.testing import FakeClock
from holdfast.testing.ledger import MemoryLedger, MemorySlate

CALLS = 20_000
PAIRS = 15
MONTH = 30 * 86_400 * 10**9  # its slots are longer than this program runs: renewals are not what is measured


class WallClock(FakeClock):
    """Timers under our hand, so that no loop runs; wall time is the machine's, so that reading it costs what it costs."""

    wall_ns = staticmethod(SystemClock.wall_ns)


def empty_call(charges: object, ask: object, done: object) -> None:
    """What a call costs that decides nothing."""


def measure(limiter: Limiter, charges: list[tuple[Limit, str]], ask: Ask) -> tuple[float, float]:
    """(ns per reserve + settle, ns per empty call)."""
    got: list[Outcome] = []
    begin = perf_counter_ns()
    for _ in range(CALLS):
        limiter.reserve(charges, ask, got.append)
        outcome = got.pop()
        assert isinstance(outcome, Reservation)
        outcome.settle(900, 0)
    middle = perf_counter_ns()
    for _ in range(CALLS):
        empty_call(charges, ask, got.append)
    end = perf_counter_ns()
    return (middle - begin) / CALLS, (end - middle) / CALLS


def main() -> None:
    print(f"Python {platform.python_version()}, {platform.machine()}; {PAIRS} pairs of {CALLS} calls, medians")
    scopes: tuple[Scope, ...] = ("all", "agent", "user", "run")
    for count in (1, 4):
        clock = WallClock()
        limiter = Limiter(MemoryLedger(clock), clock, MemorySlate())
        limits = [Limit(scope=scope, unit="usd" if at % 2 else "calls", amount=10**15, per_ns=MONTH) for at, scope in enumerate(scopes)]
        charges = [(limit, "value") for limit in limits[:count]]
        ask = Ask(usd_least=1_000, usd_most=10_000)
        limiter.reserve(charges, ask, lambda _: None)
        clock.advance(0)
        clock.advance(0)
        pairs = [measure(limiter, charges, ask) for _ in range(PAIRS)]
        cost = statistics.median(pair[0] for pair in pairs)
        ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
        print(f"{count} limit(s): {cost / 1000:.2f} us per call, {cost / 1000 / count:.2f} us per limit, {ratio:.0f}x an empty call")


if __name__ == "__main__":
    main()
