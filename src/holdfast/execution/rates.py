"""Rates that hold: lets a call pass when every rate that it draws on and the provider's own limits have room, in the order of asking.

A call that waits holds nothing: neither money nor a part of another rate. Of each line only the first is looked at, by one timer, when it
may pass; across processes the firsts of their lines compete for the next place, so there is no stampede however many wait.
"""

from bisect import insort
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from holdfast.clock import MILLISECOND, SECOND, Clock
from holdfast.execution.turn import Bucket, Costs, Draw, Excess, Line, Mark, Pool, PoolTable, RateTable, Turn
from holdfast.policy.expectation import Expectations
from holdfast.policy.rate import Rate, RateScope
from holdfast.wire.quota import Quota

MOST_WAITING = 1_000
"""Calls of one process that may wait at a time; each of them keeps its request in memory."""

MOST_LINES = 20_000
"""Buckets, and pools, that a process remembers."""
_MAX_NAME = 512
"""Longer ones are not remembered: agents name models, of any length."""

ROUND_NS = 50 * MILLISECOND
"""A provider that was closed is not stormed when it opens: one call goes out, a round later two, then four, until one is turned away."""

LONGEST_CLOSED_NS = 3600 * SECOND
"""How long a provider's wish to be left alone is heeded before a call finds out whether it still holds."""

Done = Callable[[Turn | Excess], None]


