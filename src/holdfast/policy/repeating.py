"""Whether a request to an API that nobody here knows may be sent twice."""

from collections.abc import Set as AbstractSet

SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PROPFIND", b"QUERY", b"REPORT", b"SEARCH"))
"""Methods that ask for nothing to be changed (RFC 9110, section 9.2.1, and their registry)."""

IDEMPOTENT = frozenset((b"PUT", b"DELETE"))
"""Methods whose second time should change nothing more; which servers hold to that, only their operators know."""


def may_repeat(method: bytes, allowed: AbstractSet[bytes], *, keyed: bool, reached: bool, kept: bool) -> bool:
    """allowed: methods that the configuration lets be repeated beside the safe ones. keyed: the request carries an idempotency key.
    reached: it may have come to its target, or part of it. kept: its whole body is at hand."""
    if not reached:
        return True
    return kept and (keyed or method in SAFE or method in allowed)
