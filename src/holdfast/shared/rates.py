"""The buckets of rates in memory that all processes of a data directory share: exact across them, whole after kill -9, bounded.

An open-addressing table: a bucket lies in one of the `PROBED` places from its digest on. A bucket that is whole says nothing that an
absent one would not, so its place is free for others and nothing is ever deleted. One lock for the table: a call draws on several buckets
at the same instant or on none, and two system calls cost more than all the arithmetic under them.
"""

from collections.abc import Sequence

from holdfast.execution.turn import Bucket, Draw
from holdfast.policy.rate import correct, take
from holdfast.shared.private_memory import Memory

PLACES = 1 << 17
"""Buckets that are not whole at the same time, all processes together."""

PROBED = 16
WORDS = 4
"""Of a place, 64 bits each: the digest's two halves, whole nanoseconds of the TAT, and its rest in ticks. Written one by one: a process
that dies between two of them leaves a TAT that is less than a nanosecond off, or a bucket that is whole."""

SIZE = 8 * WORDS * (PLACES + PROBED)
KIND = "rates 1"


class RateTable:
    """Implements `holdfast.execution.turn.RateTable` in `memory` of `SIZE` bytes, all zero at first."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._words = memory.view.cast("Q")

    def take(self, draws: Sequence[Draw], now_ns: int) -> tuple[Bucket, int] | None:
        words = self._words
        found: list[tuple[int, int, int]] = []
        worst: tuple[bool, int] = (False, 0)
        blocked: Bucket | None = None
        with self._memory.locked(0, 8):
            for bucket, cost in draws:
                rate = bucket.rate
                at, wait = self._place(bucket, now_ns)
                if at >= 0:
                    tat, wait = take(rate, words[at + 2] * rate.amount + words[at + 3], now_ns, cost)
                    found.append((at, *divmod(tat, rate.amount)))
                if wait and (rate.on_excess == "refuse", wait) > worst:
                    worst, blocked = (rate.on_excess == "refuse", wait), bucket
            if blocked is None:
                for at, whole, rest in found:
                    words[at + 2], words[at + 3] = whole, rest
        return None if blocked is None else (blocked, worst[1])

    def correct(self, bucket: Bucket, change: int, now_ns: int) -> None:
        words, amount = self._words, bucket.rate.amount
        with self._memory.locked(0, 8):
            at, _ = self._place(bucket, now_ns)
            if at >= 0:
                tat = correct(bucket.rate, words[at + 2] * amount + words[at + 3], now_ns, change)
                words[at + 2], words[at + 3] = divmod(tat, amount)

    def release(self) -> None:
        """Let go of the memory, which stays."""
        self._words.release()
        self._memory.close()

    def _place(self, bucket: Bucket, now_ns: int) -> tuple[int, int]:
        """Where the bucket is, claimed for it where it was nowhere; -1 and how long until a place is free when there is none."""
        words, high, low = self._words, bucket.high, bucket.low
        at = bucket.place
        if at >= 0 and words[at] == high and words[at + 1] == low:
            return at, 0
        home = (low % PLACES) * WORDS
        free, first_free_ns = -1, 1 << 63
        for at in range(home, home + PROBED * WORDS, WORDS):
            if words[at] == high and words[at + 1] == low:
                bucket.place = at
                return at, 0
            if free < 0:
                if not words[at] or words[at + 2] < now_ns:
                    free = at
                else:
                    first_free_ns = min(first_free_ns, words[at + 2])
        if free < 0:
            return -1, first_free_ns - now_ns + 1
        words[free + 2] = now_ns  # whole, and from this instant not free for another of the same call
        words[free + 3] = 0
        words[free], words[free + 1] = high, low
        bucket.place = free
        return free, 0
