"""Retry allowance: retries are a share of the calls, so that an outage is not answered with a multiple of the traffic.

The retry budget of Finagle (twitter.github.io/finagle, `RetryBudget`): every call earns a share of a retry, and a few are free in any
while, so that a quiet agent can still retry.
"""

from holdfast.clock import SECOND

FREE = 10
"""Retries that no call has to earn, per `FREE_PER_NS`; also the most that are saved up beyond what was earned in the same time."""
FREE_PER_NS = 10 * SECOND

_CALL = 100 * FREE_PER_NS
"""One retry, in the unit that makes both ways of earning one exact."""


class RetryAllowance:
    """share: retries that a hundred calls earn. Never more retries than `2 * FREE + share * calls / 100 + FREE * t / FREE_PER_NS` in any
    time `t` with so many calls in it."""

    def __init__(self, share: int, now_ns: int) -> None:
        self._earned = share * FREE_PER_NS
        self._most = 2 * FREE * _CALL
        self._left = FREE * _CALL
        self._at_ns = now_ns

    def called(self) -> None:
        """A call has begun."""
        self._left = min(self._most, self._left + self._earned)

    def take(self, now_ns: int) -> bool:
        """Whether one more retry may be made at `now_ns` (monotonic); it then counts."""
        self._left = min(self._most, self._left + (now_ns - self._at_ns) * FREE * 100)
        self._at_ns = now_ns
        if self._left < _CALL:
            return False
        self._left -= _CALL
        return True
