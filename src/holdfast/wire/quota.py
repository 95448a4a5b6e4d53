"""What a provider says in its answer's headers about its own rate limits. Headers come from outside: nonsense is nothing."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from msgspec import Struct

from holdfast.clock import MILLISECOND, SECOND

QuotaUnit = Literal["requests", "tokens", "input_tokens", "output_tokens"]
QUOTA_UNITS: tuple[QuotaUnit, ...] = ("requests", "tokens", "input_tokens", "output_tokens")

LONGEST_NS = 86_400_000 * SECOND
"""Waits beyond a thousand days are nonsense."""

_MOST = 10**15
_PIECE = re.compile(rb"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|us|ns|h|m|s|d)")
_UNITS = {b"ns": 1, b"us": 1_000, b"ms": MILLISECOND, b"s": SECOND, b"m": 60 * SECOND, b"h": 3600 * SECOND, b"d": 86_400 * SECOND}


class Quota(Struct, frozen=True):
    """remaining of `limit`, whole again in `resets_ns` if nothing more is used. refills: steadily until then, not all at that instant."""

    unit: QuotaUnit
    limit: int
    remaining: int
    resets_ns: int
    refills: bool = True


Pairs = Iterable[tuple[bytes, bytes]]


def retry_after_ns(headers: Pairs, wall_ns: int) -> int | None:
    """How long the provider asks to be left alone: `retry-after-ms`, else `retry-after` in seconds or as an HTTP date (RFC 9110, 10.2.3).

    None without either, or for nonsense. Dates are read against the answer's own `date` where it has one, else against `wall_ns`: two
    machines' clocks may differ.
    """
    found: int | None = None
    asked, dated = b"", b""
    for name, value in headers:
        if name == b"retry-after-ms":
            found = _number(value, MILLISECOND)
        elif name == b"retry-after":
            asked = value
        elif name == b"date":
            dated = value
    if found is not None or not asked:
        return found
    seconds = _number(asked, SECOND)
    if seconds is not None:
        return seconds
    until = _date_ns(asked)
    return None if until is None else _plausible(until - (_date_ns(dated) or wall_ns))


def span_ns(text: bytes) -> int | None:
    """`6m0s`, `20ms`, `1.5s`, or a bare number of seconds, in nanoseconds; None for anything else."""
    if len(text) > 64:
        return None
    at = total = 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            return _number(text, SECOND) if not at else None
        total += round(float(piece[1]) * _UNITS[piece[2]])
        at = piece.end()
    return _plausible(total) if text else None


def until_ns(text: bytes, dated: bytes, wall_ns: int) -> int | None:
    """From the answer's `date` (else `wall_ns`) to an instant of RFC 3339, in nanoseconds, 0 for one that has passed; None for nonsense."""
    try:
        instant = datetime.fromisoformat(text.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
    if instant.tzinfo is None:
        return None
    return _plausible(_epoch_ns(instant) - (_date_ns(dated) or wall_ns))


def amount(text: bytes) -> int | None:
    """A whole number, zero or more, within reason."""
    return int(text) if 0 < len(text) <= 15 and text.isdigit() else None


def _number(value: bytes, unit_ns: int) -> int | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return _plausible(round(number * unit_ns)) if 0 <= number < _MOST else None


def _plausible(wait_ns: int) -> int | None:
    return None if wait_ns >= LONGEST_NS else max(0, wait_ns)


def _date_ns(text: bytes) -> int | None:
    if not text:
        return None
    try:
        instant = parsedate_to_datetime(text.decode("ascii"))
    except (ValueError, TypeError, OverflowError, UnicodeDecodeError):
        return None
    return _epoch_ns(instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC))


def _epoch_ns(instant: datetime) -> int:
    since = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds * 1_000
