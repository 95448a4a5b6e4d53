"""Interactions put together from their events: what each did and cost, and its story in order."""

from collections.abc import Sequence

from msgspec import Struct

from holdfast.clock import SECOND
from holdfast.events import ApiCall, Decision, Error, InteractionStarted, LimitRefusal
from holdfast.events.error import DENIED
from holdfast.events.usage import Usage
from holdfast.money import Nano

OfInteraction = ApiCall | Decision | Error | InteractionStarted | LimitRefusal


class InteractionSummary(Struct, frozen=True, kw_only=True):
    """One interaction in figures; instants in nanoseconds since the epoch.

    refusals: by a limit or for another reason, not among the errors. cost: what is known of it, None when nothing is.
    cost_complete: False when some call's cost is not known.
    usage: None when no token was measured.
    """

    interaction: str
    agent: str
    release: str
    run: str
    user_id: str
    first_ns: int
    last_ns: int
    decisions: int
    calls: int
    refusals: int
    errors: int
    usage: Usage | None
    cost: Nano | None
    cost_complete: bool


class Story(Struct, frozen=True):
    """An interaction whole: `events` in order of time."""

    summary: InteractionSummary
    events: tuple[OfInteraction, ...]

    @property
    def decisions(self) -> list[Decision]:
        return [event for event in self.events if isinstance(event, Decision)]

    @property
    def calls(self) -> list[ApiCall]:
        return [event for event in self.events if isinstance(event, ApiCall)]

    @property
    def errors(self) -> list[Error]:
        return [event for event in self.events if isinstance(event, Error)]


class InteractionFilter(Struct, frozen=True, kw_only=True):
    """Which interactions; "" and 0 accept any. since_ns: active at that time or later."""

    agent: str = ""
    user: str = ""
    run: str = ""
    since_ns: int = 0

    def accepts(self, event: OfInteraction) -> bool:
        return (
            event.timestamp >= self.since_ns
            and self.agent in ("", event.agent)
            and self.user in ("", event.user_id)
            and self.run in ("", event.run)
        )


ANY_INTERACTION = InteractionFilter()


def story(interaction: str, newest_first: Sequence[OfInteraction]) -> Story | None:
    """The story of the events that belong to `interaction`; None when none does."""
    events = sorted((event for event in reversed(newest_first) if event.interaction == interaction), key=lambda event: event.timestamp)
    if not events:
        return None
    tally = _Tally(events[0])
    for event in events:
        tally.add(event)
    return Story(tally.summary(), tuple(events))


_OVERLAP_NS = 60 * SECOND  # between files: an interaction's start is the first thing that its own worker wrote of it


class Tallies:
    """Counts the interactions that were active last, from events newest first, until all of them are counted from their start."""

    def __init__(self, where: InteractionFilter, limit: int) -> None:
        self._where = where
        self._limit = limit
        self._tallies: dict[str, _Tally] = {}
        self._unstarted = 0
        self._earliest_ns = 0

    def add(self, event: OfInteraction) -> None:
        tally = self._tallies.get(event.interaction)
        if tally is None:
            if not event.interaction or len(self._tallies) >= self._limit or not self._where.accepts(event):
                return
            tally = self._tallies[event.interaction] = _Tally(event)
            self._unstarted += 1
        if isinstance(event, InteractionStarted) and not tally.started:
            self._unstarted -= 1
        tally.add(event)

    def complete(self, now_ns: int) -> bool:
        """Whether nothing that counts can come any more once events are as old as `now_ns`."""
        if self._unstarted or (len(self._tallies) < self._limit and now_ns >= self._where.since_ns):
            return False
        return all(tally.first_ns > now_ns + _OVERLAP_NS for tally in self._tallies.values())

    def summaries(self) -> list[InteractionSummary]:
        """Newest first by their last event."""
        summaries = [tally.summary() for tally in self._tallies.values()]
        return sorted(summaries, key=lambda summary: summary.last_ns, reverse=True)


class _Money:
    """A sum of costs of which some may not be known."""

    def __init__(self) -> None:
        self.known: Nano | None = None
        self.complete = True

    def add(self, cost: Nano | None, free: bool) -> None:
        if cost is None and not free:
            self.complete = False
        else:
            self.known = (self.known or 0) + (cost or 0)


class _Tally:
    def __init__(self, event: OfInteraction) -> None:
        self.first_ns = self.last_ns = event.timestamp
        self.started = False
        self._event = event
        self._counts = {Decision: 0, ApiCall: 0, LimitRefusal: 0, Error: 0, InteractionStarted: 0}
        self._refused = 0
        self._usage: Usage | None = None
        self._of_calls = _Money()
        self._of_decisions = _Money()

    def add(self, event: OfInteraction) -> None:
        self.first_ns = min(self.first_ns, event.timestamp)
        self.last_ns = max(self.last_ns, event.timestamp)
        self._counts[type(event)] += 1
        if isinstance(event, InteractionStarted):
            self.started = True
        elif isinstance(event, ApiCall):
            self._of_calls.add(event.cost, event.cost_source == "free")
        elif isinstance(event, Decision):
            self._of_decisions.add(event.cost, event.cost_source == "free")
            self._usage = _sum(self._usage, event.usage)
        elif isinstance(event, Error):
            self._refused += event.recovery_action in DENIED  # a limit's refusal too: its LimitRefusal is the numbers to it

    def summary(self) -> InteractionSummary:
        money = self._of_calls if self._counts[ApiCall] else self._of_decisions  # decisions recorded by an agent itself have no calls
        return InteractionSummary(
            interaction=self._event.interaction,
            agent=self._event.agent,
            release=self._event.release,
            run=self._event.run,
            user_id=self._event.user_id,
            first_ns=self.first_ns,
            last_ns=self.last_ns,
            decisions=self._counts[Decision],
            calls=self._counts[ApiCall],
            refusals=max(self._refused, self._counts[LimitRefusal]),
            errors=self._counts[Error] - self._refused,
            usage=self._usage,
            cost=money.known,
            cost_complete=money.complete,
        )


def _sum(total: Usage | None, more: Usage | None) -> Usage | None:
    if total is None or more is None:
        return total or more
    return total + more
