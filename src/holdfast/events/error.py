"""An error: what went wrong, and what was done about it."""

from typing import Literal

from msgspec import Struct

from holdfast.events.instant import Instant

ErrorType = Literal[
    "parsing",
    "timeout",
    "auth",
    "rate_limit",
    "api_error",
    "connection",
    "refused",
    "limits_unavailable",
    "tool_error",
    "cancelled",
    "loop",
    "internal",
]
RecoveryAction = Literal[
    "retried",
    "fell_back",
    "continued",
    "hedged",
    "queued",
    "circuit_open",
    "loop_stopped",
    "canned",
    "refused",
    "rolled_back",
    "none",
]
DENIED: tuple[RecoveryAction, ...] = ("refused", "loop_stopped")
"""Those of calls that were not made, which count as refusals and not among the errors."""

Severity = Literal["critical", "warning", "info"]


class Error(Struct, frozen=True, kw_only=True, tag="error", tag_field="kind", omit_defaults=True):
    """One error. `full_traceback` is a Python traceback for errors of our own, the upstream's error body for errors of others."""

    error_id: str
    timestamp: Instant
    agent: str
    release: str = ""
    run: str = ""
    user_id: str = ""
    interaction: str = ""
    decision_id: str = ""
    call_id: str = ""
    error_type: ErrorType
    message: str
    full_traceback: str = ""
    recovery_action: RecoveryAction = "none"
    severity: Severity
