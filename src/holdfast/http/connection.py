"""One connection of the HTTP/1.1 server: it answers strictly in order, holds bounded memory, and ends when its time is up."""

import asyncio
import logging
import socket
import struct
from typing import cast

from holdfast.clock import SECOND, Clock
from holdfast.http.connections import Connections
from holdfast.http.head import JOINED_BYTES, render, status_line
from holdfast.http.message import Application
from holdfast.http.reading import ReadingProtocol
from holdfast.http.requests import METHODS, Accepted, Rejected, Relayed, RequestParser, ServerOptions, Stage, nothing
from holdfast.http.response import JSON, Answer, error_body, framing
from holdfast.http.upload import ROOM_BYTES, Upload

_HELD_BYTES = 64 * 1024
"""Pipelined bytes kept unread during an answer; above it the socket is not read either, and a client that leaves is noticed later."""

_LINGER_NS = 2 * SECOND
"""After a rejection: closing at once would reset the connection while the client still sends, and it would never read why."""

_UPLOAD_LINGER_NS = 30 * SECOND
"""The same after an answer to an upload that has not ended: most clients read nothing before all is sent."""

_NEVER = 1 << 63
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SOON = (b"retry-after", b"1")
_ALLOW = (b"allow", b", ".join(sorted(METHODS)))

_log = logging.getLogger("holdfast.http")


