"""Retry: whether and when a failed attempt is tried again. Full jitter (Brooker, AWS Architecture Blog 2015)."""

from msgspec import Struct

from holdfast.clock import MILLISECOND, SECOND

RETRYABLE_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""What the official SDKs retry (408, 409, 429, >= 500), less the 5xx that cannot get better; 529 is Anthropic's "overloaded"."""

FALLBACK_STATUS = RETRYABLE_STATUS | {401, 402, 403, 404}
"""What another target may serve although this one will not: also a revoked key, an empty account, a removed model."""


class RetryOptions(Struct, frozen=True, kw_only=True):
    """max: retries of one call, >= 0, all targets together, those of the agent's SDK included. share: retries per call of all calls
    together, in percent. base_ns, cap_ns: the first back-off and the longest, before jitter."""

    max: int = 2
    share: int = 20
    base_ns: int = 500 * MILLISECOND
    cap_ns: int = 8 * SECOND


def backoff_ns(options: RetryOptions, retries_done: int, jitter: float, retry_after_ns: int | None, left_ns: int) -> int | None:
    """How long to wait before the next attempt, or None when there must be none.

    retries_done: retries of this call so far. jitter: uniform in [0, 1). retry_after_ns: what the upstream asked for, honoured in
    full. left_ns: what is left of the total time-out; a wait that would not fit is not begun.
    """
    if retries_done >= options.max:
        return None
    wait = int(min(options.cap_ns, options.base_ns << min(retries_done, 30)) * jitter)
    if retry_after_ns is not None:
        wait = max(wait, retry_after_ns)
    return wait if wait < left_ns else None
