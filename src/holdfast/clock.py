"""Time as an argument: the one interface through which Holdfast reads clocks and sets timers."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

SECOND = 1_000_000_000
MILLISECOND = 1_000_000


class Timer(Protocol):
    """A pending call, as `Clock.call_later` returns it."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Reads time and sets timers; all durations and instants are integer nanoseconds."""

    def monotonic_ns(self) -> int:
        """Never goes back; for durations and windows. Its origin is arbitrary."""

    def wall_ns(self) -> int:
        """Since the Unix epoch; for timestamps. May step either way."""

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> Timer:
        """Call once after `delay_ns`, unless cancelled."""


def to_iso(wall_ns: int) -> str:
    """Nanoseconds since the epoch as ISO 8601 in UTC with milliseconds, e.g. `2026-11-23T03:04:05.678Z`."""
    seconds, rest = divmod(wall_ns, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // MILLISECOND:03d}Z"
