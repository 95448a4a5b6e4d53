"""Works jobs off: claims those that are due, tries them through the guard, keeps what was answered, tells their webhooks.

Every worker of a data directory does so; a job is worked on by whoever holds its lock. What must not be lost is written in the callback in
which it comes; whatever may take its time on the disk is done in another thread.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from msgspec import Struct

from holdfast.clock import SECOND, Timer
from holdfast.errors import StorageError
from holdfast.events import UNREADABLE, ApiCall, Error, decode
from holdfast.execution.background import Background
from holdfast.gateway import job_refusals
from holdfast.gateway.endpoints import Endpoint, error_format, guarded
from holdfast.gateway.identity import Caller
from holdfast.gateway.job_try import MAX_ANSWER, Outcome, Try
from holdfast.gateway.job_webhook import Heard, Telling, Webhook
from holdfast.gateway.parts import Parts
from holdfast.policy.job import (
    Answered,
    Begun,
    Ending,
    Job,
    JobOptions,
    JobRecord,
    Recorded,
    Submitted,
    Told,
    Tried,
    call_id,
    retry_at,
    tell_at,
)
from holdfast.store.jobs import Claim, JobFiles, Stage
from holdfast.wire.call import Refusal
from holdfast.wire.quota import retry_after_ns

LOOK_NS = SECOND
"""How long a job waits whose worker has died, or whose pause is over."""

AGAIN_NS = SECOND
"""Between two attempts to write down what could not be written."""

_WORKED: tuple[Stage, ...] = ("waiting", "telling")
_MOST_BACKLOG = 256
_AFTER_DEFECT_NS = 60 * SECOND
_MOST_OF_A_FAILURE = 64 << 10
"""Bytes of a failure's body that are kept in case that it is the last one; many may come."""

_log = logging.getLogger("holdfast.jobs")


class Work(Struct):
    """A job in hand. going: what must be broken off when this worker has to end. unwritten: its end, for which the disk has no room."""

    claim: Claim
    stage: Stage
    going: Try | Telling | None = None
    unwritten: Answered | None = None

    @property
    def job(self) -> Job:
        return self.claim.job


