"""A circuit breaker has changed its state: written once, by the process that made it change."""

from typing import Literal

from msgspec import Struct

from holdfast.events.instant import Instant

BreakerState = Literal["closed", "open", "half_open", "isolated"]


class BreakerChanged(Struct, frozen=True, kw_only=True, tag="breaker_changed", tag_field="kind", omit_defaults=True):
    """breaker: its name, `openai/gpt-5.1`. scope: what it stands before. calls: within its window when it changed; failure_rate, slow_rate:
    percent of them, None where there were none. until: wall clock at which an open one may be probed."""

    timestamp: Instant
    breaker: str
    scope: Literal["provider", "model", "key", "tool"]
    from_state: BreakerState
    to_state: BreakerState
    reason: str = ""
    calls: int = 0
    failure_rate: float | None = None
    slow_rate: float | None = None
    until: Instant | None = None
    author: str = ""
