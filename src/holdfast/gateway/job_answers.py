"""Answers of jobs on their way out: at the pace of whoever fetches them, no more at once than there is memory for."""

from holdfast.clock import SECOND, Clock
from holdfast.execution.upstream import Headers
from holdfast.http.message import Response

MOST_BYTES = 256 << 20
"""Of all answers that are being fetched, together: fetching costs nothing, so nothing else bounds how many are asked for and not read."""

TAKEN_NS = 300 * SECOND
"""How long one may take to be read; whoever is slower fetches it again."""

_PIECE = 64 << 10


class JobAnswers:
    """Sends answers, and counts the bytes that wait for their readers: `held`."""

    def __init__(self, clock: Clock, most: int = MOST_BYTES) -> None:
        self.held = 0
        self._clock = clock
        self._most = most

    def send(self, response: Response, status: int, headers: Headers, body: bytes) -> bool:
        """False, and nothing is sent, where there is no room; there always is for a single one."""
        if len(body) <= _PIECE:
            response.send(status, headers, body)
            return True
        if self.held and self.held + len(body) > self._most:
            return False
        self.held += len(body)
        _Sending(self, self._clock, response, body).start(status, headers)
        return True


class _Sending:
    def __init__(self, answers: JobAnswers, clock: Clock, response: Response, body: bytes) -> None:
        self._answers = answers
        self._response = response
        self._body = body
        self._at = 0
        self._paused = False
        self._timer = clock.call_later(TAKEN_NS, self._late)

    def start(self, status: int, headers: Headers) -> None:
        response = self._response
        response.disconnected, response.pausing, response.resuming = self._over, self._pause, self._resume
        response.start(status, headers, len(self._body))
        self._go_on()

    def _go_on(self) -> None:
        while self._at < len(self._body) and not self._paused:
            piece = self._body[self._at : self._at + _PIECE]
            self._at += len(piece)
            self._response.write(piece)  # may pause
        if self._at and self._at >= len(self._body):
            self._over()
            self._response.end()

    def _pause(self) -> None:
        self._paused = True

    def _resume(self) -> None:
        self._paused = False
        self._go_on()

    def _late(self) -> None:
        self._over()
        self._response.abort()

    def _over(self) -> None:
        self._timer.cancel()
        self._answers.held -= len(self._body)
        self._body = b""
