"""What the circuit breakers of `bench/chaos.py` did, held against the failures that were switched on and the attempts in the journal."""

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from chaos_schedule import Schedule
from chaos_verdict import Attempt, Check, check

from holdfast.clock import MILLISECOND, SECOND
from holdfast.events import BreakerChanged

WINDOW_S, MINIMUM_CALLS, FAILURE_RATE = 3, 5, 50
COOLDOWN_S, LONGEST_COOLDOWN_S = 1, 4
CONFIG = (
    f"{{window: {WINDOW_S}s, minimum_calls: {MINIMUM_CALLS}, failure_rate: {FAILURE_RATE}%, cooldown: {COOLDOWN_S}s,"
    f" longest_cooldown: {LONGEST_COOLDOWN_S}s}}"
)
SERVERS = {"first": "first", "first-messages": "first", "reserve": "reserve", "reserve-messages": "reserve", "tool": "tool"}
"""Which server a provider of the configuration is."""
OUTRIGHT = frozenset({"error-500", "error-503", "error-529", "cut-before", "garbage-http"})
"""Failures that leave no doubt whose they are, and show at once."""
SHARED_NS = 150 * MILLISECOND
"""Until every worker obeys, and the clocks of the events are as one: 100 ms are promised."""
_DUE_NS = SECOND


class Span(NamedTuple):
    """A breaker in one state, wall ns."""

    state: str
    began_ns: int
    ended_ns: int


@dataclass
class Breakers:
    """changes: in order of time."""

    changes: list[BreakerChanged]
    attempts: list[Attempt]
    schedule: Schedule
    _spans: dict[str, list[Span]] = field(default_factory=lambda: defaultdict(list))
    _by_target: dict[str, list[Attempt]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.changes.sort(key=lambda change: change.timestamp)
        began: dict[str, tuple[str, int]] = {}
        for change in self.changes:
            state, since = began.get(change.breaker, ("closed", 0))
            self._spans[change.breaker].append(Span(state, since, change.timestamp))
            began[change.breaker] = change.to_state, change.timestamp
        for name, (state, since) in began.items():
            self._spans[name].append(Span(state, since, 1 << 62))
        for attempt in sorted(self.attempts, key=lambda attempt: attempt.ended_ns):
            self._by_target[attempt.target].append(attempt)

    def checks(self) -> list[Check]:
        return [self._opened_for_a_reason(), self._opened_when_due(), self._kept_away(), self._closed_again()]

    def _opened_for_a_reason(self) -> Check:
        """Of models and tools: those of a provider are suspicions about all of its models."""
        opened = [change for change in self.changes if change.from_state == "closed" and change.to_state == "open"]
        groundless = []
        for change in opened:
            before = [
                attempt
                for target, attempts in self._by_target.items()
                if target == change.breaker or target.startswith(f"{change.breaker.partition('#')[0]}/")
                for attempt in attempts
                if change.timestamp - (WINDOW_S + 1) * SECOND < attempt.ended_ns <= change.timestamp + SHARED_NS
            ]
            met = [attempt for attempt in before if attempt.failed and self._fault(attempt)]
            if len(met) * 100 < FAILURE_RATE * MINIMUM_CALLS or change.calls < min(3, MINIMUM_CALLS):
                groundless.append(f"{change.breaker} ({change.reason}): {len(met)} of {len(before)} attempts met a failure")
        return check("breakers open only where failures were switched on", len(opened), groundless)

    def _opened_when_due(self) -> Check:
        """A target of which nearly every call fails outright, of more than are needed, does not stay closed."""
        due, missed = 0, []
        for target, attempts in self._by_target.items():
            sure = [attempt for attempt in attempts if self._fault(attempt) in OUTRIGHT]
            last_ns = 0
            for at, attempt in enumerate(sure):
                since_ns = attempt.ended_ns - WINDOW_S * SECOND * 9 // 10
                outright = at + 1 - bisect_right(sure, since_ns, key=lambda each: each.ended_ns)
                ends = bisect_right(attempts, attempt.ended_ns, key=lambda each: each.ended_ns)
                calls = ends - bisect_right(attempts, since_ns, key=lambda each: each.ended_ns)
                if outright < MINIMUM_CALLS + 2 or outright * 100 < 80 * calls or attempt.ended_ns < last_ns + 5 * SECOND:
                    continue
                last_ns = attempt.ended_ns
                due += 1
                if not self._was_open(target, since_ns, attempt.ended_ns + _DUE_NS):
                    missed.append(f"{target}: {outright} of {calls} calls failed ({self._fault(attempt)}), and it stayed closed")
        return check("breakers open where nearly every call fails", due, missed)

    def _kept_away(self) -> Check:
        passed, within = self._probed_early(), 0
        for name, spans in self._spans.items():
            for span in spans:
                if span.state not in ("open", "isolated"):
                    continue
                for target, attempts in self._by_target.items():
                    if target != name and not target.startswith(f"{name}/"):
                        continue
                    within += 1
                    passed += [
                        f"{attempt.target} {(attempt.began_ns - span.began_ns) / SECOND:.3f} s after {name} opened"
                        for attempt in attempts
                        if span.began_ns + SHARED_NS < attempt.began_ns < span.ended_ns - SHARED_NS
                        and (target == name or _had_failed(attempts, attempt.began_ns))  # healthy models pass their provider's breaker
                    ]
        return check("no call passes an open breaker", within, passed)

    def _probed_early(self) -> list[str]:
        until: dict[str, int] = {}
        early = []
        for change in self.changes:
            innocent = change.to_state == "closed" and change.scope == "provider"  # a model that nobody suspected has answered
            if change.from_state == "open" and not innocent and change.timestamp < until.get(change.breaker, 0) - SHARED_NS:
                early.append(
                    f"{change.breaker} was {change.to_state} {(until[change.breaker] - change.timestamp) / SECOND:.3f} s too early"
                )
            until[change.breaker] = change.until or 0
        return early

    def _closed_again(self) -> Check:
        """Those of a reserve, which nobody calls any more, at least let a call through that would come."""
        over_ns = max((attempt.ended_ns for attempt in self.attempts), default=0)
        last = {change.breaker: change for change in self.changes}
        still = [
            f"{name}: {change.to_state} ({change.reason})"
            for name, change in last.items()
            if change.to_state != "closed" and (not name.startswith("reserve") or (change.until or 0) > over_ns)
        ]
        opened = sum(change.to_state == "open" for change in self.changes)
        more = f" ({opened} openings of {len(self._spans)} breakers)"
        return check("every breaker is closed again when nothing fails any more", len(self._spans), still, more)

    def _fault(self, attempt: Attempt) -> str:
        provider, _, model = attempt.target.partition("/")
        return self.schedule.at(SERVERS[provider], model, attempt.began_ns)

    def _was_open(self, target: str, since_ns: int, until_ns: int) -> bool:
        provider = target.partition("/")[0]
        return any(
            span.state != "closed" and span.began_ns < until_ns and span.ended_ns > since_ns
            for name, spans in self._spans.items()
            if name in (target, provider) or name.startswith(f"{provider}#")
            for span in spans
        )


def _had_failed(attempts: list[Attempt], at_ns: int) -> bool:
    """Whether one of these attempts had failed within the window that ends at `at_ns`."""
    return any(each.failed and at_ns - (WINDOW_S + 1) * SECOND < each.ended_ns <= at_ns for each in attempts)