class JobWorker:
    """Begins with `start`. in_journal: whether a decision of this id is on record already; blocks.

    trying, telling: jobs in hand of each kind, at most `options.concurrency`.
    """

    def __init__(
        self,
        parts: Parts,
        files: JobFiles,
        background: Background,
        options: JobOptions,
        webhooks: Mapping[str, Webhook],
        in_journal: Callable[[str], bool],
    ) -> None:
        self._parts = parts
        self._clock = parts.clock
        self._files = files
        self._background = background
        self._options = options
        self._webhooks = webhooks
        self._in_journal = in_journal
        self._agents = {agent.name: agent for agent in parts.options.agents}
        self._work: dict[str, Work] = {}
        self._due: dict[str, int] = {}  # of jobs that were looked at and must wait
        self._backlog: dict[Stage, list[str]] = {}  # what the last look saw beyond what there was room for
        self._looking = False
        self._look_again = False
        self._stopping = False
        self._timer: Timer | None = None
        self._idle: Callable[[], None] | None = None

    def start(self) -> None:
        """From now on take jobs."""
        self._timer = self._clock.call_later(LOOK_NS, self._on_timer)
        self.wake()

    def wake(self) -> None:
        """There may be something to do."""
        if self._stopping:
            return
        if self._looking:
            self._look_again = True
            return
        self._looking = True
        room = {stage: self._options.concurrency - self._count(stage) for stage in _WORKED}
        backlog, self._backlog = self._backlog, {}
        find = partial(_find, self._files, room, self._clock.wall_ns(), frozenset(self._work), dict(self._due), backlog)
        self._background(find, self._found)

    def stop(self, idle: Callable[[], None]) -> None:
        """Take no more jobs; `idle` is called once none is in hand, perhaps before this returns."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self._idle = idle
        self._leave_if_idle()

    def interrupt(self) -> None:
        """Break off what is in hand and leave it to others."""
        self._stopping = True
        for work in list(self._work.values()):
            going, work.going = work.going, None
            if isinstance(going, Try):
                self._break_off(work, going)
                self._let_go(work)
            elif going is not None:
                going.cancel()
                self._let_go(work)

    def _break_off(self, work: Work, going: Try) -> None:
        going.interrupt()
        with suppress(StorageError):  # the journal's own end is its last chance
            going.record.release()
        now = self._clock.wall_ns()
        if work.unwritten is not None:
            self._note(work, work.unwritten)
        elif work.job.answered is None:
            self._note(work, Tried(at=now, retry_at=now, decision=going.record.decision, interrupted=True))

    def _count(self, stage: Stage) -> int:
        return sum(work.stage == stage for work in self._work.values())

    def _on_timer(self) -> None:
        self._timer = self._clock.call_later(LOOK_NS, self._on_timer)
        self._backlog.clear()  # others have taken of it, and older ones may have come back
        self.wake()

    def _found(self, found: "_Found | StorageError") -> None:
        self._looking = False
        if isinstance(found, StorageError):
            _log.error("%s", found)
            self._leave_if_idle()
            return
        now = self._clock.wall_ns()
        self._backlog = found.backlog
        self._due = found.due | {identifier: due for identifier, due in self._due.items() if due > now}
        for stage, claim in found.claims:
            work = Work(claim, stage)
            self._work[claim.job.submitted.id] = work
            if self._stopping:
                self._let_go(work)
            else:
                self._guarded(work, self._begin)
        if self._look_again:
            self._look_again = False
            self.wake()
        self._leave_if_idle()

    def _guarded(self, work: Work, step: Callable[[Work], None]) -> None:
        """Do a step; a defect ends neither the others nor this job, which stays where it is for a while."""
        try:
            step(work)
        except Exception:  # noqa: BLE001 - no caller of a callback could do better
            self._broke(work)

    def _broke(self, work: Work) -> None:
        _log.exception("job %s broke", work.job.submitted.id)
        if isinstance(work.going, Try):
            work.going.interrupt()
        self._later(work, self._clock.wall_ns() + _AFTER_DEFECT_NS)

    def _begin(self, work: Work) -> None:
        job = work.job
        if job.cancelled is not None:
            self._move(work)
        elif job.answered is not None and not (job.recorded or not job.answered.events):
            self._background(partial(self._in_journal, job.answered.decision), partial(self._record_again, work, job.answered))
        elif work.stage == "telling":
            self._tell(work)
        elif job.answered is not None:
            self._move(work)
        else:
            self._try(work)

    def _try(self, work: Work) -> None:
        job, submitted = work.job, work.job.submitted
        endpoint = guarded(submitted.method.encode("latin-1"), submitted.path.encode("latin-1"))
        caller = self._caller(submitted)
        now = self._clock.wall_ns()
        if caller is None or endpoint is None:
            self._refuse(work, endpoint, job_refusals.without_agent(submitted.agent))
        elif now > submitted.deadline:
            self._expire(work, endpoint)
        elif self._note(work, Begun(at=now, call=(call := call_id(job, self._parts.new_id(), now)))):
            work.going = Try(self._parts, caller, endpoint, job, call, partial(self._tried, work))
            work.going.start()
        else:
            self._later(work, now + AGAIN_NS)

    def _caller(self, job: Submitted) -> Caller | None:
        agent = self._agents.get(job.agent)
        return None if agent is None else Caller(agent, job.name, job.release, job.user, job.interaction, job.identified_by)

    def _expire(self, work: Work, endpoint: Endpoint) -> None:
        """The last failure is the answer; where there was none, that it came to no try."""
        last = work.job.last
        if last is not None and last.status:
            self._keep(work, "failed", last.status, last.headers, last.body, last.decision)
        else:
            self._refuse(work, endpoint, job_refusals.expired())

    def _refuse(self, work: Work, endpoint: Endpoint | None, refusal: Refusal) -> None:
        wire_format = (None if endpoint is None else endpoint.format) or error_format("openai")
        headers = (("content-type", "application/json"), ("x-holdfast-refusal", refusal.kind))
        self._parts.recorder.append(_error(work.job.submitted, refusal, self._clock.wall_ns(), self._parts.new_id()))
        self._keep(work, "failed", refusal.status, headers, wire_format.refusal(refusal))

    def _tried(self, work: Work, outcome: Outcome) -> None:
        try:
            self._conclude(work, outcome)
        except Exception:  # noqa: BLE001 - the guard's own callback: it must not take our defect for its own
            self._broke(work)

    def _conclude(self, work: Work, outcome: Outcome) -> None:
        assert isinstance(work.going, Try)
        record, job = work.going.record, work.job
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in outcome.headers)
        now = self._clock.wall_ns()
        again: int | None = None
        if outcome.too_long:
            self._refuse(work, None, job_refusals.answer_too_long(MAX_ANSWER))
            return
        if not outcome.judged:
            asked_ns = retry_after_ns(outcome.headers, now)
            again = retry_at(self._options, job.submitted, job.failures, outcome.status, asked_ns, self._parts.uniform(), now)
        if again is None:
            ending: Ending = "done" if outcome.done else "failed"
            self._keep(work, ending, outcome.status or 502, headers, outcome.body, record.decision, record.lines())
            return
        record.queued()
        work.going = None
        body = outcome.body if len(outcome.body) <= _MOST_OF_A_FAILURE else b""
        self._note(work, Tried(at=now, retry_at=again, status=outcome.status, headers=headers, body=body, decision=record.decision))
        with suppress(StorageError):  # the journal holds it until it can be written
            record.release()
        self._later(work, again)

    def _keep(
        self,
        work: Work,
        ending: Ending,
        status: int,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
        decision: str = "",
        events: bytes = b"",
    ) -> None:
        answered = Answered(
            at=self._clock.wall_ns(), ending=ending, status=status, headers=headers, body=body, decision=decision, events=events
        )
        self._write(work, answered)

    def _write(self, work: Work, answered: Answered) -> None:
        """The end of a job; as long as it cannot be written this process keeps it, and the job."""
        if self._note(work, answered):
            work.unwritten = None
            self._record(work)
        else:
            work.unwritten = answered
            self._clock.call_later(AGAIN_NS, partial(self._guarded, work, lambda work: self._write(work, answered)))

    def _record(self, work: Work) -> None:
        """Its events, which are in the file already, go into the journal too."""
        going = work.going
        try:
            if isinstance(going, Try):
                going.record.release()
            else:
                self._parts.recorder.flush()
        except StorageError:
            self._clock.call_later(AGAIN_NS, partial(self._guarded, work, self._record))
            return
        if work.job.answered is not None and work.job.answered.events:
            self._note(work, Recorded(at=self._clock.wall_ns()))
        work.going = None
        self._move(work)

    def _record_again(self, work: Work, answered: Answered, known: bool | StorageError) -> None:
        """Whoever was answered died before it was seen to be on record."""
        if isinstance(known, StorageError):
            self._later(work, self._clock.wall_ns() + AGAIN_NS)
            return
        for line in answered.events.split(b"\n") if not known else ():
            with suppress(*UNREADABLE):
                self._parts.recorder.append(decode(line))
        self._guarded(work, self._record)

    def _move(self, work: Work) -> None:
        """To the next stage; in another thread, because it waits for the disk."""
        job = work.job
        stage: Stage = "telling" if job.to_tell else "ended"

        def moved(error: StorageError | None) -> None:
            if error is not None:
                _log.error("%s", error)
                self._due[job.submitted.id] = self._clock.wall_ns() + AGAIN_NS
            self._drop(work)

        self._background(partial(work.claim.move, stage), moved)

    def _tell(self, work: Work) -> None:
        name = work.job.submitted.webhook
        webhook = self._webhooks.get(name)
        if not work.job.to_tell:
            self._move(work)
        elif webhook is None or webhook.error:
            why = f"the configuration has no webhook {name}" if webhook is None else webhook.error
            now = self._clock.wall_ns()
            assert work.job.answered is not None
            self._told(
                work, Told(at=now, why=why, retry_at=tell_at(work.job.tellings, work.job.answered.at, 0, self._parts.uniform(), now))
            )
        else:
            work.going = telling = Telling(self._parts.upstream, self._clock, partial(self._heard, work))
            telling.start(webhook, work.job)

    def _heard(self, work: Work, heard: Heard) -> None:
        """Runs in a callback of the transport."""
        answered = work.job.answered
        assert answered is not None
        now = self._clock.wall_ns()
        again = tell_at(work.job.tellings, answered.at, heard.status, self._parts.uniform(), now) if heard.why else 0
        work.going = None
        self._parts.recorder.append(_api_call(work.job, heard, now, self._parts.new_id()))
        with suppress(StorageError):  # the journal holds it until it can be written
            self._parts.recorder.flush()
        self._guarded(work, lambda work: self._told(work, Told(at=now, status=heard.status, why=heard.why, retry_at=again)))

    def _told(self, work: Work, told: Told) -> None:
        written = self._note(work, told)
        if told.retry_at or not written:
            self._later(work, told.retry_at or told.at + AGAIN_NS)
        else:
            self._move(work)

    def _note(self, work: Work, record: JobRecord) -> bool:
        try:
            work.claim.append(record)
        except StorageError as error:
            _log.error("%s", error)
            return False
        return True

    def _later(self, work: Work, due: int) -> None:
        self._due[work.job.submitted.id] = due
        self._let_go(work)

    def _let_go(self, work: Work) -> None:
        work.claim.release()
        self._drop(work)

    def _drop(self, work: Work) -> None:
        self._work.pop(work.job.submitted.id, None)
        self._leave_if_idle()
        self.wake()

    def _leave_if_idle(self) -> None:
        if self._idle is not None and not self._work and not self._looking:
            idle, self._idle = self._idle, None
            idle()


class _Found(Struct, frozen=True):
    """claims: to be worked on now, with their stage. due: when those may begin that must wait. backlog: what there was no room for."""

    claims: list[tuple[Stage, Claim]]
    due: dict[str, int]
    backlog: dict[Stage, list[str]]


def _find(
    files: JobFiles,
    room: Mapping[Stage, int],
    now: int,
    held: frozenset[str],
    known: Mapping[str, int],
    backlog: Mapping[Stage, list[str]],
) -> _Found:
    """Claim what is due, the oldest first, as far as there is room; of the backlog, where there is one: ten thousand names take 11 ms."""
    ids = {stage: backlog.get(stage) or files.ids(stage) for stage in _WORKED}
    found = _Found([], {identifier: due for identifier, due in known.items() if due > now}, {})
    for stage in _WORKED:
        wanted = [each for each in ids[stage] if each not in held and each not in found.due]
        found.backlog[stage] = wanted[_claim(files, stage, wanted, room[stage], now, found) :][:_MOST_BACKLOG]
    return found


def _claim(files: JobFiles, stage: Stage, ids: list[str], room: int, now: int, into: _Found) -> int:
    """How many of the ids were looked at."""
    for at, identifier in enumerate(ids):
        if room <= 0:
            return at
        try:
            claim = files.claim(stage, identifier)
        except StorageError:
            if into.claims:  # they are ours already, and must not be lost sight of
                return at
            raise
        if claim is not None and claim.job.due > now:
            into.due[identifier] = claim.job.due
            claim.release()
        elif claim is not None:
            into.claims.append((stage, claim))
            room -= 1
    return len(ids)


def _api_call(job: Job, heard: Heard, now: int, identifier: str) -> ApiCall:
    submitted, answered = job.submitted, job.answered
    return ApiCall(
        call_id=identifier,
        timestamp=now - heard.latency_ns,
        agent=submitted.name,
        release=submitted.release,
        user_id=submitted.user,
        interaction=submitted.interaction,
        decision_id="" if answered is None else answered.decision,
        target_api=f"webhook {submitted.webhook}",
        response_code=heard.status,
        latency_ms=heard.latency_ns // 1_000_000,
        attempt=job.tellings + 1,
        retry_count=job.tellings,
        bytes_sent=heard.sent,
        cost=0,
    )


def _error(job: Submitted, refusal: Refusal, now: int, identifier: str) -> Error:
    return Error(
        error_id=identifier,
        timestamp=now,
        agent=job.name,
        release=job.release,
        user_id=job.user,
        interaction=job.interaction,
        error_type="refused",
        message=f"job {job.id}: {refusal.message}",
        recovery_action="refused",
        severity="warning",
    )
