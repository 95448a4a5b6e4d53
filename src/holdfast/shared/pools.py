"""What is known of providers' own rate limits, in memory that all processes of a data directory share.

A pool is known once the provider has spoken of it; calls to one of which nothing is known cost a look at one word. Each answer tells what
was left when its request was counted; what was sent since then, by any process, is taken off again.
"""

from collections.abc import Sequence

from holdfast.execution.turn import Costs, Mark, Pool
from holdfast.policy.meter import Meter, learn, sent, wait_ns
from holdfast.shared.private_memory import Memory
from holdfast.wire.quota import QUOTA_UNITS, Quota

PLACES = 1 << 10
"""Pools that are known at a time; the one that was used the longest ago gives way."""

PROBED = 16
_METER = 6
"""Words of one meter: units sent since the beginning, units sent when the last answer's request was counted, and those of `Meter`."""
_METERS = 4
WORDS = _METERS + 4 * _METER
"""Of a place, 64 bits each: the digest's two halves, until when it is closed, when it was last used, and a meter of each unit."""

SIZE = 8 + 8 * WORDS * (PLACES + PROBED)
KIND = "pools 1"


class PoolTable:
    """Implements `holdfast.execution.turn.PoolTable` in `memory` of `SIZE` bytes, all zero at first. Its first word counts the pools that
    became known."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._words = memory.view.cast("q")

    def send(self, pool: Pool, costs: Costs, now_ns: int) -> tuple[int, Mark | None]:
        words = self._words
        if not self.knows(pool):
            return 0, None
        with self._memory.locked(0, 8):
            at = self._find(pool)
            if at < 0:
                pool.seen = words[0]
                return 0, None
            words[at + 3] = now_ns
            meters = [(base, self._meter(base), cost) for base, cost in zip(_bases(at), costs, strict=True)]
            waits = [wait_ns(meter, cost, now_ns) for _, meter, cost in meters if meter is not None and cost]
            wait = max(0, words[at + 2] - now_ns, *waits)
            if wait:
                return wait, None
            for base, meter, cost in meters:
                self._count(base, meter, cost, now_ns)
            first, second, third, fourth = (words[base] for base, _, _ in meters)
            return 0, (first, second, third, fourth)

    def knows(self, pool: Pool) -> bool:
        return pool.seen != self._words[0]

    def unsend(self, pool: Pool, costs: Costs, now_ns: int) -> None:
        with self._memory.locked(0, 8):
            at = self._find(pool)
            if at >= 0:
                for base, cost in zip(_bases(at), costs, strict=True):
                    self._count(base, self._meter(base), -cost, now_ns)

    def learn(self, pool: Pool, mark: Mark | None, quotas: Sequence[Quota], now_ns: int) -> None:
        words = self._words
        with self._memory.locked(0, 8):
            at = self._claim(pool, now_ns)
            for quota in quotas:
                number = QUOTA_UNITS.index(quota.unit)
                base = at + _METERS + number * _METER
                counted = words[base] if mark is None else mark[number]
                if counted < words[base + 1]:  # the answer to an earlier request, overtaken by a later one's
                    continue
                meter = learn(quota, max(0, words[base] - counted), now_ns)
                words[base + 1] = counted
                self._write(base, meter)

    def close(self, pool: Pool, until_ns: int) -> None:
        with self._memory.locked(0, 8):
            at = self._claim(pool, until_ns)
            self._words[at + 2] = max(until_ns, self._words[at + 2])

    def release(self) -> None:
        """Let go of the memory, which stays."""
        self._words.release()
        self._memory.close()

    def _find(self, pool: Pool) -> int:
        words, high, low = self._words, _signed(pool.high), _signed(pool.low)
        at = pool.place
        if at >= 0 and words[at] == high and words[at + 1] == low:
            return at
        for at in _places(pool):
            if words[at] == high and words[at + 1] == low:
                pool.place = at
                return at
        return -1

    def _claim(self, pool: Pool, now_ns: int) -> int:
        at = self._find(pool)
        if at >= 0:
            return at
        words = self._words
        at = min(_places(pool), key=lambda place: words[place + 3] if words[place] else -1)
        words[at] = 0  # nobody's, should this process die before the end of the next lines
        for word in range(at + 1, at + WORDS):
            words[word] = 0
        words[at + 3] = now_ns
        words[at + 1] = _signed(pool.low)
        words[at] = _signed(pool.high)
        words[0] += 1
        pool.place = at
        return at

    def _meter(self, base: int) -> Meter | None:
        words = self._words
        limit = words[base + 2]
        return Meter(limit, words[base + 3], words[base + 4], words[base + 5]) if limit else None

    def _write(self, base: int, meter: Meter | None) -> None:
        words = self._words
        words[base + 2] = 0
        if meter is not None:
            words[base + 3], words[base + 4], words[base + 5] = meter.left, meter.whole_ns, meter.unit_ns
            words[base + 2] = meter.limit

    def _count(self, base: int, meter: Meter | None, cost: int, now_ns: int) -> None:
        self._words[base] += cost
        if meter is not None and cost:
            self._write(base, sent(meter, cost, now_ns))


def _bases(at: int) -> range:
    return range(at + _METERS, at + WORDS, _METER)


def _places(pool: Pool) -> range:
    home = 1 + (pool.low % PLACES) * WORDS
    return range(home, home + PROBED * WORDS, WORDS)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
