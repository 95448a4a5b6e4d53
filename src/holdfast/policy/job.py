"""A job: a call that is answered later. What is written down of one, what that amounts to, and what follows when a try ends.

A job is what its records add up to, in the order in which they were written; `Job.take` adds one. All instants are wall clock, in
nanoseconds.
"""

from typing import Literal

from msgspec import Struct

from holdfast.clock import MILLISECOND, SECOND, to_iso

JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]
Ending = Literal["done", "failed"]
Pairs = tuple[tuple[str, str], ...]


class JobOptions(Struct, frozen=True, kw_only=True):
    """deadline_ns: after it was submitted, the last moment at which a try may begin. concurrency: tries of one worker at a time, >= 1, and
    as many deliveries to webhooks. max, max_bytes: jobs kept, ended ones too, and what they take on disk. keep_ns: how long an ended job
    can be fetched. base_ns, cap_ns: between two tries, the first back-off and the longest, before jitter."""

    deadline_ns: int = 3600 * SECOND
    concurrency: int = 8
    max: int = 10_000
    max_bytes: int = 1 << 30
    keep_ns: int = 24 * 3600 * SECOND
    base_ns: int = SECOND
    cap_ns: int = 30 * SECOND


class Submitted(Struct, frozen=True, kw_only=True, tag="submitted", tag_field="kind", omit_defaults=True):
    """The first record: the request, without its key, and whose it is (see `holdfast.gateway.identity.Caller`). deadline: no try begins
    after it. webhook: the name of the one that is told of the end, "" for none."""

    id: str
    at: int
    agent: str
    name: str
    release: str
    user: str = ""
    interaction: str = ""
    identified_by: str = ""
    model: str = ""
    method: str
    path: str
    query: str = ""
    headers: Pairs
    body: bytes
    deadline: int
    webhook: str = ""


class Begun(Struct, frozen=True, kw_only=True, tag="begun", tag_field="kind"):
    """A try was about to be made. call: under which it will be on record."""

    at: int
    call: str


class Tried(Struct, frozen=True, kw_only=True, tag="tried", tag_field="kind", omit_defaults=True):
    """A try ended without an answer that may be kept. status: 0 where there was none. interrupted: it was broken off from here, and counts
    for nothing. decision: under which the try is on record."""

    at: int
    retry_at: int
    status: int = 0
    headers: Pairs = ()
    body: bytes = b""
    decision: str = ""
    interrupted: bool = False


class Answered(Struct, frozen=True, kw_only=True, tag="answered", tag_field="kind", omit_defaults=True):
    """The end. From here on the job is never tried again. events: lines of the journal that go with the answer and may not be in it yet."""

    at: int
    ending: Ending
    status: int
    headers: Pairs
    body: bytes
    decision: str = ""
    events: bytes = b""


class Recorded(Struct, frozen=True, kw_only=True, tag="recorded", tag_field="kind"):
    """The events of the answer are in the journal."""

    at: int


class Cancelled(Struct, frozen=True, kw_only=True, tag="cancelled", tag_field="kind"):
    """Whose job it is did not want it any more, before it was tried."""

    at: int


class Told(Struct, frozen=True, kw_only=True, tag="told", tag_field="kind", omit_defaults=True):
    """The webhook was sent the end. status: what it answered, 0 for nothing. why: it did not. retry_at: 0 when it is not tried again."""

    at: int
    status: int = 0
    why: str = ""
    retry_at: int = 0


JobRecord = Submitted | Begun | Tried | Answered | Recorded | Cancelled | Told


class Job:
    """What the records of one job add up to. tries: that were begun, those that a crash ended among them. failures: tries that were
    answered, if only with a failure. last: the latest of those. crashed: the try whose end nobody wrote down, perhaps because it still
    goes on. told: what became of the webhook so far, the latest of `tellings`."""

    def __init__(self, submitted: Submitted) -> None:
        self.submitted = submitted
        self.tries = 0
        self.failures = 0
        self.last: Tried | None = None
        self.answered: Answered | None = None
        self.recorded = False
        self.cancelled: Cancelled | None = None
        self.told: Told | None = None
        self.tellings = 0
        self.crashed: Begun | None = None
        self._due = 0  # at once, whatever a wall clock does that is set back

    def take(self, record: JobRecord) -> None:
        """Add the next record."""
        if isinstance(record, Begun):
            self.tries += 1
            self.crashed = record
        elif isinstance(record, Tried):
            self._take_try(record)
        elif isinstance(record, Answered):
            self.answered = record
            self._due = 0
        elif isinstance(record, Recorded):
            self.recorded = True
        elif isinstance(record, Cancelled):
            self.cancelled = record
        elif isinstance(record, Told):
            self.told = record
            self.tellings += 1
            self._due = record.retry_at

    def _take_try(self, tried: Tried) -> None:
        self.crashed = None
        self._due = 0 if tried.interrupted else tried.retry_at
        if not tried.interrupted:
            self.failures += 1
            self.last = tried

    @property
    def status(self) -> JobStatus:
        if self.answered is not None:
            return self.answered.ending
        if self.cancelled is not None:
            return "cancelled"
        return "queued" if self.crashed is None else "running"

    @property
    def ended_at(self) -> int | None:
        """None for one that has not ended."""
        ended = self.answered or self.cancelled
        return None if ended is None else ended.at

    @property
    def to_tell(self) -> bool:
        """It has ended, and its webhook has not heard of it, and shall."""
        return self.answered is not None and bool(self.submitted.webhook) and (self.told is None or self.told.retry_at > 0)

    @property
    def due(self) -> int:
        """When the next try, or the next word to the webhook, may begin."""
        return self._due