class ServerProtocol(ReadingProtocol):
    """One connection. `deadline_ns` (monotonic) is when what it waits for must have come."""

    def __init__(
        self,
        application: Application,
        options: ServerOptions,
        clock: Clock,
        connections: Connections,
        relayed: Relayed = nothing,
    ) -> None:
        super().__init__(connections.buffer)
        self.deadline_ns = clock.monotonic_ns() + options.header_timeout_ns
        self._application = application
        self._options = options
        self._clock = clock
        self._connections = connections
        self.transport: asyncio.Transport
        self._parser: RequestParser
        self._held = bytearray()
        self._relayed = relayed
        self._answer: Answer | None = None
        self._upload: Upload | None = None  # of the request that is being answered, while more of it is to come
        self._awaited: Stage | None = Stage.BETWEEN
        self._advancing = False
        self._full = False
        self._closing = False
        self._unsent = _NEVER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):  # asyncio does so only where `proto` is set
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername")
        self._parser = RequestParser(self._options, peer[0] if isinstance(peer, tuple) else "", self._connections.bodies, self._relayed)
        self.transport.set_write_buffer_limits(self._options.write_buffer_bytes)
        self._connections.add(self)
        if self._connections.closing:
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        self._parser.release()
        self._closing = True
        answer, self._answer = self._answer, None
        self._drop_upload()
        if answer is not None:
            answer.client_left()

    def data_received(self, data: bytes | memoryview) -> None:
        if self._closing:
            return
        if self._answer is not None or self._full:
            if self._upload is not None:
                self._read_upload(data, self._upload)
                return
            self._held += data
            if len(self._held) > _HELD_BYTES:
                self.transport.pause_reading()
            return
        self._parser.feed(data)
        self._advance()

    def eof_received(self) -> None:
        """The client sends nothing more: during an answer it has left, as far as anyone can tell; otherwise the transport sends what
        it still has and closes."""
        if self._answer is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        self._full = True
        if self._answer is not None and self._answer.pausing is not None:
            self._answer.pausing()

    def resume_writing(self) -> None:
        self._full = False
        if self._answer is None:
            self._advance()
        elif self._answer.resuming is not None:
            self._answer.resuming()

    def expire(self) -> None:
        """The deadline has passed: answer 408 to a request begun, close otherwise."""
        if self._upload is not None:
            self._parser.reject(Rejected(408, "the request's body took too long"))
            self._break_upload()
            return
        if self._parser.stage in (Stage.HEAD, Stage.BODY) and not self._closing:
            part = "head" if self._parser.stage is Stage.HEAD else "body"
            self._parser.reject(Rejected(408, f"the request's {part} took too long"))
            self._advance()
            return
        unsent = self.transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:
            self._unsent = unsent
            self.deadline_ns = self._clock.monotonic_ns() + self._options.keep_alive_ns
        elif unsent or self._closing:
            self.transport.abort()
        elif self._connections.retiring and self.transport.can_write_eof():
            self._close_softly()
        else:
            self._close()

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has come."""
        return self._answer is None and not self._held and self._parser.stage is Stage.BETWEEN and not self._parser.parsed

    def close_if_idle(self) -> None:
        if self.idle:
            self._close()

    def cut(self) -> None:
        self.transport.abort()

    @property
    def parting(self) -> bool:
        """Whether this answer is to be the connection's last: where the rest of a body must be read first, there is no next one."""
        return self._connections.parting or self._upload is not None

    def answered(self, counted: int) -> None:
        """The request in progress needs nothing more; `counted` bytes of its body are free again."""
        self._connections.answering -= 1
        if counted:
            self._connections.bodies.give_back(counted)

    def send(self, data: bytes, body: bytes = b"", end: bytes = b"") -> None:
        """Hand bytes to the transport in one piece while they are few, a larger body uncopied."""
        if not body:
            self.transport.write(data)
        elif len(body) <= JOINED_BYTES:
            self.transport.write(data + body + end)
        else:
            self.transport.write(data)
            self.transport.write(body)
            self.transport.write(end)

    def finished(self, keep_alive: bool) -> None:
        """The answer in progress was handed to the transport to its end. A connection that was announced as kept is kept, also when
        this server retires meanwhile: its client may already be sending the next request."""
        self._answer = None
        if self._upload is not None:
            self._leave_upload()
        elif not keep_alive or self._connections.closing:
            self._close()
        elif not self._advancing:
            self._advance()

    def aborted(self, reset: bool) -> None:
        """The answer in progress ends here, and the client must be able to tell: by the missing end of a length or chunk, or, where
        the end of the connection is the end of the body, by a reset."""
        self._answer = None
        self._drop_upload()
        if reset:
            connection: socket.socket = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()
        else:
            self._close()

    def _advance(self) -> None:
        """Answer what can be answered, read what was held back meanwhile, and wait for the rest."""
        self._advancing = True
        parsed = self._parser.parsed
        while self._answer is None and not self._full and not self._closing:
            if parsed:
                self._awaited = None
                self._begin(parsed.pop(0))
            elif self._held:
                data = bytes(self._held)
                self._held.clear()
                self._parser.feed(data)
                self.transport.resume_reading()
            else:
                break
        self._advancing = False
        if self._upload is not None and self._held:
            data = bytes(self._held)
            self._held.clear()
            self._read_upload(data, self._upload)
        if self._answer is None and not self._closing:
            self._wait()

    def _begin(self, item: Accepted | Rejected) -> None:
        if isinstance(item, Rejected):
            self._reject(item)
            return
        self.deadline_ns = _NEVER
        self._connections.answering += 1
        answer = self._answer = Answer(self, item)
        if item.request.upload is not None:
            self._begin_upload(item.request.upload)
        try:
            self._application(item.request, answer)
        except Exception:  # noqa: BLE001 - the application is not this module's code; its faults must not end the server
            _log.exception("the application failed on %s %s", item.request.method.decode(), item.request.path.decode())
            answer.fail()

    def upload_wanted(self) -> None:
        """There is room for more of the upload."""
        if self._upload is None:
            return
        self.deadline_ns = self._clock.monotonic_ns() + self._options.body_timeout_ns
        if self._parser.expects_continue and self._answer is not None:
            self._parser.expects_continue = False
            if not self._answer.started:
                self.transport.write(_CONTINUE)
        self.transport.resume_reading()

    def _begin_upload(self, upload: Upload) -> None:
        """Until somebody takes it, no more is read than there is room for, and the client is not hurried."""
        self._upload = upload
        upload.giver = self

    def _read_upload(self, data: bytes | memoryview, upload: Upload) -> None:
        self._parser.feed(data)
        if upload.complete:
            self._upload = None
            self.deadline_ns = _NEVER
            self.transport.resume_reading()
        elif self._parser.stage is Stage.DONE:
            self._break_upload()
            return
        elif upload.started:
            self.deadline_ns = self._clock.monotonic_ns() + self._options.body_timeout_ns
        try:
            upload.deliver()
        except Exception:  # noqa: BLE001 - the application is not this module's code; its faults must not end the server
            _log.exception("the application failed at an upload")
            if self._answer is not None:
                self._answer.fail()
        if self._upload is not None and upload.held >= ROOM_BYTES:
            self.transport.pause_reading()
            self.deadline_ns = _NEVER  # it is not the client that is awaited

    def _break_upload(self) -> None:
        """What comes is no body any more, or nothing comes: for the application the client has left."""
        answer, self._answer = self._answer, None
        self._drop_upload()
        if answer is None:
            return
        started = answer.started
        answer.client_left()
        if started:
            self.transport.abort()
        else:
            self._advance()

    def _leave_upload(self) -> None:
        """The answer was given before the upload's end: read on without keeping any of it, so that the client comes to read the answer."""
        self._drop_upload()
        self._closing = True
        self._linger(_UPLOAD_LINGER_NS)
        self.transport.resume_reading()

    def _drop_upload(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.giver = None
            upload.stop()

    def _wait(self) -> None:
        stage = self._parser.stage
        if stage is Stage.BODY and self._parser.expects_continue:
            self._parser.expects_continue = False
            self.transport.write(_CONTINUE)
        if stage is not self._awaited:
            self._awaited = stage
            self._unsent = _NEVER
            self.deadline_ns = self._clock.monotonic_ns() + self._patience_ns(stage)

    def _patience_ns(self, stage: Stage) -> int:
        if stage is Stage.HEAD:
            return self._options.header_timeout_ns
        return self._options.body_timeout_ns if stage is Stage.BODY else self._connections.idle_ns

    def _reject(self, rejected: Rejected) -> None:
        body = error_body("invalid_request_error", rejected.reason)
        headers = [JSON]
        if rejected.status == 405:
            headers.append(_ALLOW)
        elif rejected.status == 503:
            headers.append(_SOON)
        self.send(render(status_line(rejected.status), headers, framing(len(body), close=True)), body)
        self._closing = True
        self._linger()

    def _close_softly(self) -> None:
        """Say that nothing more will be answered and let the client close: a request that is on its way meets a clean end, which
        clients take for a kept connection gone stale, and not a reset."""
        self._closing = True
        self._linger()

    def _linger(self, span_ns: int = _LINGER_NS) -> None:
        self.deadline_ns = self._clock.monotonic_ns() + span_ns
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        self._closing = True
        self.deadline_ns = self._clock.monotonic_ns() + self._options.keep_alive_ns
        self.transport.close()
