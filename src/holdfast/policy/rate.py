"""Rates as written down, and GCRA: whether a call may pass now, or how long it has to wait.

GCRA is the generic cell rate algorithm (ITU-T I.371, in its virtual scheduling form). A bucket is one number, its theoretical arrival
time (TAT): when it would be whole again if nothing more came. It is counted in ticks, of which `Rate.amount` make a nanosecond, so that
the time that one unit costs is a whole number of ticks and nothing is ever rounded: over a year no call is lost and none is won.
"""

from typing import Literal

from msgspec import Struct

from holdfast.clock import SECOND
from holdfast.policy.limit import Scope

RateScope = Scope | Literal["provider"]
RateUnit = Literal["requests", "tokens"]
OnExcess = Literal["wait", "refuse"]

PERIODS = {"second": SECOND, "minute": 60 * SECOND, "hour": 3600 * SECOND}

MOST_TAKEN_NS = 1 << 61
"""What one call can take, 73 years: an absurd rate (one token per hour) and a large call must not overflow 64 bits."""
MOST_DEBT_NS = 86_400 * SECOND
"""How far a bucket may be closed by what calls used beyond their estimate: a provider that reports nonsense must not close it for good."""


class Rate(Struct, frozen=True, kw_only=True, cache_hash=True):
    """`amount` per `per_ns`, of which `burst` may come at once: never more than burst + amount * t / per_ns within any time t.

    scope: what is counted together. owner: the agent or provider that declares it, "" for the whole installation. unit: "requests" are
    attempts at a provider, "tokens" read and generated ones. max_wait_ns: how long a call may wait for its turn.
    """

    scope: RateScope
    unit: RateUnit
    amount: int
    per_ns: int
    burst: int
    owner: str = ""
    on_excess: OnExcess = "wait"
    max_wait_ns: int = 60 * SECOND

    @property
    def of_target(self) -> bool:
        """Whether another target of the route is counted elsewhere."""
        return self.scope in ("model", "provider") or self.owner.startswith("provider ")

    def account(self, value: str) -> str:
        """The bucket's name for one counted thing. With the figures in it: a bucket's number means nothing under others."""
        return f"{self.owner}|{self.scope}={value}|{self.unit}|{self.amount}/{self.per_ns}+{self.burst}"

    def describe(self, value: str) -> str:
        """For people: `user ann: 60 requests per minute, 6 at once`."""
        period = next((name for name, length in PERIODS.items() if length == self.per_ns), f"{self.per_ns / SECOND:g} s")
        subject = "everything" if self.scope == "all" else f"{self.scope} {value}"
        return f"{subject}: {self.amount} {self.unit} per {period}, {self.burst} at once"


def take(rate: Rate, tat: int, now_ns: int, cost: int) -> tuple[int, int]:
    """The bucket after a call of `cost` units, and 0; or the bucket as it was, and in how many nanoseconds that call may pass.

    A call larger than the burst passes when the bucket is whole, and those after it wait until it is paid for.
    """
    now = now_ns * rate.amount
    start = max(tat, now)
    excess = start - now - max(0, rate.burst - cost) * rate.per_ns
    if excess > 0:
        return tat, -(-excess // rate.amount)
    return start + min(cost * rate.per_ns, MOST_TAKEN_NS * rate.amount), 0


def correct(rate: Rate, tat: int, now_ns: int, change: int) -> int:
    """The bucket after a call that used `change` units more than it took (or less, below zero).

    What comes back counts from now on: taken less given back never exceeds burst + amount * t / per_ns either.
    """
    if change <= 0:
        return max(0, tat + change * rate.per_ns)
    most = now_ns * rate.amount + rate.burst * rate.per_ns + MOST_DEBT_NS * rate.amount
    return min(max(tat, now_ns * rate.amount) + change * rate.per_ns, max(tat, most))
