"""What the end of an attempt says about the breakers of its target: each failure counts where it says something, and nowhere else."""

from msgspec import Struct

from holdfast.errors import ConnectFailed, TimedOut, UpstreamError, Withdrawn
from holdfast.execution.attempt import AttemptResult
from holdfast.policy.circuit_breaker import BreakerKind, Outcome

_REJECTED = frozenset({401, 402})
"""The key is unknown, or not paid for."""

_FORBIDDEN = 403
"""The key is revoked, with some providers; with others it may not use this model, or this prompt is one that nobody may send."""

_NEVER_RIGHT = frozenset({501, 505})
"""Of the 5xx those that say that the request is one for which this server was not made."""

_NO_CREDIT = b'"insufficient_quota"'
"""With which OpenAI rejects a key whose credit is used up, as a 429 that no waiting helps."""

_OWN_FAULTS = (b"rate_limit", b"invalid_request", b"content_filter", b"content_policy", b"context_length")
"""In an error event of a stream: the caller's own making, or a rate, which is waited for elsewhere."""

_LOOKED_AT = 16 * 1024


class Verdict(Struct, frozen=True):
    """By what is counted; None: it says nothing about that. A tool has only `tool`. sure: what is said of the key needs no second model."""

    provider: Outcome | None = None
    model: Outcome | None = None
    key: Outcome | None = None
    tool: Outcome | None = None
    sure: bool = False

    def of(self, kind: BreakerKind) -> Outcome | None:
        outcome: Outcome | None = getattr(self, kind)
        return outcome


SUCCEEDED = Verdict("success", "success", "success", "success")
NOTHING = Verdict()
_UNREACHED = Verdict(provider="failure", tool="failure")
_FAILED = Verdict(provider="suspicion", model="failure", tool="failure")
_KEY_REJECTED = Verdict(key="suspicion", sure=True)
_KEY_FORBIDDEN = Verdict(key="suspicion")
_KEY_ACCEPTED = Verdict(key="success")
_OWN_MAKING = Verdict(key="success", tool="success")


def verdict(result: AttemptResult, whole_ns: int) -> Verdict:
    """whole_ns: what the whole call was given; an attempt that got less than half of it for the waits before says nothing by running out
    of time. A 429 says nothing but that the key is known: rates have their own way (`holdfast.gateway.turns`)."""
    if result.error is not None:
        return _of_error(result.error, result, whole_ns)
    if result.stream is not None:
        return SUCCEEDED if result.stream.error is None else _of_event(result.stream.error)
    return SUCCEEDED if 200 <= result.status < 400 else _of_status(result.status, result.body)


def took_ns(result: AttemptResult) -> int:
    """To the first token of a stream, to the head of an answer that is relayed as it comes, else for all of it."""
    return (result.ended_ns if result.first_token_ns is None else result.first_token_ns) - result.began_ns


def _of_error(error: UpstreamError, result: AttemptResult, whole_ns: int) -> Verdict:
    if isinstance(error, Withdrawn):
        return NOTHING
    if isinstance(error, ConnectFailed):
        return _UNREACHED
    if isinstance(error, TimedOut):
        if error.kind == "connect":
            return _UNREACHED
        if error.kind == "total" and 2 * (result.ended_ns - result.began_ns) < whole_ns:
            return NOTHING
    return _FAILED


def _of_event(event: bytes) -> Verdict:
    said = event[:_LOOKED_AT]
    if _NO_CREDIT in said:
        return _KEY_REJECTED
    return _KEY_ACCEPTED if any(fault in said for fault in _OWN_FAULTS) else _FAILED


def _of_status(status: int, body: bytes) -> Verdict:
    if status >= 500:
        return NOTHING if status in _NEVER_RIGHT else _FAILED
    if status in _REJECTED or (status == 429 and _NO_CREDIT in body[:_LOOKED_AT]):
        return _KEY_REJECTED
    if status == _FORBIDDEN:
        return _KEY_FORBIDDEN
    return _KEY_ACCEPTED if status in (408, 429) else _OWN_MAKING
