"""Slow start: how fast those who wait for something are let out once it may be back.

While it is thought dead one call goes out as a probe, after a back-off with full jitter (Brooker, AWS Architecture Blog 2015) that doubles
with every probe that fails, and never before the end of a cooldown that was asked for. Once an answer came calls go out in rounds: one in
the first, and twice as many after every round in which another answer came. A failure halves a round; the second in a row ends them.
"""

from holdfast.clock import MILLISECOND, SECOND

ROUND_NS = 100 * MILLISECOND
LARGEST_ROUND = 32
"""Calls; with `ROUND_NS` the fastest release of one process: 320 calls per second."""

BASE_NS, CAP_NS = SECOND, 15 * SECOND
"""The first back-off and the longest, before jitter."""

PATIENCE_NS = 2 * SECOND
"""A probe that says nothing for so long is not waited for alone: long answers are no sign of an outage."""


class SlowStart:
    """cooldown_ns: monotonic instant before which nothing is let out, as somebody who knows has asked for. size: of a round, 0 while the
    thing is thought dead. began_ns, everywhere: when the attempt began that tells something; what began before the present state tells
    nothing about it. jitter: uniform in [0, 1)."""

    __slots__ = ("_answered", "_failures", "_next_ns", "_over_ns", "_probing", "_room", "_since_ns", "cooldown_ns", "size")

    def __init__(self, now_ns: int, jitter: float) -> None:
        self.cooldown_ns = now_ns
        self.size = 0
        self._room = 0
        self._answered = False
        self._probing = False
        self._failures = 0
        self._next_ns = self._over_ns = self._since_ns = now_ns
        self._close(now_ns, jitter)

    def wait_ns(self, now_ns: int) -> int:
        """How long until one may be let out, 0: now."""
        if self.size and self._room:
            return 0
        return max(0, self._next_ns - now_ns, self.cooldown_ns - now_ns)

    def let_out(self, now_ns: int) -> None:
        """One goes out; only where `wait_ns` is 0."""
        if not self.size:
            self._probing = True
            self._next_ns, self._over_ns = now_ns + PATIENCE_NS, now_ns + ROUND_NS
            return
        if now_ns >= self._next_ns:
            if self._answered:
                self.size = min(2 * self.size, LARGEST_ROUND)
            self._answered = False
            self._room = self.size
            self._next_ns = self._over_ns = now_ns + ROUND_NS
        self._room -= 1

    def unused(self, now_ns: int) -> None:
        """One that was let out did not try: another may in its place."""
        if self.size:
            self._room = min(self._room + 1, self.size)
        elif self._probing:
            self._probing = False
            self._next_ns = now_ns

    def turned_away(self, now_ns: int, jitter: float) -> None:
        """One that was let out was not let through by somebody else: that tells nothing about the thing, but nobody is to storm it."""
        self._room = 0
        self._probing = False
        self._next_ns = now_ns + pause_ns(0, jitter)

    def answered(self, now_ns: int, began_ns: int) -> None:
        """It answers: somebody's call has seen so."""
        if began_ns < self._since_ns:
            return
        self._failures = 0
        self._answered = True
        if not self.size:
            self.size = 1
            self._room = 0
            self._answered = False
            self._since_ns = self.cooldown_ns = now_ns
            self._next_ns = max(now_ns, self._over_ns)

    def failed(self, now_ns: int, began_ns: int, jitter: float) -> None:
        """It did not answer somebody."""
        if began_ns < self._since_ns:
            return
        if self.size:
            self.size //= 2
            self._room = min(self._room, self.size)
            self._answered = False
            if self._failures or not self.size:
                self._close(now_ns, jitter)
            else:
                self._failures = 1
        elif self._probing:
            self._close(now_ns, jitter)

    def cool_down(self, now_ns: int, until_ns: int) -> None:
        """Nobody is to be let out before then, unless somebody's call is answered."""
        if self.size:
            self.size = 0
            self._since_ns = now_ns
        self.cooldown_ns = max(self.cooldown_ns, until_ns)

    def _close(self, now_ns: int, jitter: float) -> None:
        self.size = 0
        self._probing = False
        self._since_ns = now_ns
        self._next_ns = now_ns + pause_ns(self._failures, jitter)
        self._failures += 1


def pause_ns(failures: int, jitter: float) -> int:
    """The back-off after so many failures before this one."""
    return max(ROUND_NS, int(min(CAP_NS, BASE_NS << min(failures, 30)) * jitter))
