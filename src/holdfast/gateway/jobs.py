"""The door to jobs: takes a call that asks to be answered later, and says what became of it to whoever may know.

`POST` of a guarded endpoint with `Prefer: respond-async` (RFC 7240): 202, kept on stable storage before that. `GET /jobs/ID`: how it
stands. `GET /jobs/ID/answer`: the very answer. `DELETE /jobs/ID`: cancels a queued job, removes an ended one.
"""

from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b

import msgspec

from holdfast.clock import SECOND
from holdfast.errors import MalformedRequest, StorageError
from holdfast.execution.background import Background
from holdfast.gateway import job_refusals
from holdfast.gateway.delivery import Delivery
from holdfast.gateway.endpoints import Endpoint, unread
from holdfast.gateway.gate import Entry, killed
from holdfast.gateway.identity import Caller
from holdfast.gateway.job_answers import JobAnswers
from holdfast.gateway.job_webhook import Webhook
from holdfast.gateway.job_worker import JobWorker
from holdfast.gateway.parts import Parts
from holdfast.gateway.recording import Origin
from holdfast.http.message import Request, Response
from holdfast.http.prefer import respond_async, wait_s
from holdfast.policy.job import POLL_NS, Cancelled, Job, JobOptions, Submitted, describe, look_again_s
from holdfast.store.jobs import Census, JobFiles
from holdfast.wire.call import Call, Refusal, WireFormat

PREFIX = b"/jobs/"
"""What the paths of jobs begin with."""

CENSUS_NS = 10 * SECOND
"""How often jobs are counted, and those removed that were kept long enough."""

_NOT_KEPT = frozenset(
    {b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"cookie", b"prefer", b"host", b"content-length", b"connection"}
    | {b"transfer-encoding", b"expect", b"x-holdfast-webhook", b"proxy-authorization"}
)
"""Keys do not lie about in files; whose job it is was found out already."""

_NOT_OF_THE_ANSWER = frozenset({"retry-after", "x-should-retry", "content-length", "date"})
"""They were said of the try; that a job has failed cannot be changed by asking again."""

_JSON = (b"content-type", b"application/json")
_APPLIED = (b"preference-applied", b"respond-async")
_IDS = frozenset(b"0123456789abcdef-")
_LONGEST_ID = 36


