"""What rates cost a call: in memory and in a file that processes share, against an empty call, in alternating pairs.

Run: python bench/rates.py
"""

import platform
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns

from holdfast.execution.rates import Rates
from holdfast.execution.turn import Excess, Turn
from holdfast.policy.rate import Rate, RateScope
from holdfast.shared.rate_tables import RateTables
from holdfast.system_clock import SystemClock
from holdfast.wire.quota import Quota

CALLS = 5_000
PAIRS = 15
COSTS = (1, 300, 200, 100)
NEVER_NS = 1 << 62
SCOPES: tuple[RateScope, ...] = ("all", "agent", "user", "model")
VALUES: dict[RateScope, str] = {"all": "", "agent": "support", "user": "ann", "model": "gpt"}


def empty_call() -> None:
    """What a call costs that asks for nothing."""


def median_us(call: Callable[[], None]) -> float:
    """Microseconds that a call costs beyond an empty one."""
    pairs = []
    for _ in range(PAIRS):
        begin = perf_counter_ns()
        for _ in range(CALLS):
            call()
        middle = perf_counter_ns()
        for _ in range(CALLS):
            empty_call()
        pairs.append(2 * middle - begin - perf_counter_ns())
    return statistics.median(pairs) / CALLS / 1_000


def done(outcome: Turn | Excess) -> None:
    assert isinstance(outcome, Turn)


def figures(tables: RateTables) -> list[tuple[str, float]]:
    rates = Rates(tables.rates, tables.pools, SystemClock())

    def passing(label: str, wanted: list[Rate]) -> Callable[[], None]:
        def call() -> None:
            pool = rates.pool(label, "key")
            turn = Turn(rates.draws(wanted, VALUES, COSTS), pool, COSTS, NEVER_NS, NEVER_NS)
            rates.ask(turn, done)
            turn.settle((150, 100))

        return call

    def unheard() -> None:
        rates.is_unheard(rates.pool("a/b", "key"))

    requests = [Rate(scope=scope, unit="requests", amount=10**9, per_ns=10**9, burst=10**9) for scope in SCOPES]
    tokens = [Rate(scope="all", unit="tokens", amount=10**12, per_ns=10**9, burst=10**12)]
    quotas = [Quota("requests", 10**9, 10**9 - 1, 10**6), Quota("tokens", 10**9, 10**9 - 1, 10**6)]
    found = [("no rate, provider never heard of", median_us(unheard))]
    found += [(f"{count} rates of requests", median_us(passing("a/b", requests[:count]))) for count in (1, 4)]
    found.append(("1 rate of tokens, corrected after", median_us(passing("a/b", tokens))))
    rates.heard(rates.pool("a/heard", "key"), None, quotas, None)
    found.append(("provider heard of: counted", median_us(passing("a/heard", []))))
    pool = rates.pool("a/heard", "key")
    found.append(("provider heard of: its answer", median_us(lambda: rates.heard(pool, None, quotas, None))))
    return found


def main() -> None:
    print(f"Python {platform.python_version()}, {platform.machine()}; {PAIRS} pairs of {CALLS} calls, medians; us beyond an empty call")
    with tempfile.TemporaryDirectory() as folder:
        private, shared = RateTables(None), RateTables(Path(folder))
        for (what, alone), (_, together) in zip(figures(private), figures(shared), strict=True):
            print(f"{what:36} in memory {alone:6.2f}   shared {together:6.2f}")
        shared.release()


if __name__ == "__main__":
    main()