class Rates:
    """One per gateway; everything happens on the caller's thread.

    waiting: how many calls do.
    """

    def __init__(self, table: RateTable, pools: PoolTable, clock: Clock) -> None:
        self.waiting = 0
        self.expectations = Expectations()
        self._table = table
        self._pool_table = pools
        self._clock = clock
        self._buckets: dict[tuple[Rate, str], Bucket] = {}
        self._pools: dict[tuple[str, str], Pool] = {}
        self._numbers = 0

    def draws(self, rates: Sequence[Rate], values: dict[RateScope, str], costs: Costs) -> list[Draw]:
        """The buckets that a call draws on: a rate on something that it does not have (no run, no model) does not count it."""
        found: list[Draw] = []
        for rate in rates:
            value = values.get(rate.scope)
            cost = costs[0] if rate.unit == "requests" else costs[1]
            if value is not None and cost:
                found.append((self._buckets.get((rate, value)) or self._open(rate, value), cost))
        return found

    def pool(self, label: str, key: str) -> Pool:
        """What the provider counts together: `key`'s calls to `label`, a provider's model."""
        pool = self._pools.get((label, key))
        if pool is None:
            pool = Pool(label, key)
            if len(label) <= _MAX_NAME:
                _forget(self._pools)
                self._pools[label, key] = pool
        return pool

    def is_unheard(self, pool: Pool) -> bool:
        """Whether a pool limits nobody, as far as anybody knows."""
        return not self._pool_table.knows(pool)

    def ask(self, turn: Turn, done: Done) -> None:
        """`done` is called, before this returns where nothing must be awaited, with the turn when it may go on or why it must not."""
        turn.rates = self
        turn.asked_ns = now = self._clock.monotonic_ns()
        self._numbers = turn.number = self._numbers + 1
        ahead = self._line_ahead(turn) if self.waiting else None
        blocked = self._try(turn, now) if ahead is None else (ahead, max(0, ahead.due_ns - now))
        outcome = turn if blocked is None else self._join(turn, *blocked, now)
        turn.done = done
        if outcome is not None:
            turn.end_wait(outcome)

    def heard(self, pool: Pool, mark: Mark | None, quotas: Sequence[Quota], closed_ns: int | None) -> None:
        """What the provider said of its own limits in its answer to the call with this mark. closed_ns: how long it asked to be left alone,
        None: it did not."""
        now = self._clock.monotonic_ns()
        if quotas:
            self._pool_table.learn(pool, mark, quotas, now)
        if closed_ns:
            self._pool_table.close(pool, now + min(closed_ns, LONGEST_CLOSED_NS))
            if pool.queue:  # who cannot wait so long is told now
                self._arm(pool, 0)

    def settle(self, turn: Turn, used: tuple[int, int] | None) -> None:
        """Correct what was taken by what was used; `Turn.settle` calls this once."""
        if used is not None:
            change = used[0] + used[1] - turn.costs[1]
            self._correct([(bucket, change) for bucket, _ in turn.draws if bucket.rate.unit == "tokens" and change])

    def cancel(self, turn: Turn) -> None:
        """Give everything back; `Turn.cancel` calls this once."""
        self._correct([(bucket, -cost) for bucket, cost in turn.draws])
        if turn.pool is not None and turn.mark is not None:
            self._pool_table.unsend(turn.pool, turn.costs, self._clock.monotonic_ns())

    def leave(self, turn: Turn) -> None:
        """Take a turn out of its queue; those behind it move up."""
        line = turn.line
        if line is None:
            return
        self._take_out(turn, line)
        if line.queue and not line.timer:
            self._arm(line, 0)

    def _open(self, rate: Rate, value: str) -> Bucket:
        bucket = Bucket(rate, value)
        if len(value) <= _MAX_NAME:
            _forget(self._buckets)
            self._buckets[rate, value] = bucket
        return bucket

    def _line_ahead(self, turn: Turn) -> Line | None:
        """A line in which others wait already: nobody passes them."""
        if turn.pool is not None and turn.pool.queue:
            return turn.pool
        return next((bucket for bucket, _ in turn.draws if bucket.queue), None)

    def _try(self, turn: Turn, now: int) -> tuple[Line, int] | None:
        """Pass now, or be told what is in the way and for how long; then nothing was taken."""
        pool = turn.pool
        if pool is not None:
            wait, mark = self._pool_table.send(pool, turn.costs, now)
            if wait:
                return pool, wait
            turn.mark = mark
        blocked = self._table.take(turn.draws, now) if turn.draws else None
        if blocked is None:
            turn.passed = True
            turn.waited_ns = now - turn.asked_ns
        elif pool is not None and turn.mark is not None:
            self._pool_table.unsend(pool, turn.costs, now)
        return blocked

    def _join(self, turn: Turn, line: Line, wait: int, now: int) -> Excess | None:
        """Into the queue of what is in the way, where the call may wait so long."""
        if line.limit is not None and line.limit.on_excess == "refuse":
            return Excess(line, wait, "refuse")
        expected, until = self._expected_ns(turn, line, now + wait), turn.latest_ns(line)
        if expected >= until:
            return Excess(line, expected - now, "no_room")
        if self.waiting >= MOST_WAITING:
            return Excess(line, expected - now, "crowded")
        turn.line, turn.cost_here = line, turn.cost(line)
        turn.waited_for = line
        turn.expiry = self._clock.call_later(until - now, partial(self._expire, turn))
        self.waiting += 1
        line.queued += turn.cost_here
        insort(line.queue, turn)
        if line.queue[0] is turn:
            self._arm(line, wait)
        return None

    def _expected_ns(self, turn: Turn, line: Line, first_ns: int) -> int:
        """When it will be its turn, as far as this process knows: others may come between."""
        queue = line.queue
        if not queue or turn < queue[0]:
            return first_ns
        rate = line.limit
        if rate is None:
            return line.due_ns
        last = queue[-1] < turn  # nearly always; others come from another line
        ahead = line.queued if last else sum(other.cost_here for other in queue if other < turn)
        return line.due_ns + (ahead - queue[0].cost_here + turn.cost(line)) * rate.per_ns // rate.amount

    def _arm(self, line: Line, wait: int) -> None:
        """Look at the first in the queue then; not more often than once a millisecond, and then at as many as may pass."""
        if line.timer is not None:
            line.timer.cancel()
        wait = max(wait, MILLISECOND)
        line.due_ns = self._clock.monotonic_ns() + wait
        line.timer = self._clock.call_later(wait, partial(self._serve, line))

    def _serve(self, line: Line) -> None:
        """Let pass who may, first come first served."""
        line.timer = None
        now = self._clock.monotonic_ns()
        outcomes: list[tuple[Turn, Turn | Excess]] = []
        at_once = line.at_once
        while line.queue:
            if at_once == 0:
                line.at_once = min(2 * line.at_once, MOST_WAITING)
                self._arm(line, ROUND_NS)
                break
            turn = line.queue[0]
            blocked = self._try(turn, now)
            if blocked is not None and blocked[0] is line and now + blocked[1] < turn.latest_ns(line):
                line.at_once = line.at_first
                self._arm(line, blocked[1])
                break
            self._take_out(turn, line)
            at_once -= 1
            outcome = turn if blocked is None else self._join(turn, *blocked, now)
            if outcome is not None:
                outcomes.append((turn, outcome))
        self._deliver(outcomes)

    def _deliver(self, outcomes: list[tuple[Turn, Turn | Excess]]) -> None:
        """Once the queue is in order: from inside its `done` a call may ask again, and another leave."""
        for turn, outcome in outcomes:
            if not turn.over:
                turn.end_wait(outcome)

    def _expire(self, turn: Turn) -> None:
        """It has waited as long as it may."""
        line = turn.line
        assert line is not None
        after = max(MILLISECOND, line.due_ns - self._clock.monotonic_ns())
        self.leave(turn)
        turn.end_wait(Excess(line, after, "no_room"))

    def _take_out(self, turn: Turn, line: Line) -> None:
        first = line.queue[0] is turn
        line.queue.remove(turn)
        line.queued -= turn.cost_here
        if not line.queue:
            line.at_once = line.at_first
        self.waiting -= 1
        turn.line = None
        if turn.expiry is not None:
            turn.expiry.cancel()
            turn.expiry = None
        if first and line.timer is not None:
            line.timer.cancel()
            line.timer = None

    def _correct(self, changes: list[Draw]) -> None:
        now = self._clock.monotonic_ns()
        for bucket, change in changes:
            self._table.correct(bucket, change, now)
            if change < 0 and bucket.queue:
                self._arm(bucket, 0)


def _forget(lines: dict[Any, Any]) -> None:
    """Make room once there are too many: those in which nobody waits are found again by their names."""
    if len(lines) >= MOST_LINES:
        for key in [key for key, line in lines.items() if not line.queue]:
            del lines[key]
