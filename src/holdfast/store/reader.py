"""The journal's reader: newest first over the files of all writers, by id, by interaction; never a whole file in memory.

What cannot be read is skipped, counted and named, as far as a query comes across it. Files are opened only when their time comes up:
file names tell when a file begins, UUIDv7 identifiers when their event happened.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count, islice
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast.clock import SECOND
from holdfast.events import UNREADABLE, ApiCall, Context, Decision, Error, Event, InteractionStarted, LimitRefusal, decode
from holdfast.events.ids import wall_ns_of
from holdfast.store.files import JournalFile, journal_files
from holdfast.store.interactions import ANY_INTERACTION, InteractionFilter, InteractionSummary, Story, Tallies, story
from holdfast.store.lines import Line, lines_backward
from holdfast.store.prompt import FullInput, rebuild

SLACK_NS = 3600 * SECOND
"""How far an event's own time may lie from when it was written: the longest call, and a clock that was set meanwhile."""

SHORTEST_PREFIX = 8
"""Characters of an identifier that a look-up needs at least."""

_UUID_LENGTH = 36
_OF_INTERACTIONS = (ApiCall, Decision, Error, InteractionStarted, LimitRefusal)
_ANY_KIND = b'{"kind":"'

Select = Callable[[JournalFile], bool]


class Damage(Struct, frozen=True):
    """A line that cannot be read. torn: it is the last of its file and has no end, as a crash in mid-write leaves it."""

    file: Path
    offset: int
    reason: str
    torn: bool = False


class DecisionFilter(Struct, frozen=True, kw_only=True):
    """Which decisions; "" and 0 accept any. action: one of the tools chosen, or all of it. since_ns: wall clock.
    failed: only those that were cut short or ended in an error that nothing recovered."""

    agent: str = ""
    release: str = ""
    user: str = ""
    run: str = ""
    interaction: str = ""
    action: str = ""
    since_ns: int = 0
    failed: bool = False

    def accepts(self, decision: Decision) -> bool:
        return (
            decision.timestamp >= self.since_ns
            and self.agent in ("", decision.agent)
            and self.release in ("", decision.release)
            and self.user in ("", decision.user_id)
            and self.run in ("", decision.run)
            and self.interaction in ("", decision.interaction)
            and self.action in ("", decision.chosen_action, *decision.chosen_action.split("+"))
            and (not self.failed or has_failed(decision))
        )


ANY_DECISION = DecisionFilter()


def has_failed(decision: Decision) -> bool:
    """Cut short, or ended in an error; one that a retry or a fallback made good has not failed."""
    return not decision.complete or (decision.error_id != "" and decision.recovery_action not in ("retried", "fell_back", "queued"))


