"""What is done about a failed attempt: another one at the same target, or the next target."""

from holdfast.clock import Clock
from holdfast.errors import TimedOut
from holdfast.execution.attempt import AttemptResult
from holdfast.gateway.options import FallbackOptions
from holdfast.policy.retry import FALLBACK_STATUS, RETRYABLE_STATUS, RetryOptions, backoff_ns
from holdfast.policy.retry_allowance import RetryAllowance
from holdfast.wire.call import Answer
from holdfast.wire.declined import filtered, too_long
from holdfast.wire.quota import retry_after_ns


class RetryAllowances:
    """The allowances of this process, one per agent and provider, which come from the configuration."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str], RetryAllowance] = {}

    def of(self, agent: str, provider: str, share: int) -> RetryAllowance:
        key = agent, provider
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = RetryAllowance(share, self._clock.monotonic_ns())
        return found


class Recovery:
    """Counts the retries of one call; `made` in all, with those that the agent's SDK says it made of the same call."""

    def __init__(self, options: RetryOptions, by_sdk: int = 0) -> None:
        self._options = options
        self._here = 0
        self._allowance: RetryAllowance | None = None
        self._anew = False
        self.made = by_sdk

    @property
    def spent(self) -> bool:
        """Whether the retries that were due are done: the SDK's own would multiply them."""
        return self.made > 0 or self._anew or not self._options.max

    def moved(self) -> None:
        """The next attempt is the first at another target."""
        self._here = 0

    def renew(self) -> None:
        """The call has waited, and begins anew."""
        self.made = self._here = 0
        self._anew = True

    def begins(self, allowance: RetryAllowance) -> None:
        """An attempt begins, whose retries `allowance` has to allow; the first at a target earns a share of one."""
        self._allowance = allowance
        if not self._here:
            allowance.called()

    def retry_in_ns(self, result: AttemptResult, left_ns: int, clock: Clock, uniform: float, *, last: bool) -> int | None:
        """All retries at the last target; at most one, and no long wait, where another target can serve the call sooner.

        left_ns: until the whole call must have ended. None: no retry here; else one is counted.
        """
        if result.error is None and result.stream is None and result.status not in RETRYABLE_STATUS:
            return None
        wait_ns = backoff_ns(self._options, self.made, uniform, retry_after_ns(result.headers, clock.wall_ns()), left_ns)
        if wait_ns is None:
            return None
        if not last and (self._here or isinstance(result.error, TimedOut) or wait_ns > self._options.base_ns):
            return None
        if self._allowance is None or not self._allowance.take(clock.monotonic_ns()):
            return None
        self.made += 1
        self._here += 1
        return wait_ns


def may_fall_back(result: AttemptResult, answer: Answer | None, options: FallbackOptions) -> bool:
    """Whether another target may do better."""
    if result.error is not None or result.stream is not None or result.status in FALLBACK_STATUS:
        return True
    return too_long(result.status, result.body) or (options.content_filter and filtered(result.status, result.body, answer))


def is_declined(result: AttemptResult, answer: Answer, options: FallbackOptions) -> bool:
    """Whether a whole answer is one that another target is to be asked for instead."""
    return options.content_filter and not result.committed and filtered(result.status, result.body, answer)
