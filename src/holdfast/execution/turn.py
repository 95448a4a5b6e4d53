"""What a call passes before it is sent: the buckets of its rates and the provider's own limits, each with the calls that wait for it."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Literal, Protocol

from msgspec import Struct

from holdfast.clock import Timer
from holdfast.policy.rate import Rate
from holdfast.wire.quota import Quota

Costs = tuple[int, int, int, int]
"""What a call is expected to use, in the order of `holdfast.wire.quota.QUOTA_UNITS`: requests, tokens, input and output tokens."""


class Line:
    """Something that calls wait for, in the order in which they came.

    high, low: its name by digest. place: where a table keeps it; seen: how much the table held when it was not there. queued: what those in
    the queue take together. due_ns: when the first of them is looked at again. at_once: how many may pass in one round. limit: the rate,
    None where it is the provider's own. subject: what is counted, for people.
    """

    at_first = 1 << 30
    __slots__ = ("at_once", "due_ns", "high", "limit", "low", "place", "queue", "queued", "seen", "subject", "timer")

    def __init__(self, name: str, limit: Rate | None, subject: str) -> None:
        self.limit = limit
        self.subject = subject
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self.high = int.from_bytes(digest[:8], "little") | 1  # never zero: zero is an empty place
        self.low = int.from_bytes(digest[8:], "little")
        self.place = -1
        self.seen = 0
        self.queue: list[Turn] = []
        self.queued = 0
        self.at_once = self.at_first
        self.timer: Timer | None = None
        self.due_ns = 0

    def describe(self) -> str:
        """For people: the rate, or the provider whose own limit it is."""
        return f"{self.subject}: the provider's own rate limit" if self.limit is None else self.limit.describe(self.subject)


class Bucket(Line):
    """What one rate counts together, such as one user's requests."""

    __slots__ = ("rate",)

    def __init__(self, rate: Rate, value: str) -> None:
        super().__init__(rate.account(value), rate, value)
        self.rate = rate


class Pool(Line):
    """What a provider counts together: the calls of one key to one model. label: `provider/model`."""

    at_first = 1
    __slots__ = ()

    def __init__(self, label: str, key: str) -> None:
        super().__init__(f"{len(label)}|{label}|{key}", None, label)


Draw = tuple[Bucket, int]
Mark = tuple[int, int, int, int]
"""What had been sent to a pool, this call included, in the order of `Costs`."""


class RateTable(Protocol):
    """Buckets that all processes of a data directory share."""

    def take(self, draws: Sequence[Draw], now_ns: int) -> tuple[Bucket, int] | None:
        """Take every draw, or none: then the bucket that stands in the way the longest (one that refuses before one that lets wait) and
        for how many nanoseconds. now_ns: monotonic."""

    def correct(self, bucket: Bucket, change: int, now_ns: int) -> None:
        """A call used `change` more than it took, or less (below zero)."""


class PoolTable(Protocol):
    """What is known of providers' own limits, shared likewise."""

    def send(self, pool: Pool, costs: Costs, now_ns: int) -> tuple[int, Mark | None]:
        """Count a call as sent, and 0; or for how many nanoseconds the pool is closed to it. The mark: None of a pool never heard of."""

    def unsend(self, pool: Pool, costs: Costs, now_ns: int) -> None:
        """It was not sent after all."""

    def knows(self, pool: Pool) -> bool:
        """False when nothing was heard of it for sure."""

    def learn(self, pool: Pool, mark: Mark | None, quotas: Sequence[Quota], now_ns: int) -> None:
        """What the provider said in its answer to the call with this mark."""

    def close(self, pool: Pool, until_ns: int) -> None:
        """It asked to be left alone until then."""


class Excess(Struct, frozen=True):
    """The call must not run now; nothing was spent on it. line: what is in the way. retry_after_ns: when it might pass. why: "refuse" is
    what the rate says; no_room: it would wait longer than it may; crowded: too many wait already."""

    line: Line
    retry_after_ns: int
    why: Literal["refuse", "no_room", "crowded"]


class Waits(Protocol):
    """The rates as their turns see them."""

    def leave(self, turn: "Turn") -> None: ...

    def settle(self, turn: "Turn", used: tuple[int, int] | None) -> None: ...

    def cancel(self, turn: "Turn") -> None: ...


class Turn:
    """One attempt's way through its lines. until_ns: how long it may wait; target_until_ns: for what belongs to its target alone.

    waited_ns: how long it did; waited_for: for what, None when it passed at once.
    """

    __slots__ = (
        *("asked_ns", "cost_here", "costs", "done", "draws", "expiry", "line", "mark", "number", "over", "passed", "pool", "rates"),
        *("target_until_ns", "until_ns", "waited_for", "waited_ns"),
    )

    def __init__(self, draws: Sequence[Draw], pool: Pool | None, costs: Costs, until_ns: int, target_until_ns: int) -> None:
        self.draws = draws
        self.pool = pool
        self.costs = costs
        self.until_ns = until_ns
        self.target_until_ns = target_until_ns
        self.rates: Waits
        self.done: Callable[[Turn | Excess], None] | None = None
        self.asked_ns = 0
        self.number = 0
        self.line: Line | None = None
        self.cost_here = 0
        self.expiry: Timer | None = None
        self.mark: Mark | None = None
        self.passed = False
        self.over = False
        self.waited_for: Line | None = None
        self.waited_ns = 0

    def __lt__(self, other: "Turn") -> bool:
        return self.number < other.number

    def latest_ns(self, line: Line) -> int:
        """How long it may wait in a line."""
        rate = line.limit
        until_ns = self.target_until_ns if rate is None or rate.of_target else self.until_ns
        return until_ns if rate is None else min(until_ns, self.asked_ns + rate.max_wait_ns)

    def cost(self, line: Line) -> int:
        """What it takes from a line."""
        return next((cost for bucket, cost in self.draws if bucket is line), 0)

    def settle(self, used: tuple[int, int] | None) -> None:
        """The attempt has ended. used: input and output tokens, None where they are not known: then what was expected stays counted."""
        if self.passed and not self.over:
            self.over = True
            self.rates.settle(self, used)

    def cancel(self) -> None:
        """Leave: out of the queue at once, or with everything given back where nothing was sent after it had passed."""
        if self.over:
            return
        self.over = True
        if self.passed:
            self.rates.cancel(self)
        else:
            self.rates.leave(self)
            self.done = None

    def end_wait(self, outcome: "Turn | Excess") -> None:
        """Tell whoever asked. It is forgotten before, for it knows this turn: together they would be garbage for the collector."""
        done, self.done = self.done, None
        self.over = self.over or outcome is not self
        if done is not None:
            done(outcome)
