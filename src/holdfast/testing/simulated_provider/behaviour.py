"""The model's name selects what the simulated provider does; the table is in docs/simulated-provider.md."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from msgspec import Struct

from holdfast.clock import MILLISECOND

Manner = Literal["ok", "echo", "filler", "tool", "tools", "loop", "refuse", "reasoning", "filtered"]
Ending = Literal["proper", "early", "cut", "error_event", "hang", "garbage", "garbage_http", "garbage_shape"]

_PIECES_BEFORE_FAILURE = 3


class Behaviour(Struct, frozen=True, kw_only=True):
    """How one call is answered.

    says: what the text or tool calls are made of. tokens: length of a filler. status: every call fails with it. flaky_percent: so many
    calls fail with 500. fail_first: so many calls of each prompt fail with 500. first_ns: nothing at all comes before. stall_ns: after
    the beginning of a stream, before its first token. gap_ns: between tokens. pieces: tokens of a stream sent before an ending other
    than "proper". context: prompts of more input tokens are refused. cached: so many input tokens, at the most, come from a cache.
    per_minute: more calls than that are refused with 429; 0 means any number.
    """

    says: Manner = "ok"
    tokens: int = 0
    status: int = 0
    flaky_percent: int = 0
    fail_first: int = 0
    first_ns: int = 0
    stall_ns: int = 0
    gap_ns: int = 0
    ending: Ending = "proper"
    pieces: int | None = None
    context: int | None = None
    cached: int = 0
    per_minute: int = 0


def _failing(ending: Ending) -> Callable[[int], Behaviour]:
    def after(pieces: int) -> Behaviour:
        return Behaviour(says="filler", tokens=pieces + 5, ending=ending, pieces=pieces)

    return after


_NAMED = {
    "echo": Behaviour(says="echo"),
    "hang": Behaviour(ending="hang"),
    "cut-stream": _failing("cut")(_PIECES_BEFORE_FAILURE),
    "cut-before": _failing("cut")(0),
    "end-early": _failing("early")(_PIECES_BEFORE_FAILURE),
    "error-event": _failing("error_event")(_PIECES_BEFORE_FAILURE),
    "garbage": Behaviour(ending="garbage"),
    "garbage-http": Behaviour(ending="garbage_http"),
    "garbage-shape": Behaviour(ending="garbage_shape"),
    "tool": Behaviour(says="tool"),
    "tools-parallel": Behaviour(says="tools"),
    "loop": Behaviour(says="loop"),
    "refuse": Behaviour(says="refuse"),
    "reasoning": Behaviour(says="reasoning"),
    "filter": Behaviour(says="filtered"),
}

_COUNTED: tuple[tuple[re.Pattern[str], Callable[..., Behaviour]], ...] = (
    (re.compile(r"slow-(\d+)"), lambda ms: Behaviour(first_ns=ms * MILLISECOND)),
    (re.compile(r"stall-(\d+)"), lambda ms: Behaviour(stall_ns=ms * MILLISECOND)),
    (re.compile(r"tokens-(\d+)"), lambda tokens: Behaviour(says="filler", tokens=tokens)),
    (re.compile(r"stream-(\d+)-(\d+)"), lambda tokens, ms: Behaviour(says="filler", tokens=tokens, gap_ns=ms * MILLISECOND)),
    (re.compile(r"slow-tokens-(\d+)"), lambda ms: Behaviour(gap_ns=ms * MILLISECOND)),
    (re.compile(r"filter-(\d+)"), lambda tokens: Behaviour(says="filtered", tokens=tokens)),
    (re.compile(r"context-(\d+)"), lambda tokens: Behaviour(context=tokens)),
    (re.compile(r"cached-(\d+)"), lambda tokens: Behaviour(cached=tokens)),
    (re.compile(r"rate-([1-9]\d*)"), lambda calls: Behaviour(per_minute=calls)),
    (re.compile(r"error-([45]\d\d)"), lambda status: Behaviour(status=status)),
    (re.compile(r"flaky-(\d+)"), lambda percent: Behaviour(flaky_percent=percent)),
    (re.compile(r"fail-(\d+)-then-ok"), lambda calls: Behaviour(fail_first=calls)),
    (re.compile(r"cut-stream-(\d+)"), _failing("cut")),
    (re.compile(r"end-early-(\d+)"), _failing("early")),
    (re.compile(r"error-event-(\d+)"), _failing("error_event")),
)

_OK = Behaviour()


@lru_cache(4096)
def behaviour(model: str) -> Behaviour:
    """What `model` stands for; any other name behaves as `sim-ok`. A prefix such as `openai/` or `local:` does not matter."""
    found = re.search(r"(?:^|[/:])sim-([a-z0-9-]+)$", model)
    if found is None:
        return _OK
    if found[1] in _NAMED:
        return _NAMED[found[1]]
    for pattern, build in _COUNTED:
        if match := pattern.fullmatch(found[1]):
            return build(*(int(number) for number in match.groups()))
    return _OK