class Jobs:
    """The jobs of a gateway. worker: works them off. webhooks: by name."""

    def __init__(
        self,
        parts: Parts,
        files: JobFiles,
        background: Background,
        options: JobOptions,
        webhooks: Mapping[str, Webhook],
        in_journal: Callable[[str], bool],
    ) -> None:
        self.worker = JobWorker(parts, files, background, options, webhooks, in_journal)
        self._parts = parts
        self._clock = parts.clock
        self._answers = JobAnswers(parts.clock)
        self._files = files
        self._background = background
        self._options = options
        self._webhooks = webhooks
        self._census = Census(0, 0)
        self._since = Census(0, 0)  # taken since that census began

    def start(self) -> None:
        self._count()
        self.worker.start()

    def takes(self, caller: Caller, endpoint: Endpoint, request: Request, response: Response) -> bool:
        """Whether the request becomes a job, and is answered here.

        Not when it does not ask for it, and not when the guard would refuse it at once: then the guard is to say so, and record it.
        """
        if not caller.prefers or endpoint.format is None:
            return False
        if not respond_async(request):
            if alone := request.header(b"x-holdfast-webhook") is not None:
                Delivery(response, endpoint).refusal(job_refusals.webhook_alone())
            return alone
        try:
            call = endpoint.format.parse(request.body)
        except MalformedRequest:
            return False
        if self._killed(caller, endpoint, endpoint.format, call):
            return False
        webhook = (request.header(b"x-holdfast-webhook") or b"").decode("latin-1")
        delivery = Delivery(response, endpoint)
        if webhook and webhook not in self._webhooks:
            delivery.refusal(job_refusals.unknown_webhook(webhook, self._webhooks))
        elif self._full(len(request.body)):
            delivery.refusal(job_refusals.queue_full(self._census.jobs + self._since.jobs))
        else:
            job = self._job(caller, call, request, webhook)
            self._since = Census(self._since.jobs + 1, self._since.size + len(job.body))
            self._background(partial(self._files.add, job, _key(caller, request)), partial(self._added, job, delivery, response))
        return True

    def page(self, caller: Caller, request: Request, response: Response) -> None:
        """Answer a request about a job."""
        identifier, slash, rest = request.path[len(PREFIX) :].partition(b"/")
        delivery = Delivery(response, unread(request.method, request.path, "openai"))
        asked = (request.method.replace(b"HEAD", b"GET"), slash + rest)
        answer = {(b"GET", b""): self._describe, (b"GET", b"/answer"): self._answer}.get(asked)
        if not 0 < len(identifier) <= _LONGEST_ID or not _IDS.issuperset(identifier) or (answer is None and asked != (b"DELETE", b"")):
            delivery.refusal(_unknown(request))
            return
        until_ns = self._clock.monotonic_ns() + wait_s(request) * SECOND
        visit = _Visit(caller, request, response, delivery, identifier.decode("ascii"), until_ns)
        response.disconnected = visit.leave
        if answer is None:
            self._background(partial(self._remove, visit), partial(self._removed, visit))
        else:
            self._look(visit, answer)

    def _full(self, more: int) -> bool:
        jobs, size = self._census.jobs + self._since.jobs, self._census.size + self._since.size
        return jobs >= self._options.max or size + more > self._options.max_bytes

    def _killed(self, caller: Caller, endpoint: Endpoint, wire_format: WireFormat, call: Call) -> bool:
        kills = self._parts.gate.kills()
        if not kills.active:
            return False
        agent = caller.agent
        origin = Origin(agent=caller.name, release=caller.release, run="", user="", interaction="", identified_by="", keep_content=False)
        entry = Entry(call=call, agent=agent, origin=origin, endpoint=endpoint, price=None, began_wall_ns=0, total_at_ns=0)
        destinations = self._parts.routing.destinations(agent, call.model, wire_format)
        return bool(destinations) and all(killed(kills, entry, destination) is not None for destination in destinations)

    def _job(self, caller: Caller, call: Call, request: Request, webhook: str) -> Submitted:
        now = self._clock.wall_ns()
        return Submitted(
            id=self._parts.new_id(),
            at=now,
            agent=caller.agent.name,
            name=caller.name,
            release=caller.release,
            user=caller.user,
            interaction=caller.interaction,
            identified_by=caller.identified_by,
            model=call.model.encode("utf-8", "replace").decode(),
            method=request.method.decode("latin-1"),
            path=request.path.decode("latin-1"),
            query=request.query.decode("latin-1"),
            headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers if name not in _NOT_KEPT),
            body=request.body,
            deadline=now + self._options.deadline_ns,
            webhook=webhook,
        )

    def _added(self, job: Submitted, delivery: Delivery, response: Response, kept: Job | StorageError) -> None:
        if isinstance(kept, StorageError):
            self._not_kept(job)
            delivery.refusal(job_refusals.unavailable(str(kept)))
            return
        if kept.submitted.id != job.id:  # sent again
            self._not_kept(job)
            if (kept.submitted.path, kept.submitted.body) != (job.path, job.body):
                delivery.refusal(job_refusals.other_request())
                return
        location = "/jobs/" + kept.submitted.id
        body = msgspec.json.encode({"id": kept.submitted.id, "status": kept.status, "location": location})
        headers = (_JSON, _APPLIED, (b"location", location.encode("ascii")), (b"retry-after", b"1"))
        response.send(202, headers, body + b"\n")
        self.worker.wake()

    def _not_kept(self, job: Submitted) -> None:
        self._since = Census(self._since.jobs - 1, self._since.size - len(job.body))

    def _look(self, visit: "_Visit", answer: "_Page") -> None:
        self._background(partial(_read, self._files, visit.identifier), partial(self._read, visit, answer))

    def _read(self, visit: "_Visit", answer: "_Page", found: "_Sight | StorageError") -> None:
        if isinstance(found, StorageError):
            visit.delivery.refusal(job_refusals.unavailable(str(found)))
        elif found.job is None or not visit.owns(found.job):
            visit.delivery.refusal(_unknown(visit.request))
        elif found.job.ended_at is None and self._clock.monotonic_ns() < visit.until_ns:
            self._wait(visit, answer, found.mark)
        else:
            answer(visit, found.job)

    def _wait(self, visit: "_Visit", answer: "_Page", mark: "_Mark") -> None:
        """Until there is more to read, or the patience is over."""

        def compare(now: "_Mark | StorageError") -> None:
            if now == mark and self._clock.monotonic_ns() < visit.until_ns:
                self._wait(visit, answer, mark)
            else:
                self._look(visit, answer)

        self._clock.call_later(POLL_NS, lambda: self._background(partial(self._files.mark, visit.identifier), compare))

    def _describe(self, visit: "_Visit", job: Job) -> None:
        headers = [_JSON]
        if job.ended_at is None:
            headers.append((b"retry-after", b"%d" % look_again_s(job, self._clock.wall_ns())))
        visit.response.send(200, headers, msgspec.json.encode(describe(job)) + b"\n")

    def _answer(self, visit: "_Visit", job: Job) -> None:
        answered = job.answered
        if answered is not None:
            kept = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answered.headers if name not in _NOT_OF_THE_ANSWER]
            if answered.status >= 400:
                kept.append((b"x-should-retry", b"false"))
            kept.append((b"x-holdfast-job", job.submitted.id.encode("ascii")))
            if not self._answers.send(visit.response, answered.status, kept, answered.body):
                visit.delivery.refusal(job_refusals.too_many_readers())
        elif job.cancelled is not None:
            visit.delivery.refusal(job_refusals.cancelled())
        else:
            visit.delivery.refusal(job_refusals.not_ended(job.status, look_again_s(job, self._clock.wall_ns())))

    def _remove(self, visit: "_Visit") -> Refusal | bool:
        """In another thread. True: cancelled; False: an ended job was removed."""
        files, identifier = self._files, visit.identifier
        claim = files.claim("waiting", identifier)
        job = files.read(identifier) if claim is None else claim.job
        try:
            if job is None or not visit.owns(job):
                return _unknown(visit.request)
            if claim is not None and job.ended_at is None:
                claim.append(Cancelled(at=self._clock.wall_ns()))
                claim.move("ended")
                return True
        finally:
            if claim is not None:
                claim.release()
        return False if files.forget(identifier) else job_refusals.running()

    def _removed(self, visit: "_Visit", outcome: Refusal | bool | StorageError) -> None:
        if isinstance(outcome, StorageError):
            visit.delivery.refusal(job_refusals.unavailable(str(outcome)))
        elif isinstance(outcome, Refusal):
            visit.delivery.refusal(outcome)
        else:
            status = "cancelled" if outcome else "removed"
            visit.response.send(200, (_JSON,), msgspec.json.encode({"id": visit.identifier, "status": status}) + b"\n")

    def _count(self) -> None:
        ended_before_ns = self._clock.wall_ns() - self._options.keep_ns
        self._background(partial(self._files.census, ended_before_ns), partial(self._counted, self._since))

    def _counted(self, before: Census, census: Census | StorageError) -> None:
        if isinstance(census, Census):
            self._census = census
            self._since = Census(self._since.jobs - before.jobs, self._since.size - before.size)
        self._clock.call_later(CENSUS_NS, self._count)