SAME_CALL_NS = 1800 * SECOND
"""How long a try that a crash ended is begun anew as the same call, and with the same idempotency key: providers that know such keys then
do its work once. Later its id would no longer tell the time at which it is on record."""


def call_id(job: Job, new: str, now: int) -> str:
    """The id of the call that the next try makes; new: a fresh one."""
    crashed = job.crashed
    return crashed.call if crashed is not None and 0 <= now - crashed.at < SAME_CALL_NS else new


RETRIED_STATUS = frozenset({408, 409, 429})
"""Beside every 5xx: what may go better later although nobody changes anything."""


def retry_at(options: JobOptions, job: Submitted, failures: int, status: int, asked_ns: int | None, jitter: float, now: int) -> int | None:
    """When a job may be tried again of which a try has just failed; None when it has failed for good.

    failures: of its tries before. status: of the answer, 0 for none at all. asked_ns: `Retry-After`, honoured in full. jitter: uniform in
    [0, 1). The pause is between a half and the whole of a doubling back-off: without any pause a dead provider would be asked for nothing.
    """
    if status and status < 500 and status not in RETRIED_STATUS:
        return None
    pause = min(options.cap_ns, options.base_ns << min(failures, 30))
    at = now + max(pause // 2 + int(pause // 2 * jitter), asked_ns or 0)
    return at if at <= job.deadline else None


TELL_NS = 24 * 3600 * SECOND
"""How long a webhook is told again that does not answer with a 2xx."""

_TELL_BASE_NS = 5 * SECOND
_TELL_CAP_NS = 3600 * SECOND
GONE = 410
"""By Standard Webhooks a receiver says so when it wants nothing more."""


def tell_at(told: int, ended: int, status: int, jitter: float, now: int) -> int:
    """When a webhook is told again that has just not taken it; 0 for never. told: how often before. ended: when the job did."""
    pause = min(_TELL_CAP_NS, _TELL_BASE_NS << min(told, 30))
    at = now + pause // 2 + int(pause // 2 * jitter)
    return 0 if status == GONE or at > ended + TELL_NS else at


LEAST_PAUSE_S = 1


def look_again_s(job: Job, now: int) -> int:
    """What `Retry-After` says to whoever asks for a job that has not ended."""
    return max(LEAST_PAUSE_S, min(60, -(-(job.due - now) // SECOND))) if job.status == "queued" else LEAST_PAUSE_S


POLL_NS = 250 * MILLISECOND
"""How often a job is looked at for somebody who waits for it (`Prefer: wait`)."""


def describe(job: Job) -> dict[str, object]:
    """How a job stands, for JSON."""
    submitted, answered = job.submitted, job.answered
    told: dict[str, object] = {}
    if submitted.webhook:
        taken = job.told is not None and not job.told.why
        told = {
            "webhook": {"name": submitted.webhook, "told": taken, "tries": job.tellings, "why": "" if job.told is None else job.told.why}
        }
    where = f"/jobs/{submitted.id}"
    answer: dict[str, object] = {}
    if answered is not None:
        answer = {"answer": {"status": answered.status, "location": f"{where}/answer"}, "decision": answered.decision}
    elif job.last is not None:
        answer = {"last_failure": {"status": job.last.status, "at": to_iso(job.last.at), "tried_again_at": to_iso(job.last.retry_at)}}
    return {
        "id": submitted.id,
        "status": job.status,
        "location": where,
        "agent": submitted.name,
        "model": submitted.model,
        "api": f"{submitted.method} {submitted.path}",
        "created_at": to_iso(submitted.at),
        "deadline": to_iso(submitted.deadline),
        "ended_at": None if job.ended_at is None else to_iso(job.ended_at),
        "tries": job.tries,
        **answer,
        **told,
    }
