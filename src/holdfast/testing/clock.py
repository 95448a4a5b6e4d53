"""A clock that moves only when told to, so that no test sleeps."""

from collections.abc import Callable
from heapq import heappop, heappush

NEW_YEAR_2026 = 1_767_225_600 * 1_000_000_000
"""2026-01-01T00:00:00Z in nanoseconds since the epoch."""


class FakeClock:
    """A `holdfast.clock.Clock` under the test's hand; both clocks stand still between calls of `advance`."""

    def __init__(self, wall_ns: int = NEW_YEAR_2026, monotonic_ns: int = 0) -> None:
        self._monotonic_ns = monotonic_ns
        self._wall_offset_ns = wall_ns - monotonic_ns
        self._timers: list[FakeTimer] = []
        self._set = 0

    @property
    def pending(self) -> int:
        """Timers that are set and neither due nor cancelled."""
        return sum(not timer.cancelled for timer in self._timers)

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def wall_ns(self) -> int:
        return self._monotonic_ns + self._wall_offset_ns

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> "FakeTimer":
        """A timer that runs inside the `advance` that reaches it; with a delay of 0 inside the next one, even `advance(0)`."""
        self._set += 1
        timer = FakeTimer(self._monotonic_ns + max(0, delay_ns), self._set, callback)
        heappush(self._timers, timer)
        return timer

    def advance(self, ns: int) -> None:
        """Let `ns` >= 0 pass: timers run in order of their instants, each at its own instant, those that timers set included."""
        if ns < 0:
            raise ValueError("a monotonic clock never goes back; step_wall moves the wall clock")
        end = self._monotonic_ns + ns
        while self._timers and self._timers[0].due_ns <= end:
            timer = heappop(self._timers)
            if not timer.cancelled:
                self._monotonic_ns = max(self._monotonic_ns, timer.due_ns)
                timer.callback()
        self._monotonic_ns = max(self._monotonic_ns, end)

    def step_wall(self, ns: int) -> None:
        """Move the wall clock alone, either way, as an administrator or NTP does; no timer runs."""
        self._wall_offset_ns += ns


class FakeTimer:
    """A pending call of a `FakeClock`; timers of the same instant run in the order in which they were set."""

    __slots__ = ("callback", "cancelled", "due_ns", "order")

    def __init__(self, due_ns: int, order: int, callback: Callable[[], None]) -> None:
        self.due_ns = due_ns
        self.order = order
        self.callback = callback
        self.cancelled = False

    def __lt__(self, other: "FakeTimer") -> bool:
        return (self.due_ns, self.order) < (other.due_ns, other.order)

    def cancel(self) -> None:
        self.cancelled = True
