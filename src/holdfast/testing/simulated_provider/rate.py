"""A rate limit as providers have them: a bucket of requests that refills steadily, and headers that tell what is left of it."""

from datetime import UTC, datetime

from holdfast.clock import SECOND
from holdfast.execution.upstream import Headers
from holdfast.wire.call import Family

_MINUTE = 60 * SECOND


class RequestRate:
    """per_minute: requests that fit into the full bucket, and come back to it in a minute."""

    def __init__(self, per_minute: int) -> None:
        self._full_ns = _MINUTE
        self._each_ns = _MINUTE // per_minute
        self._per_minute = per_minute
        self._whole_at_ns = 0

    def take(self, now_ns: int) -> int:
        """Take a request out; how long to wait for it where there is none left, else 0."""
        whole_at = max(self._whole_at_ns, now_ns) + self._each_ns
        if whole_at - now_ns > self._full_ns:
            return whole_at - now_ns - self._full_ns
        self._whole_at_ns = whole_at
        return 0

    def headers(self, family: Family, now_ns: int, wall_ns: int) -> Headers:
        """What is left, in the family's headers. now_ns: on the clock of `take`; wall_ns: the same instant, since the epoch."""
        missing_ns = max(self._whole_at_ns - now_ns, 0)
        left = (self._full_ns - missing_ns) // self._each_ns
        numbers = str(self._per_minute).encode(), str(min(left, self._per_minute)).encode()
        if family == "anthropic":
            whole = datetime.fromtimestamp((wall_ns + missing_ns) / SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
            names = [b"anthropic-ratelimit-requests-" + part for part in (b"limit", b"remaining", b"reset")]
        else:
            whole = f"{missing_ns // 1_000_000}ms".encode()
            names = [b"x-ratelimit-" + part + b"-requests" for part in (b"limit", b"remaining", b"reset")]
        return tuple(zip(names, (*numbers, whole), strict=True))
