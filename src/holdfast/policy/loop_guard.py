"""Whether an agent goes round in circles, told from its history: the same calls that give the same results, and nothing new in between.

What is counted is told by the history itself, which most agents resend: a retry, a hedge, a restart and another worker find the same
numbers. Kept in memory is what spares reading it all again, and what a history does not hold: rounds before a compaction, and those that a
provider keeps (`previous_response_id`).
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from msgspec import Struct

from holdfast.policy.rounds import PERIODS, Messages, Rounds
from holdfast.wire.call import Call, ToolCall
from holdfast.wire.steps import READERS, called

LoopKind = Literal["same_call", "cycle", "no_new_result", "same_result", "max_turns", "growth"]

_LINES = 4
"""Histories kept of one interaction: an agent and its sub-agents may share one."""
_SHORTEST = 3
"""Messages of a history that can hold a round: a question, a call and its result."""
_KEEPS = "openai-responses"
"""The format whose histories a provider may keep: a short one may be the beginning of a long one."""
_UNUSED_NS = 3600 * 10**9
_LEAST_GROWTH = 32 * 1024
_LEAST_IDLE = 3
_COMPACTED = 2
"""Answers that a compacted history holds at most; one with more is another agent's."""
_COMPACTED_AFTER = 20
"""Turns that the history before it had at least; after fewer it is the next task."""


class LoopOptions(Struct, frozen=True, kw_only=True):
    """From how much on an agent is stopped; 0 switches a check off. All are counted from the last time that somebody else spoke.

    same_call: rounds in a row with the same calls and the same results. cycle: repetitions of the same two to four rounds. no_new_result:
    rounds in a row that were all there before, in any order. same_result: rounds in a row without a new result, the arguments may be
    new. max_turns: answers of the model. growth: percent by which the input has grown while nothing new was said or found, over three
    answers and 32 KiB at least. warn_at: percent of each at which a warning is due, 100: none before the stop. polling: tools that may
    be called with the same arguments and give the same result as often as they like.
    """

    same_call: int = 8
    cycle: int = 4
    no_new_result: int = 10
    same_result: int = 30
    max_turns: int = 200
    growth: int = 200
    warn_at: int = 50
    polling: frozenset[str] = frozenset()


class Loop(Struct, frozen=True, kw_only=True):
    """A loop. stop: its limit is reached, else only the mark for a warning. count, limit: in the unit of the option `kind`. tools: that
    are called, one entry per round of the loop, parallel calls joined by "+". since: the answer of the model with which it began, 1 for
    the first of the history."""

    kind: LoopKind
    stop: bool
    count: int
    limit: int
    tools: tuple[str, ...]
    since: int


class _Line(Struct, eq=False):
    """A history as far as it was read. tools: hash of the tool schemas sent with it. length: its messages; mark: hash of their digests,
    of so many bytes (size); last: of the last one as it came, ids included. root: size and mark up to the first word of
    the user."""

    rounds: Rounds
    tools: int
    length: int = 0
    size: int = 0
    mark: int = 0
    last: int = 0
    root: tuple[int, int] = (0, 0)


class _Interaction(Struct):
    """lines: the one used last is the last. kept: of a history that the provider keeps; counted: the request that was read for it last."""

    used_ns: int
    lines: list[_Line]
    warned: set[LoopKind]
    kept: Rounds | None = None
    counted: int = 0


class LoopGuard:
    """Looks for loops in the calls of one process. Keeps something of at most `capacity` interactions, for an hour after the last call."""

    def __init__(self, capacity: int = 2_000) -> None:
        self._capacity = capacity
        self._known: OrderedDict[str, _Interaction] = OrderedDict()

    def check(self, interaction: str, form: str, call: Call, options: LoopOptions, now_ns: int) -> Loop | None:
        """The loop that `call` would go on with, where that is to be stopped, or warned of for the first time; None lets it pass.

        form: name of the wire format. now_ns: monotonic. The same history gives the same answer however often it comes.
        """
        if form not in READERS or not call.turns:
            return None
        if len(call.turns) < _SHORTEST and form != _KEEPS and interaction not in self._known:
            return None
        known = self._remembered(interaction, now_ns)
        rounds = self._kept(known, form, call, options) if call.conversation else self._resent(known, form, call, options)
        if rounds.spoken or not rounds.fresh:
            return None
        loop = find(rounds, options, known.warned)
        if loop is not None and not loop.stop:
            known.warned.add(loop.kind)
        return loop

    def answered(self, interaction: str, calls: Sequence[ToolCall]) -> None:
        """A model called tools in an answer that the agent may not send back, since the provider keeps it."""
        known = self._known.get(interaction)
        if known is not None and calls:
            known.kept = known.kept or Rounds()
            known.kept.answered([called(call.name, call.arguments, call.id) for call in calls])

    def _remembered(self, interaction: str, now_ns: int) -> _Interaction:
        table = self._known
        known = table.get(interaction)
        if known is not None:
            known.used_ns = now_ns
            table.move_to_end(interaction)
            return known
        while table and (len(table) >= self._capacity or next(iter(table.values())).used_ns < now_ns - _UNUSED_NS):
            table.popitem(last=False)
        known = table[interaction] = _Interaction(now_ns, [], set())
        return known

    def _kept(self, known: _Interaction, form: str, call: Call, options: LoopOptions) -> Rounds:
        rounds = known.kept = known.kept or Rounds()
        request = hash((call.conversation, *map(bytes, call.messages)))
        if request != known.counted:
            known.counted = request
            rounds.read(_messages(form, call, 0), options.polling)
        return rounds

    def _resent(self, known: _Interaction, form: str, call: Call, options: LoopOptions) -> Rounds:
        length, digests, last = len(call.turns), b"".join([turn.digest for turn in call.turns]), hash(bytes(call.messages[-1]))
        line = _extended(known.lines, length, digests, last)
        if line is None:
            line = _Line(Rounds(), hash(bytes(call.tools or b"")), root=_root(call))
            new = _taken_over(line, known.lines, digests, _messages(form, call, 0))
        else:
            known.lines.remove(line)  # to be the last
            new = _messages(form, call, line.length) if line.length < length else ()
        known.lines.append(line)
        del known.lines[:-_LINES]
        if line.length < length:
            line.rounds.read(new, options.polling)
            line.length, line.size, line.mark, line.last = length, len(digests), hash(digests), last
        return line.rounds