class _Visit(msgspec.Struct):
    """Somebody who asks about a job. until_ns: how long they would wait for its end."""

    caller: Caller
    request: Request
    response: Response
    delivery: Delivery
    identifier: str
    until_ns: int

    def leave(self) -> None:
        """Nobody is left to wait."""
        self.until_ns = 0

    def owns(self, job: Job) -> bool:
        """Whether it is theirs: of the agent whose key they sent."""
        return job.submitted.name == self.caller.name and job.submitted.agent == self.caller.agent.name


_Page = Callable[[_Visit, Job], None]
_Mark = tuple[str, int] | None


class _Sight(msgspec.Struct, frozen=True):
    """A job, and the mark that it had before it was read."""

    job: Job | None
    mark: _Mark


def _read(files: JobFiles, identifier: str) -> _Sight:
    mark = files.mark(identifier)
    return _Sight(files.read(identifier), mark)


def _key(caller: Caller, request: Request) -> str:
    """What stands for the agent's `Idempotency-Key` among files; "" where it sends none."""
    given = request.header(b"idempotency-key")
    if not given:
        return ""
    owner = f"{caller.agent.name!r}|{caller.name!r}|".encode("utf-8", "replace")
    return blake2b(owner + given, digest_size=16).hexdigest()


def _unknown(request: Request) -> Refusal:
    return job_refusals.unknown_job(request.path.decode("latin-1"))
