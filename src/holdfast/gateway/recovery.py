"""What is done about a failed attempt: another one at the same target, or the next target."""

from holdfast.errors import TimedOut
from holdfast.execution.attempt import AttemptResult
from holdfast.policy.retry import FALLBACK_STATUS, RETRYABLE_STATUS, RetryOptions, backoff_ns

ONCE = RetryOptions(max=0)
"""For what must not be done again."""


class Recovery:
    """Counts the retries of one call; `made` in all."""

    def __init__(self, options: RetryOptions) -> None:
        self._options = options
        self._here = 0
        self.made = 0

    @property
    def spent(self) -> bool:
        """Whether the retries that were due are done: the SDK's own would multiply them."""
        return self.made > 0 or not self._options.max

    def moved(self) -> None:
        """The next attempt is the first at another target."""
        self._here = 0

    def retry_in_ns(self, result: AttemptResult, left_ns: int, asked_ns: int | None, uniform: float, *, last: bool) -> int | None:
        """All retries at the last target; at most one, and no long wait, where another target can serve the call sooner.

        left_ns: until the whole call must have ended. asked_ns: how long the upstream asks to be left alone. None: no retry here; else
        one is counted.
        """
        if result.error is None and result.stream is None and result.status not in RETRYABLE_STATUS:
            return None
        wait_ns = backoff_ns(self._options, self.made, uniform, asked_ns, left_ns)
        if wait_ns is None:
            return None
        if not last and (self._here or isinstance(result.error, TimedOut) or wait_ns > self._options.base_ns):
            return None
        self.made += 1
        self._here += 1
        return wait_ns


def may_fall_back(result: AttemptResult) -> bool:
    """Whether another target may do better."""
    return result.error is not None or result.stream is not None or result.status in FALLBACK_STATUS