def find(rounds: Rounds, options: LoopOptions, warned: Collection[LoopKind] = ()) -> Loop | None:
    """The loop that has come nearest to its limit, if its mark is reached; below the limit only those that were not `warned` of."""
    best: tuple[LoopKind, int, int, int] | None = None
    for found in _counts(rounds, options):
        kind, count, limit, _ = found
        if not limit:
            continue
        if count < limit and (kind in warned or count < 2 or count * 100 < limit * options.warn_at or options.warn_at >= 100):
            continue
        if best is None or count * best[2] > best[1] * limit:
            best = found
    if best is None:
        return None
    kind, count, limit, period = best
    begun = {"cycle": count * period, "max_turns": rounds.turns, "growth": rounds.idle}.get(kind, count)
    return Loop(
        kind=kind, stop=count >= limit, count=count, limit=limit, tools=rounds.names(period), since=max(1, rounds.answers - begun + 1)
    )


def _counts(rounds: Rounds, options: LoopOptions) -> Iterator[tuple[LoopKind, int, int, int]]:
    """Kind, count, limit and rounds of its period, of every check; limit 0 where it is off."""
    same, stale = rounds.same, rounds.stale
    if stale:
        yield "same_call", same[0] + 1, options.same_call, 1
        for period in range(2, PERIODS + 1):
            if same[period - 1] >= period > same[0] + 1:
                yield "cycle", same[period - 1] // period + 1, options.cycle, period
        yield "no_new_result", stale, options.no_new_result, 1
    yield "same_result", rounds.flat, options.same_result, 1
    yield "max_turns", rounds.turns, options.max_turns, 0
    if rounds.idle >= _LEAST_IDLE and rounds.grown >= _LEAST_GROWTH:
        yield "growth", rounds.grown * 100 // max(rounds.base, 1), options.growth, 1


def _messages(form: str, call: Call, known: int) -> Messages:
    """Those after the first `known`."""
    read = READERS[form]
    return [(len(raw), read(raw, turn.digest)) for raw, turn in zip(call.messages[known:], call.turns[known:], strict=True)]


def _root(call: Call) -> tuple[int, int]:
    first = next((at for at, turn in enumerate(call.turns) if turn.role == "user"), 0)
    digests = b"".join([turn.digest for turn in call.turns[: first + 1]])
    return len(digests), hash(digests)


def _extended(lines: Sequence[_Line], length: int, digests: bytes, last: int) -> _Line | None:
    """The longest history that these messages begin with. One of equal length and meaning that ends with another id is not the same one
    again, but a window that slides over a loop."""
    best: _Line | None = None
    for line in lines:
        longer = (best.length if best is not None else 0) < line.length <= length
        if longer and (line.length < length or line.last == last) and line.mark == hash(digests[: line.size]):
            best = line
    return best


def _taken_over(line: _Line, lines: Sequence[_Line], digests: bytes, messages: Messages) -> Messages:
    """Let a history that nobody has seen go on where one that it continues has ended; what of its messages is still to be read.

    It lacks the beginning of the other (a window that slides), or it holds next to nothing, being a summary of it (compaction). A branch,
    which holds the same beginning, and the history of another agent stand for themselves.
    """
    before = next((known for known in reversed(lines) if known.tools == line.tools), None)
    if before is None:
        return messages
    shared, beheaded = before.rounds.already_in(messages)
    if beheaded:
        line.rounds.take_over(before.rounds, loop=True, turns=True)
        return messages[shared:]
    answers = sum(any(step.kind in ("text", "call") for step in steps) for _, steps in messages)
    size, mark = before.root
    most = 0 if hash(digests[:size]) == mark else _COMPACTED
    summed_up = any(before.rounds.is_news(step) for _, steps in messages for step in steps)
    if shared or answers > most or not summed_up or len(messages) >= before.length:
        return messages
    line.rounds.take_over(before.rounds, loop=before.rounds.stale > 0, turns=before.rounds.turns >= _COMPACTED_AFTER)
    return [(size, [step for step in steps if step.kind != "user"]) for size, steps in messages]  # the summary: nobody has spoken
