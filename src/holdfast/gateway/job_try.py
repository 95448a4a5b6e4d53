"""One try of a job: a guarded call like any other, whose answer goes into the job's file before anything else learns of it.

What the call records is held back until then. So an answer is either safe, or nothing of it is on record: a process that dies in between
leaves no decision behind that nobody can fetch, and no answer that is bought a second time.
"""

from collections.abc import Callable

from msgspec import Struct, structs

from holdfast.events import ApiCall, Decision, Error, Event, encode_into
from holdfast.execution.recording import Recorder
from holdfast.execution.upstream import Headers
from holdfast.gateway.call import GuardedCall
from holdfast.gateway.endpoints import Endpoint
from holdfast.gateway.identity import Caller
from holdfast.gateway.parts import Parts
from holdfast.http.message import Request
from holdfast.policy.job import Job, Submitted

MAX_ANSWER = 16 << 20
"""Bytes of a stream that a try may hold in memory; a longer one ends its job. Whole answers have the bound of `execution.attempt`."""


class Outcome(Struct, frozen=True):
    """How a try ended. status: 0 where nothing came. judged: the guard took it for an answer, so it is never asked for again. too_long: it
    was cut off at MAX_ANSWER."""

    status: int
    headers: Headers
    body: bytes
    judged: bool
    too_long: bool = False

    @property
    def done(self) -> bool:
        return self.judged and 0 < self.status < 400


class HeldRecord:
    """A `Recorder` that holds back the events of a try from its second flush on, until `release`. judged: the guard took what came
    for an answer. decision: its id, "" before any event."""

    def __init__(self, recorder: Recorder, job: str, *, retried: bool) -> None:
        self.judged = False
        self.decision = ""
        self.has_context = recorder.has_context
        self._recorder = recorder
        self._job = job
        self._retried = retried
        self._events: list[Event] = []
        self._begun = False
        self._failed = False  # the latest attempt

    def append(self, event: Event) -> None:
        if isinstance(event, Decision):
            self.judged = self.judged or (event.complete and (not self._failed or event.recovery_action == "canned"))
            recovery = "queued" if self._retried and event.recovery_action == "none" else event.recovery_action
            event = structs.replace(event, job=self._job, recovery_action=recovery)
        elif isinstance(event, ApiCall):
            self._failed = bool(event.error_id)
        if isinstance(event, ApiCall | Decision | Error):
            self.decision = event.decision_id or self.decision
        self._events.append(event)

    def flush(self) -> None:
        """The first one is that with which a call finds out, before it costs anything, whether it can be recorded. Raises StorageError."""
        if not self._begun:
            self.release()
            self._begun = True

    def queued(self) -> None:
        """The job will be tried again: that is what is done about the failure."""
        for at, event in enumerate(self._events):
            if isinstance(event, Error) and event.recovery_action in ("none", "refused"):
                self._events[at] = structs.replace(event, recovery_action="queued", severity="warning")

    def release(self) -> None:
        """Hand over everything; raises StorageError, and the recorder has it all the same."""
        events, self._events = self._events, []
        for event in events:
            self._recorder.append(event)
        self._recorder.flush()

    def lines(self) -> bytes:
        """What is held back, as lines of a journal."""
        lines = bytearray()
        for event in self._events:
            encode_into(event, lines)
        return bytes(lines)


class Collected:
    """A `Response` that keeps what it is given; `ended` hears of its end, which comes once."""

    def __init__(self, ended: Callable[["Collected"], None]) -> None:
        self.disconnected: Callable[[], None] | None = None
        self.pausing: Callable[[], None] | None = None
        self.resuming: Callable[[], None] | None = None
        self.status = 0
        self.headers: Headers = ()
        self.size = 0
        self.cut = False
        self.too_long = False
        self._pieces: list[bytes] = []
        self._ended = ended
        self._over = False

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        self.start(status, headers)
        self._take(body)
        self.end()

    def start(self, status: int, headers: Headers, length: int | None = None) -> None:
        if not self._over:
            self.status, self.headers = status, headers

    def write(self, data: bytes) -> None:
        self._take(data)
        if self.size > MAX_ANSWER and not self._over:
            self.too_long = True
            self.leave()
            self._ended(self)

    def _take(self, data: bytes) -> None:
        if not self._over and data:
            self.size += len(data)
            self._pieces.append(data)

    def end(self) -> None:
        if not self._over:
            self._over = True
            self._ended(self)

    def abort(self) -> None:
        self.cut = True
        self.end()

    def leave(self) -> None:
        """As a client does that closes its connection: the call ends without an answer."""
        if not self._over:
            self._over = True
            if self.disconnected is not None:
                self.disconnected()


class _TryParts(Parts, frozen=True, kw_only=True):
    """The parts of one call. call_id: it has that id; the keys by which providers tell repetitions are made from it."""

    call_id: str

    def new_id(self) -> str:
        return self.call_id


class Try:
    """Begins with `start`; `ended` hears how it ended, in the callback in which the last of its answer comes."""

    def __init__(self, parts: Parts, caller: Caller, endpoint: Endpoint, job: Job, call_id: str, ended: Callable[[Outcome], None]) -> None:
        self.record = HeldRecord(parts.recorder, job.submitted.id, retried=job.failures > 0)
        self._parts = _TryParts(**(structs.asdict(parts) | {"recorder": self.record, "call_id": call_id}))
        self._caller = caller
        self._endpoint = endpoint
        self._request = _request(job.submitted)
        self._response = Collected(self._over)
        self._ended = ended

    def start(self) -> None:
        GuardedCall(self._parts, self._caller, self._endpoint, self._request, self._response).start()

    def interrupt(self) -> None:
        """Break it off; `ended` hears nothing."""
        self._response.leave()

    def _over(self, response: Collected) -> None:
        judged = self.record.judged and not response.cut
        if (
            response.cut or response.too_long or (not judged and response.status < 400)
        ):  # a stream may end properly, with an event of its failure
            self._ended(Outcome(0, (), b"", judged, response.too_long))
        else:
            self._ended(Outcome(response.status, response.headers, response.body, judged))


def _request(job: Submitted) -> Request:
    return Request(
        method=job.method.encode("latin-1"),
        path=job.path.encode("latin-1"),
        query=job.query.encode("latin-1"),
        headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in job.headers],
        body=job.body,
        peer="",
    )
