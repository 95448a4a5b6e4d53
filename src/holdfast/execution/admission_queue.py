"""Admission queue: calls that nothing can serve now wait for the first of their targets that may be worth trying again.

Callback style: one timer per call that waits and one target that is waited for. Those that wait hold neither money nor a rate's turn.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal

from holdfast.clock import SECOND, Clock, Timer
from holdfast.policy.slow_start import SlowStart, pause_ns
from holdfast.policy.waiting_line import QueueBounds, Ticket, WaitingLine, WaitingRoom

Outcome = Literal["go", "full", "late", "closing"]
"""go: try again now. full: too many wait, or a more urgent call took the place. late: it has waited as long as it may. closing: this
process ends."""

_SOONEST_NS = SECOND
"""A refused call is not told to come again before that."""


class _Awaited:
    """A target that is waited for. wanted: by how many calls, those included that were let out and have not ended."""

    __slots__ = ("key", "line", "pace", "serving", "timer", "wanted")

    def __init__(self, key: str, pace: SlowStart) -> None:
        self.key = key
        self.line = WaitingLine()
        self.pace = pace
        self.timer: Timer | None = None
        self.wanted = 0
        self.serving = False


class Place(Ticket):
    """A call's place, from its first wait to its end.

    waited_ns: how long its last wait was. total_ns: all of them. retry_after_ns: when a call that was refused may be sent again.
    """

    __slots__ = (
        "awaited",
        "began_ns",
        "done",
        "in_line",
        "let_out_by",
        "retry_after_ns",
        "timer",
        "total_ns",
        "tries",
        "until_ns",
        "waited_ns",
    )

    def __init__(self, agent: str, rank: int, size: int, now_ns: int) -> None:
        super().__init__(agent, rank, size, now_ns)
        self.awaited: tuple[_Awaited, ...] = ()
        self.began_ns = now_ns
        self.done: Callable[[Outcome], None] | None = None
        self.in_line = False
        self.let_out_by: _Awaited | None = None
        self.retry_after_ns = 0
        self.timer: Timer | None = None
        self.total_ns = 0
        self.tries = 0
        self.until_ns = 0
        self.waited_ns = 0

    @property
    def waiting(self) -> bool:
        return self.done is not None


class AdmissionQueue:
    """One per gateway; everything happens on the caller's thread. uniform: a random number in [0, 1).

    awaited: the targets that are waited for, by key; empty as long as all is well.
    """

    def __init__(self, clock: Clock, uniform: Callable[[], float], bounds: QueueBounds = QueueBounds()) -> None:  # noqa: B008 - frozen
        self._clock = clock
        self._uniform = uniform
        self._room = WaitingRoom(bounds)
        self.awaited: dict[str, _Awaited] = {}
        self._closing = False

    @property
    def waiting(self) -> int:
        """How many calls do."""
        return self._room.calls

    def by_agent(self) -> dict[str, int]:
        """How many calls of each agent wait."""
        return self._room.by_agent()

    def holds_back(self, keys: Iterable[str]) -> bool:
        """Whether others wait for each of these already: then a newcomer waits behind them. keys: at least one."""
        awaited = self.awaited
        return bool(awaited) and all(key in awaited and len(awaited[key].line) for key in keys)

    def is_hopeful(self, keys: Mapping[str, int], until_ns: int) -> bool:
        """Whether one of `keys` may be worth trying before `until_ns`; see `wait`."""
        now = self._clock.monotonic_ns()
        return now < until_ns and any(max(cooldown_ns, self._cooldown_ns(key)) < until_ns for key, cooldown_ns in keys.items())

    def wait(self, place: Place, keys: Mapping[str, int], until_ns: int, done: Callable[[Outcome], None], *, tried: bool) -> None:
        """`done` is called when the wait is over, perhaps before this returns.

        keys: what the call waits for, each with the monotonic instant before which it is not to be tried, 0 where none is known. tried: an
        attempt has failed since it came, or since it was let out: then the call stands aside for a back-off of its own, so that a call that
        fails wherever it goes does not hold up the others.
        """
        now = self._clock.monotonic_ns()
        let_out_by = place.let_out_by
        if let_out_by is not None and not tried:  # it was not let through after all
            let_out_by.pace.turned_away(now, self._uniform())
        awaited = tuple(self._await(key, cooldown_ns, now) for key, cooldown_ns in keys.items())
        self._forget(place)
        place.awaited, place.keys = awaited, tuple(keys)
        place.done, place.until_ns, place.began_ns = done, until_ns, now
        leaving = None if self._closing else self._room.displaced_by(place)
        if leaving is None:
            self._end(place, "closing" if self._closing else "full")
            return
        displaced = [other for other in leaving if isinstance(other, Place)]
        for other in displaced:
            self._leave_room(other)
        self._room.add(place)
        for other in displaced:
            self._end(other, "full")
        if place.waiting:
            self._stand(place, now, aside=tried)

    def leave(self, place: Place, *, tried: bool) -> None:
        """The call has ended, or does not want to wait any more. tried: it has made an attempt since it was let out."""
        if place.waiting:
            self._leave_room(place)
            place.done = None
            place.waited_ns = self._clock.monotonic_ns() - place.began_ns
        elif place.let_out_by is not None and not tried:
            place.let_out_by.pace.unused(self._clock.monotonic_ns())
            self._serve(place.let_out_by)
        self._forget(place)

    def recovered(self, key: str, began_ns: int) -> None:
        """It has answered an attempt that began then."""
        awaited = self.awaited.get(key)
        if awaited is not None:
            awaited.pace.answered(self._clock.monotonic_ns(), began_ns)
            self._serve(awaited)

    def failed(self, key: str, began_ns: int, cooldown_ns: int = 0) -> None:
        """It could not serve an attempt that began then. cooldown_ns: for how long it asked to be left alone."""
        awaited = self.awaited.get(key)
        if awaited is not None:
            now = self._clock.monotonic_ns()
            awaited.pace.failed(now, began_ns, self._uniform())
            if cooldown_ns:
                awaited.pace.cool_down(now, now + cooldown_ns)
            self._serve(awaited)

    def close(self) -> None:
        """This process ends: nobody waits any more."""
        self._closing = True
        for place in list(self._room):
            if isinstance(place, Place) and place.waiting:
                self._leave_room(place)
                self._end(place, "closing")

    def _cooldown_ns(self, key: str) -> int:
        awaited = self.awaited.get(key)
        return 0 if awaited is None else awaited.pace.cooldown_ns

    def _await(self, key: str, cooldown_ns: int, now: int) -> _Awaited:
        awaited = self.awaited.get(key)
        if awaited is None:
            awaited = self.awaited[key] = _Awaited(key, SlowStart(now, self._uniform()))
        if cooldown_ns > now:
            awaited.pace.cool_down(now, cooldown_ns)
        awaited.wanted += 1
        return awaited

    def _stand(self, place: Place, now: int, *, aside: bool) -> None:
        """In line, at once or after a back-off."""
        if aside:
            pause = min(pause_ns(place.tries, self._uniform()), (place.until_ns - now) // 2)
            place.tries += 1
            place.timer = self._clock.call_later(pause, partial(self._enter, place))
        else:
            self._enter(place)

    def _enter(self, place: Place) -> None:
        """Into the lines of all that it waits for."""
        place.in_line = True
        place.timer = self._clock.call_later(place.until_ns - self._clock.monotonic_ns(), partial(self._expire, place))
        for awaited in place.awaited:
            awaited.line.add(place)
        for awaited in place.awaited:
            if place.in_line:
                self._serve(awaited)

    def _serve(self, awaited: _Awaited) -> None:
        """Let out who may go now; from inside its `done` a call may come back, and others may come and go."""
        if awaited.serving:
            return
        awaited.serving = True
        try:
            while awaited.line:
                now = self._clock.monotonic_ns()
                wait = awaited.pace.wait_ns(now)
                if wait:
                    self._arm(awaited, wait)
                    return
                awaited.pace.let_out(now)
                place = awaited.line.first()
                assert isinstance(place, Place)
                self._let_out(place, awaited)
        finally:
            awaited.serving = False

    def _arm(self, awaited: _Awaited, wait: int) -> None:
        if awaited.timer is not None:
            awaited.timer.cancel()
        awaited.timer = self._clock.call_later(wait, partial(self._serve, awaited))

    def _let_out(self, place: Place, awaited: _Awaited) -> None:
        self._leave_room(place)
        place.returned = True
        place.let_out_by = awaited
        self._tell(place, "go")

    def _expire(self, place: Place) -> None:
        self._leave_room(place)
        self._end(place, "late")

    def _end(self, place: Place, outcome: Outcome) -> None:
        """It is refused."""
        now = self._clock.monotonic_ns()
        place.retry_after_ns = max(_SOONEST_NS, min((awaited.pace.wait_ns(now) for awaited in place.awaited), default=0))
        self._forget(place)
        self._tell(place, outcome)

    def _tell(self, place: Place, outcome: Outcome) -> None:
        """Forgotten before, for it knows this place: together they would be garbage for the collector."""
        done, place.done = place.done, None
        place.waited_ns = self._clock.monotonic_ns() - place.began_ns
        place.total_ns += place.waited_ns
        if done is not None:
            done(outcome)

    def _leave_room(self, place: Place) -> None:
        """Out of the room and of every line."""
        self._room.remove(place)
        if place.timer is not None:
            place.timer.cancel()
            place.timer = None
        if place.in_line:
            place.in_line = False
            for awaited in place.awaited:
                awaited.line.remove(place)

    def _forget(self, place: Place) -> None:
        """It does not want anything any more."""
        for awaited in place.awaited:
            awaited.wanted -= 1
            if not awaited.wanted:
                if awaited.timer is not None:
                    awaited.timer.cancel()
                del self.awaited[awaited.key]
        place.awaited = ()
        place.let_out_by = None