class JournalReader:
    """Reads the journals under a data directory as they are at the time of each call; raises StorageError when it may not."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._damage: dict[tuple[Path, int], Damage] = {}

    @property
    def damage(self) -> list[Damage]:
        """The unreadable lines that calls so far came across, each once, by file and offset."""
        return [self._damage[place] for place in sorted(self._damage)]

    def files(self) -> list[JournalFile]:
        """The files, oldest first."""
        return journal_files(self._data_dir)

    def events(
        self, kinds: Sequence[type[Event]] = (), *, holding: Sequence[bytes] = (), since_ns: int = 0, select: Select | None = None
    ) -> Iterator[Event]:
        """Events newest first: each file in the reverse order of writing, files merged by timestamp.

        kinds: only these, any when empty. holding: only lines with one of these bytes, which spares decoding the others.
        since_ns: nothing that was written before is looked for; a few older events may still come. select: only these files.
        """
        prefixes = tuple(_ANY_KIND + _tag(kind) + b'"' for kind in kinds) or (_ANY_KIND,)
        files = [file for file in self.files() if file.ended_ns >= since_ns and (select is None or select(file))]
        waiting = sorted(files, key=lambda file: file.ended_ns)
        streams: list[tuple[int, int, Event, Iterator[tuple[int, Event]]]] = []
        order = count()

        def push(stream: Iterator[tuple[int, Event]]) -> None:
            for timestamp, event in islice(stream, 1):
                heappush(streams, (-timestamp, next(order), event, stream))

        while streams or waiting:
            while waiting and (not streams or waiting[-1].ended_ns >= -streams[0][0]):
                push(self._scan(waiting.pop(), prefixes, holding, since_ns - SLACK_NS))
            if streams:
                _, _, event, stream = heappop(streams)
                yield event
                push(stream)

    def decisions(self, where: DecisionFilter = ANY_DECISION, limit: int = 50) -> list[Decision]:
        """The newest `limit` decisions that the filter accepts, newest first."""
        holding = [_field("interaction", where.interaction)] if where.interaction else []
        found = (event for event in self.events((Decision,), holding=holding, since_ns=where.since_ns) if isinstance(event, Decision))
        page = list(islice(filter(where.accepts, found), limit))
        return sorted(page, key=lambda decision: decision.timestamp, reverse=True)

    def find_decisions(self, prefix: str) -> list[Decision]:
        """The decisions whose identifier begins with `prefix` (at least SHORTEST_PREFIX characters); one when it is unique."""
        prefix = prefix.strip().lower()
        if len(prefix) < SHORTEST_PREFIX:
            return []
        near = _near(prefix)
        found = self._decisions_named(prefix, near)
        return found or self._decisions_named(prefix, lambda file: not near(file))

    def interactions_named(self, prefix: str) -> list[str]:
        """The interactions whose identifier begins with `prefix`, or is just that; sorted."""
        ids: set[str] = set()
        for event in self.events(_OF_INTERACTIONS, holding=[_field("interaction", prefix)[:-1]]):
            if isinstance(event, _OF_INTERACTIONS) and event.interaction.startswith(prefix):
                ids.add(event.interaction)
            if prefix in ids:
                return [prefix]
        return sorted(ids) if len(prefix) >= SHORTEST_PREFIX else []

    def interaction(self, interaction: str) -> Story | None:
        """Everything recorded of one interaction, in order of time; None when there is nothing."""
        near = _near(interaction)
        events = self.events(_OF_INTERACTIONS, holding=[_field("interaction", interaction)], since_ns=max(0, near.earliest_ns - SLACK_NS))
        return story(interaction, [event for event in events if isinstance(event, _OF_INTERACTIONS)])

    def interactions(self, where: InteractionFilter = ANY_INTERACTION, limit: int = 50) -> list[InteractionSummary]:
        """The `limit` interactions that were active last, newest first, each counted from its first event on."""
        tallies = Tallies(where, limit)
        for event in self.events(_OF_INTERACTIONS):
            if isinstance(event, _OF_INTERACTIONS):
                if tallies.complete(event.timestamp):
                    break
                tallies.add(event)
        return tallies.summaries()

    def served(self, decision: Decision) -> list[ApiCall | Error]:
        """The api calls and errors of one decision, in order of time."""
        of_time = _Window(decision.timestamp - SLACK_NS, decision.timestamp + decision.latency_ns)
        events = self.events((ApiCall, Error), holding=[_field("decision_id", decision.decision_id)], select=of_time)
        found = [event for event in events if isinstance(event, ApiCall | Error) and event.decision_id == decision.decision_id]
        found.reverse()
        return sorted(found, key=lambda event: event.timestamp)

    def full_input(self, decision: Decision) -> FullInput:
        """The whole input of `decision`, from one pass backwards over its interaction; parts that are gone are named, not raised."""
        chain, others = [decision], dict[str, Decision]()
        contexts: dict[str, Context] = {}
        digests = set(decision.context)
        holding = [_field("interaction", decision.interaction), *(_field("digest", digest) for digest in digests)]
        before = _Window(0, decision.timestamp + decision.latency_ns)
        for event in self.events((Decision, Context), holding=holding, select=before):
            if isinstance(event, Context) and event.digest in digests:
                contexts[event.digest] = event
            elif isinstance(event, Decision):
                others[event.decision_id] = event
            while chain[-1].inherited_messages and (parent := others.pop(chain[-1].parent, None)) is not None:
                chain.append(parent)
            if not chain[-1].inherited_messages and len(contexts) == len(digests):
                break
        return rebuild(chain, contexts)

    def _decisions_named(self, prefix: str, select: Select) -> list[Decision]:
        found: dict[str, Decision] = {}
        for event in self.events((Decision,), holding=[_field("decision_id", prefix)[:-1]], select=select):
            if isinstance(event, Decision) and event.decision_id.startswith(prefix):
                found[event.decision_id] = event
                if len(prefix) == _UUID_LENGTH:
                    break
        return list(found.values())

    def _scan(self, file: JournalFile, prefixes: tuple[bytes, ...], holding: Sequence[bytes], since_ns: int) -> Iterator[tuple[int, Event]]:
        """Timestamps and events of one file, last first; an event without a time of its own has that of its successor."""
        timestamp = file.ended_ns
        try:
            descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # deleted since it was listed
            return
        except OSError as error:
            self._note(file, Line(0, b""), f"the file cannot be opened: {error.strerror}")
            return
        try:
            for line in lines_backward(descriptor, file.size):
                if _passed_over(line, prefixes, holding) or (event := self._decode(file, line)) is None:
                    continue
                if not isinstance(event, Context):
                    timestamp = event.timestamp
                if timestamp < since_ns:
                    return
                yield timestamp, event
        finally:
            os.close(descriptor)

    def _decode(self, file: JournalFile, line: Line) -> Event | None:
        if not line.ended:
            self._note(file, line, "the last line has no end")
            return None
        try:
            return decode(line.data)
        except UNREADABLE as error:
            self._note(file, line, str(error))
            return None

    def _note(self, file: JournalFile, line: Line, reason: str) -> None:
        self._damage[file.path, line.offset] = Damage(file.path, line.offset, reason, torn=not line.ended)


class _Window(Struct, frozen=True):
    """Accepts the files in which events of this time may lie."""

    earliest_ns: int
    latest_ns: int

    def __call__(self, file: JournalFile) -> bool:
        return file.ended_ns >= self.earliest_ns - SLACK_NS and file.started_ns <= self.latest_ns + SLACK_NS


def _near(identifier: str) -> _Window:
    """The time that the beginning of a UUIDv7 tells; all time for other identifiers."""
    try:
        if identifier[14:15] not in ("", "7"):
            raise ValueError
        earliest, latest = (wall_ns_of(identifier.replace("-", "")[:12].ljust(12, filling)) for filling in "0f")
    except ValueError:
        return _Window(0, 1 << 62)
    return _Window(earliest, latest)


def _tag(kind: type[Event]) -> bytes:
    return str(kind.__struct_config__.tag).encode()


def _field(name: str, value: str) -> bytes:
    """How a journal line writes this field."""
    return f'"{name}":'.encode() + msgspec.json.encode(value)


def _passed_over(line: Line, prefixes: tuple[bytes, ...], holding: Sequence[bytes]) -> bool:
    """Whether the line is certainly not wanted; what does not look like an event is not passed over, so that damage is noticed."""
    data = line.data
    if not line.ended or not data.startswith(_ANY_KIND) or not data.endswith(b"}"):
        return False
    if not data.startswith(prefixes):
        return True
    return bool(holding) and not any(part in data for part in holding)
