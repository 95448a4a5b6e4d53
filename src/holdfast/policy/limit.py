"""Limits as written down, and what a refusal says. A limit acts before the call: what it refuses has cost nothing."""

from typing import Literal

from msgspec import Struct

from holdfast.clock import SECOND
from holdfast.money import to_usd

Scope = Literal["all", "agent", "release", "user", "run", "interaction", "model", "tool"]
Unit = Literal["usd", "calls", "tokens"]

WINDOWS = {"minute": 60 * SECOND, "hour": 3600 * SECOND, "day": 86_400 * SECOND, "month": 30 * 86_400 * SECOND}
"""Sliding windows by name, in nanoseconds; a month is 30 days."""


WATCH_ONLY = 2**62
"""Amount of a limit that only watches its marks: four billion dollars, which nothing reaches."""


class Limit(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Never more than `amount` in any window.

    scope: what is counted together. owner: the agent that declares the limit, "" for the whole installation: agent "support" with
    {usd: 5, per: hour, scope: user} counts each user of that agent apart. unit: "usd" in nano-dollars, "calls" (attempts at an API) or
    "tokens" (read and generated). per_ns: length of the sliding window, None for in total. marks: amounts that raise one event per
    window when reached.
    """

    scope: Scope
    unit: Unit
    amount: int
    per_ns: int | None = None
    owner: str = ""
    marks: tuple[int, ...] = ()

    @property
    def binding(self) -> bool:
        """Whether it can refuse; False for a mark to watch without a limit behind it."""
        return self.amount < WATCH_ONLY

    @property
    def paced(self) -> bool:
        """Whether it is worth foretelling when it will be reached: not for what is over within minutes, or counted without a window."""
        return self.binding and self.per_ns is not None and self.per_ns >= WINDOWS["hour"] and self.scope not in ("run", "interaction")

    def account(self, value: str) -> str:
        """The ledger's key for one counted thing: limits of the same scope, unit and window share what was spent."""
        return f"{self.owner}|{self.scope}={value}|{self.unit}|{self.per_ns or 'total'}"

    def describe(self, value: str) -> str:
        """For people: `agent support: 500.00 USD per day`."""
        amount = f"{to_usd(self.amount)} USD" if self.unit == "usd" else f"{self.amount} {self.unit}"
        window = next((name for name, length in WINDOWS.items() if length == self.per_ns), None)
        span = f"per {window}" if window else "in total" if self.per_ns is None else f"per {self.per_ns / SECOND:g} s"
        subject = "everything" if self.scope == "all" else f"{self.scope} {value}"
        return f"{subject}: {amount} {span}"


MARKS = (50, 80, 100)
"""Percent of a limit at which an event tells how far it is used, where its owner names no marks."""


def default_marks(scope: Scope, amount: int) -> tuple[int, ...]:
    """The amounts of `MARKS`; none for what is small and over soon: a run, an interaction."""
    if scope in ("run", "interaction"):
        return ()
    return tuple(sorted({-(-amount * percent // 100) for percent in MARKS} - {0}))


class LimitReached(Struct, frozen=True, kw_only=True):
    """The call must not run; nothing was spent on it. Amounts in the limit's unit.

    resets_at_ns: wall clock, when enough of the window will have passed for `asked` if no other call comes first; None: never.
    """

    limit: Limit
    value: str
    spent: int
    reserved: int
    asked: int
    resets_at_ns: int | None
