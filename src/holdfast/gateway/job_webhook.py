"""Tells a webhook how a job ended: one signed POST (Standard Webhooks 1.0); whether and when it is told again is `policy.job.tell_at`."""

from collections.abc import Callable

import msgspec
from msgspec import Raw, Struct

from holdfast.clock import SECOND, Clock, Timer, to_iso
from holdfast.errors import TimedOut, UpstreamError
from holdfast.execution.upstream import Exchange, Headers, Origin, Upstream, UpstreamRequest
from holdfast.policy.job import Answered, Job
from holdfast.policy.webhook import signed, signing_key

CONNECT_NS = 5 * SECOND
TOTAL_NS = 15 * SECOND
_MOST_JSON = 4 << 20
"""A longer answer is not looked at to see whether it is JSON."""


class Webhook(Struct, frozen=True, kw_only=True):
    """A receiver that the configuration names. target: the path. secret: what `policy.webhook.signing_key` takes, "" when there is none;
    error says why, and the way out."""

    name: str
    origin: Origin
    target: str
    secret: str
    error: str = ""


class Heard(Struct, frozen=True):
    """What came back. status: 0 for nothing, and `why` says so. latency_ns: since it was sent. sent: bytes."""

    status: int
    why: str
    latency_ns: int
    sent: int


class Telling:
    """One word to a webhook; `done` hears what came of it, but not after `cancel`."""

    def __init__(self, upstream: Upstream, clock: Clock, done: Callable[[Heard], None]) -> None:
        self._upstream = upstream
        self._clock = clock
        self._done = done
        self._status = 0
        self._began_ns = clock.monotonic_ns()
        self._sent = 0
        self._over = False
        self._exchange: Exchange | None = None
        self._timer: Timer | None = None

    def start(self, webhook: Webhook, job: Job) -> None:
        """Send it; `done` may be called before this returns."""
        submitted, answered = job.submitted, job.answered
        assert answered is not None
        body = message(job, answered)
        self._sent = len(body)
        now_s = self._clock.wall_ns() // SECOND
        headers = (
            (b"content-type", b"application/json"),
            (b"user-agent", b"Holdfast"),
            *signed(signing_key(webhook.secret), submitted.id, now_s, body),
        )
        request = UpstreamRequest(
            origin=webhook.origin,
            method=b"POST",
            target=webhook.target.encode("ascii"),
            headers=headers,
            body=body,
            connect_timeout_ns=CONNECT_NS,
        )
        self._timer = self._clock.call_later(TOTAL_NS, self._late)
        exchange = self._upstream.send(request, self)
        if not self._over:
            self._exchange = exchange

    def cancel(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._exchange is not None:
            self._exchange.cancel()

    def response_started(self, status: int, headers: Headers) -> None:
        self._status = status

    def response_data(self, data: bytes) -> None:
        """What a receiver says beside its status is of no interest."""

    def response_ended(self) -> None:
        self._end("" if 200 <= self._status < 300 else f"it answered {self._status}")

    def response_failed(self, error: UpstreamError) -> None:
        if 200 <= self._status < 300:  # it has taken it; how the connection ended does not matter
            self._end("")
        else:
            self._status = 0
            self._end(str(error))

    def _late(self) -> None:
        if self._exchange is not None:
            self._exchange.cancel()
        self.response_failed(TimedOut("total", TOTAL_NS))

    def _end(self, why: str) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._done(Heard(self._status, why, self._clock.monotonic_ns() - self._began_ns, self._sent))


def message(job: Job, answered: Answered) -> bytes:
    """The body: `{"type": "job.done" | "job.failed", "timestamp", "data": {id, status, decision, answer: {status, content_type, body}}}`.

    An answer in JSON stands in it as JSON, anything else as a string.
    """
    content_type = next((value for name, value in answered.headers if name == "content-type"), "")
    body: Raw | str = answered.body.decode("utf-8", "replace")
    if content_type.startswith("application/json") and len(answered.body) <= _MOST_JSON and _is_json(answered.body):
        body = Raw(answered.body)
    return msgspec.json.encode(
        {
            "type": f"job.{answered.ending}",
            "timestamp": to_iso(answered.at),
            "data": {
                "id": job.submitted.id,
                "status": answered.ending,
                "decision": answered.decision,
                "answer": {"status": answered.status, "content_type": content_type, "body": body},
            },
        }
    )


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=Raw)
        body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
