"""What `bench/chaos.py` holds against each other: what the agents saw, what the providers were asked, what the journal says."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from chaos_schedule import Schedule
from chaos_traffic import FORMATS, GRACE_S, Call

from holdfast.events import ApiCall, BreakerChanged, Decision, Error
from holdfast.store.reader import JournalReader
from holdfast.testing.simulated_provider.requests import Noted

ALLOWED_ENDINGS = frozenset({"answer", "refused", "error", "error event", "cut", "garbage"})
_STALE_NS = 1_100_000_000
"""A kept connection that the upstream closes within a second of a request, without a byte, is taken for stale, and the request sent once
more: the upstream sees two requests, which are one attempt."""
_AT_ONCE_NS = 100_000_000
DECLINED = frozenset({"refuse", "filter", "filter-3"})
"""What is served then is no answer to an agent that wants to be answered by another model."""
_SHOWN = 5


class Check(NamedTuple):
    """A promise and what was found. found: examples of what breaks it."""

    promise: str
    measured: str
    holds: bool
    found: tuple[str, ...] = ()


class _Params(msgspec.Struct):
    user: str = ""
    metadata: dict[str, Any] | None = None


class Attempt(NamedTuple):
    """target: provider/model, or tool/NAME. Instants are wall-clock ns. silent: nothing of an answer came."""

    target: str
    began_ns: int
    ended_ns: int
    failed: bool
    silent: bool = False


@dataclass
class Journal:
    """attempts: of each call of an agent, by its id. decided: identifiers of whole decisions."""

    attempts: dict[str, list[Attempt]] = field(default_factory=lambda: defaultdict(list))
    decided: set[str] = field(default_factory=set)
    recoveries: Counter[str] = field(default_factory=Counter)
    breakers: list[BreakerChanged] = field(default_factory=list)
    damage: int = 0


def read_journal(data: Path) -> Journal:
    journal, reader = Journal(), JournalReader(data)
    for event in reader.events((ApiCall, BreakerChanged, Decision, Error)):
        if isinstance(event, Decision):
            if event.complete:
                journal.decided.add(event.decision_id)
        elif isinstance(event, Error):
            journal.recoveries[f"{event.error_type}: {event.recovery_action}"] += 1
        elif isinstance(event, BreakerChanged):
            journal.breakers.append(event)
        elif isinstance(event, ApiCall):
            target = event.target_api.partition(" ")[0]
            ended_ns = event.timestamp + int(event.latency_ms * 1_000_000)
            journal.attempts[_call_id(event)].append(
                Attempt(target, event.timestamp, ended_ns, event.error_id != "", not event.response_code)
            )
    journal.damage = len(reader.damage)
    return journal


def _call_id(event: ApiCall) -> str:
    """The agent's own name for the call: the body's user, which the payload keeps; of a tool's, whose body is not read, the header's."""
    if event.target_api.startswith("tool/"):
        return event.user_id
    params = msgspec.json.decode(event.payload, type=_Params)
    return params.user or str((params.metadata or {}).get("user_id", ""))


class Asked(NamedTuple):
    """A request that a server noted. fault: what was switched on when it arrived, "" for nothing."""

    server: str
    noted: Noted
    fault: str

    def __str__(self) -> str:
        return f"{self.noted.end} by {self.server}" + (f" ({self.fault})" if self.fault else "")


Requests = dict[str, list[Asked]]


def by_id(records: dict[str, list[Noted]], schedule: Schedule) -> Requests:
    """The requests that the servers noted, of each call, in order of time."""
    found: Requests = defaultdict(list)
    for server, record in records.items():
        for noted in record:
            found[noted.id].append(Asked(server, noted, schedule.at(server, noted.model.rpartition(" ")[2], noted.began_ns)))
    for requests in found.values():
        requests.sort(key=lambda asked: asked.noted.began_ns)
    return found


def checks(calls: list[Call], requests: Requests, journal: Journal) -> list[Check]:
    return [
        _ended_in_time(calls),
        _ended_well(calls),
        _answers_were_given(calls, requests),
        _nothing_twice(requests),
        _posts_once(calls, requests),
        _requests_have_events(requests, journal),
        _events_have_requests(requests, journal),
        _answers_are_decisions(calls, journal),
        Check("the journal is readable to its last line", f"{journal.damage} damaged lines", not journal.damage),
    ]


def check(promise: str, of: int, broken: list[str], more: str = "") -> Check:
    return Check(promise, f"{len(broken)} of {of} do not{more}", not broken, tuple(broken[:_SHOWN]))


def _ended_in_time(calls: list[Call]) -> Check:
    late = [f"{call.id} {call.kind}: {call.took_s:.2f} s, {call.ending}" for call in calls if call.took_s > call.allowed_s + GRACE_S]
    longest = max((call.took_s - call.allowed_s for call in calls), default=0.0)
    return check("every call ends within its total time-out", len(calls), late, f" (latest {longest:+.2f} s)")


def _ended_well(calls: list[Call]) -> Check:
    odd = [f"{call.id} {call.kind}: {call.ending}" for call in calls if call.ending not in ALLOWED_ENDINGS]
    return check("every call ends in an answer, a refusal, a passed-on failure, an error event or a cut", len(calls), odd)


def _answers_were_given(calls: list[Call], requests: Requests) -> Check:
    answered = [call for call in calls if call.ending == "answer" and call.served_by != "reply"]
    made_up = [
        f"{call.id} {call.kind} by {call.served_by}: {_told(requests[call.id])}"
        for call in answered
        if not any(asked.noted.end == "served" for asked in requests.get(call.id, ()))
    ]
    return check("every answer was given whole by a provider: no end is faked", len(answered), made_up)


def _nothing_twice(requests: Requests) -> Check:
    twice = []
    for call_id, asked in requests.items():
        served = [each.noted for each in asked if each.noted.end == "served" and each.fault not in DECLINED]
        if len(served) > 1 or (served and asked[-1].noted.began_ns > served[0].ended_ns):
            twice.append(f"{call_id}: {_told(asked)}")
    return check("no request that was served is sent again", len(requests), twice)


def _posts_once(calls: list[Call], requests: Requests) -> Check:
    posts = [call for call in calls if call.kind == "POST"]
    again = [f"{call.id}: {_told(requests[call.id])}" for call in posts if len(requests.get(call.id, ())) > 1]
    return check("no POST to a tool is sent twice", len(posts), again)


def _told(requests: list[Asked]) -> str:
    return ", ".join(map(str, requests))


def _met_stale(first: Asked, second: Asked) -> bool:
    """Whether `second` may be `first` once more, which the server had closed its connection on without a byte."""
    waited_ns = second.noted.began_ns - first.noted.ended_ns
    at_once = 0 <= waited_ns < _AT_ONCE_NS and first.noted.ended_ns - first.noted.began_ns < _STALE_NS
    return first.fault == "cut-before" and first.noted.end == "failed" and first.server == second.server and at_once


def _requests_have_events(requests: Requests, journal: Journal) -> Check:
    seen = sum(map(len, requests.values()))
    again, missing = 0, []
    for call_id, asked in requests.items():
        recorded = len(journal.attempts.get(call_id, ()))
        spare = len(asked) - recorded
        if spare > 0:
            excused = min(spare, sum(map(_met_stale, asked, asked[1:])))
            again += excused
            if spare > excused:
                missing.append(f"{call_id}: {recorded} events of {_told(asked)}")
    more = f" ({again} more were sent again because their connection closed at once)"
    return check("every request that a provider saw has its event", seen, missing, more)


def _events_have_requests(requests: Requests, journal: Journal) -> Check:
    recorded = sum(map(len, journal.attempts.values()))
    unsent, missing = 0, []
    for call_id, attempts in journal.attempts.items():
        asked = requests.get(call_id, [])
        spare = len(attempts) - len(asked)
        if spare > 0:
            excused = min(spare, sum(each.silent and each.ended_ns - each.began_ns < _AT_ONCE_NS for each in attempts))
            unsent += excused
            if spare > excused:
                missing.append(f"{call_id}: {_told(asked)} of {', '.join(each.target for each in attempts)}")
    more = f" ({unsent} more had not left when the call's time was up)"
    return check("every event of an attempt has its request", recorded, missing, more)


def _answers_are_decisions(calls: list[Call], journal: Journal) -> Check:
    answered = [call for call in calls if call.ending == "answer" and call.kind in FORMATS]
    missing = [f"{call.id} {call.kind}: {call.decision or 'no header'}" for call in answered if call.decision not in journal.decided]
    return check("every answer is a decision in the journal", len(answered), missing)


class Sample(NamedTuple):
    """at: seconds since the beginning. rss_kb: all that is resident. own_kb: less the tables that all workers share, files of a fixed
    size that are filled once."""

    at: float
    pid: int
    rss_kb: int
    own_kb: int


def memory(samples: list[Sample], seconds: float) -> Check:
    """Judged when there is more than the first five minutes."""
    judged = seconds >= 420
    warm_s, window_s = (300.0, 60.0) if judged else (min(20.0, seconds / 3), 10.0)
    told, holds = [], True
    for pid in sorted({sample.pid for sample in samples}):
        early = [sample for sample in samples if sample.pid == pid and warm_s <= sample.at < warm_s + window_s]
        late = [sample for sample in samples if sample.pid == pid and sample.at >= seconds - window_s]
        if early and late:
            (rss, own), (rss_then, own_then) = _megabytes(early), _megabytes(late)
            told.append(f"{own_then / own - 1:+.1%} ({own:.1f} to {own_then:.1f} MB; with the shared tables {rss:.1f} to {rss_then:.1f})")
            holds = holds and own_then < 1.05 * own
    promise = "each worker's own memory grows < 5 % after 5 minutes" + ("" if judged else " (not judged: too short)")
    return Check(promise, ", ".join(told) + f" from {warm_s:.0f} s on", not judged or (holds and bool(told)))


def _megabytes(samples: list[Sample]) -> tuple[float, float]:
    count = 1024 * len(samples)
    return sum(sample.rss_kb for sample in samples) / count, sum(sample.own_kb for sample in samples) / count
