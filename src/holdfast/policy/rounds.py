"""Counts for how long the rounds of an agent have brought nothing new; of a fixed small size, however long the history is.

A *round* is one answer of a model that calls tools, with what the tools gave back. It is new when any of its calls has not given this
result before: polling whose result changes is so always new.
"""

from collections.abc import Collection, Sequence
from struct import Struct
from typing import NamedTuple

from holdfast.wire.steps import Step

PERIODS = 4
"""Rounds of the longest cycle that is told."""

_pack = Struct("<q").pack
_DIGEST = 8
_MOST_SEEN = 256 * _DIGEST
_MOST_RESULTS = 32 * _DIGEST
_MOST_OPEN = 64
_MOST_CALLS = 32
"""Calls of one round that are remembered beyond it."""
_LONGEST_NAMES = 100

Messages = Sequence[tuple[int, Sequence[Step]]]
"""Messages of a history, each with its size in bytes and what it holds."""


class _Round(NamedTuple):
    """key: equal for rounds with the same calls and results. names: of the tools, joined by "+". marks: of its calls and its results."""

    key: int
    names: str
    marks: bytes


class Rounds:
    """What was read of a history so far.

    answers, turns: of the model, in all and since somebody spoke. spoken: somebody has spoken since the last answer. fresh: a round of
    its own was read, beyond what it took over. same: for each period, how many rounds in a row were equal to the one so many rounds
    before. stale, flat: rounds in a row without anything new, without a new result. idle: answers in a row without new words or results;
    base, grown: bytes of the history before and since.
    """

    __slots__ = (
        *("answers", "base", "flat", "fresh", "grown", "idle", "same", "spoken", "stale", "turns"),
        *("_answering", "_latest", "_open", "_pairs", "_results", "_returned", "_seen"),
    )

    def __init__(self) -> None:
        self.answers = self.turns = self.stale = self.flat = self.idle = self.base = self.grown = 0
        self.spoken = self.fresh = False
        self.same = [0] * PERIODS
        self._latest: list[_Round] = []
        self._seen = b""
        self._results = 0  # in all; of the latest of them:
        self._returned = b""
        self._answering = False
        self._open: dict[str, Step] = {}
        self._pairs: list[tuple[Step, bytes]] = []

    def names(self, count: int) -> tuple[str, ...]:
        """The tools of the latest rounds, oldest first."""
        return tuple([found.names for found in self._latest[-count:]])

    def read(self, messages: Messages, polling: Collection[str]) -> None:
        """What has come to the history, up to the request that is to be judged. polling: tools that do not count."""
        for size, steps in messages:
            self.grown += size
            for step in steps:
                self._take(step, polling)
        self._end_round(polling)
        self._open.clear()  # what has no result by now will get none

    def answered(self, calls: Sequence[Step]) -> None:
        """The model called tools in an answer that no later history holds."""
        for call in calls:
            self._take(call, ())
        self._answering = False

    def take_over(self, before: "Rounds", *, loop: bool, turns: bool) -> None:
        """This history goes on where an earlier one of the same agent ended. loop: in its loop. turns: their number counts on."""
        self._results, self._returned, self.base = before._results, before._returned, before.base
        if loop:
            self.same, self._latest, self.stale, self.flat = before.same.copy(), before._latest.copy(), before.stale, before.flat
            self._seen = b"".join([found.marks for found in self._latest])
        if turns:
            self.answers, self.turns = before.answers, before.turns

    def already_in(self, messages: Messages) -> tuple[int, bool]:
        """How many of `messages` end with a result that was read here, and whether they lack the beginning of this history."""
        results = [(at, step) for at, (_, steps) in enumerate(messages) for step in steps if step.kind == "result"]
        for number in range(len(results) - 1, -1, -1):
            at, step = results[number]
            where = self._returned.rfind(_identity(step))
            if where >= 0 and where % _DIGEST == 0:
                return at + 1, number < self._results - (len(self._returned) - where) // _DIGEST
        return 0, False

    def is_news(self, step: Step) -> bool:
        """Whether these are words that were not said here."""
        return step.kind in ("user", "text") and step.key not in self._seen

    def _take(self, step: Step, polling: Collection[str]) -> None:
        if step.kind == "text" or step.kind == "call":
            self._begin_answer(polling)
            if step.kind == "call":
                self._call(step)
            elif self._is_new(step.key):
                self._progress()
            return
        self._answering = False
        if step.kind == "result":
            self._result(step)
            return
        self._end_round(polling)
        self.spoken = self._is_new(step.key) or self.spoken

    def _call(self, step: Step) -> None:
        if len(self._open) < _MOST_OPEN:
            self._open[step.id or step.name] = step

    def _result(self, step: Step) -> None:
        self._returned = (self._returned + _identity(step))[-_MOST_RESULTS:]
        self._results += 1
        if (call := self._open.pop(step.id or step.name, None)) is not None:
            self._pairs.append((call, step.key))

    def _begin_answer(self, polling: Collection[str]) -> None:
        if self._answering:
            return
        self._end_round(polling)
        self._answering = True
        self._open.clear()
        if self.spoken:
            self._begin_anew()
        self.answers += 1
        self.turns += 1
        self.idle += 1

    def _begin_anew(self) -> None:
        self.spoken = False
        self.turns = self.stale = self.flat = 0
        self.same = [0] * PERIODS
        self._latest.clear()
        self._progress()

    def _end_round(self, polling: Collection[str]) -> None:
        if not self._pairs:
            return
        pairs = [(call.key + result, call.name) for call, result in self._pairs if call.name not in polling]
        self._pairs = []
        if not pairs:
            self._progress()
            return
        if len(pairs) > 1:
            pairs.sort()
        self.fresh = True
        marks, results = (
            [_mark(key) for key, _ in pairs],
            [_mark(name.encode("utf-8", "surrogatepass") + key[_DIGEST:]) for key, name in pairs],
        )
        new, news = [mark for mark in marks if mark not in self._seen], [mark for mark in results if mark not in self._seen]
        self.stale = 0 if new else self.stale + 1
        self.flat = 0 if news else self.flat + 1
        if new or news:
            self._progress()
            self._seen = (self._seen + b"".join(new + news))[-_MOST_SEEN:]
        names = pairs[0][1] if len(pairs) == 1 else "+".join([name for _, name in pairs[:_MOST_CALLS]])[:_LONGEST_NAMES]
        self._compare(_Round(hash(tuple(marks)), names, b"".join(marks[:_MOST_CALLS] + results[:_MOST_CALLS])))

    def _compare(self, found: _Round) -> None:
        """With the rounds before it; one that brings something new is like none of them."""
        latest = self._latest
        if self.stale:
            for period in range(1, PERIODS + 1):
                equal = len(latest) >= period and latest[-period].key == found.key
                self.same[period - 1] = self.same[period - 1] + 1 if equal else 0
        else:
            self.same = [0] * PERIODS
        latest.append(found)
        if len(latest) > PERIODS:
            del latest[0]

    def _is_new(self, key: bytes) -> bool:
        if key in self._seen:
            return False
        self._seen = (self._seen + key)[-_MOST_SEEN:]
        return True

    def _progress(self) -> None:
        self.base += self.grown
        self.grown = self.idle = 0


def _identity(step: Step) -> bytes:
    """Of a result: tells it from others that say the same, where its call has an id of its own."""
    return _mark(step.id.encode("utf-8", "surrogatepass") + step.key)


def _mark(key: bytes) -> bytes:
    """Eight bytes, of this process only."""
    return _pack(hash(key))
