"""What goes through a call of an MCP server: its messages are read, tools that are not allowed are neither called nor offered."""

from msgspec import Raw, structs

from holdfast.clock import Clock
from holdfast.errors import MalformedAnswer, MalformedRequest
from holdfast.events.api_call import ToolUse
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.upstream import Headers
from holdfast.gateway.tool_traffic import Part, Passage, error_passage
from holdfast.http.upload import Upload
from holdfast.wire.call import Refusal
from holdfast.wire.mcp import (
    HEADER_MISMATCH,
    INVALID_REQUEST,
    REFUSED,
    AnswerReader,
    Id,
    Message,
    Named,
    Outcome,
    Posted,
    error_replies,
    error_reply,
)
from holdfast.wire.mcp_stream import McpStream

MOST_ANSWER = 32 * 1024 * 1024
"""Bytes of an answer that comes as one JSON document, which is read whole before it is passed on."""

_NO_ARGUMENTS = Raw(b"{}")
_DROPPED = frozenset((b"content-type", b"accept-encoding"))
_JSON = (b"content-type", b"application/json")


class McpTraffic:
    """A `Traffic`. posted: the messages of a POST, None for the other methods."""

    def __init__(
        self,
        posted: Posted | None,
        method: str,
        session: str,
        named: Named,
        secrets: tuple[bytes, ...],
        clock: Clock,
        *,
        keep_content: bool,
    ) -> None:
        called = () if posted is None else posted.calls
        self.upload: Upload | None = None
        self.body = b"" if posted is None else posted.body
        self.calls = len(called)
        self.tools = tuple(dict.fromkeys(message.name for message in called))
        self.endless = posted.endless if posted is not None else method == "GET"
        self._posted = posted
        self._method = method
        self._session = session
        self._secrets = secrets
        self._clock = clock
        self._keep_content = keep_content
        self._guarded = not named.everything
        self._reader = AnswerReader(named.permits if self._guarded else None)
        self._heard: dict[Id, tuple[Outcome, int]] = {}
        self._is_stream = False

    @property
    def satisfied(self) -> bool:
        """Clients read a stream only up to the answer that they wait for."""
        return self.endless or (self._posted is not None and all(not each.asks or each.id in self._heard for each in self._posted.messages))

    def headers(self, headers: Headers) -> Headers:
        """The body goes out as UTF-8, whatever the agent called it, and answers must be readable."""
        kept = [pair for pair in headers if pair[0] not in _DROPPED]
        return kept if self._posted is None else [*kept, _JSON]

    def passage(self, status: int, headers: Headers) -> Passage:
        for name, value in headers:
            if name == b"mcp-session-id" and not self._session:
                self._session = value.decode("latin-1")[:128]
        if status >= 400:
            return error_passage(headers, self._secrets)
        given = dict(headers)
        if given.get(b"content-encoding", b"identity") != b"identity":
            raise MalformedAnswer("the MCP server compresses its answers although it was asked not to, so that they cannot be read")
        self._is_stream = given.get(b"content-type", b"").lower().startswith(b"text/event-stream")
        if self._is_stream:
            return Passage(_Stream(self, McpStream(self._reader, guarded=self._guarded)))
        return Passage(_Document(self, self._reader, guarded=self._guarded), keep=MOST_ANSWER, overflows=False)

    def note(self) -> None:
        """Take the time of the answers that have come since the last time."""
        now = self._clock.monotonic_ns()
        for outcome in self._reader.outcomes:
            self._heard.setdefault(outcome.id, (outcome, now))
        self._reader.outcomes.clear()

    def parts(self, result: AttemptResult) -> tuple[Part, ...]:
        if self._posted is None or not self._posted.calls:
            method = self._method if self._posted is None else self._posted.methods
            return (Part(method, ToolUse(session=self._session), failed=any(outcome.failed for outcome, _ in self._heard.values())),)
        if result.status >= 400 and result.error is None:
            self._read_error(result.body)
        return tuple(self._part(message) for message in self._posted.calls)

    def refusal(self, refusal: Refusal, *, started: bool) -> tuple[int, bytes] | None:
        """A request that is denied has its answer, a JSON-RPC error; only what could not be read has an HTTP status that says so."""
        posted, data = self._posted, {"type": refusal.kind, **refusal.details}
        if posted is None:
            malformed = self._method == "POST" and not started
            return (refusal.status, error_reply(INVALID_REQUEST, refusal.message, data)) if malformed else None
        if refusal.kind == "header_mismatch":
            return refusal.status, error_reply(HEADER_MISMATCH, refusal.message, data)
        left = posted if not started else structs.replace(posted, messages=tuple(m for m in posted.messages if m.id not in self._heard))
        if started and not self._is_stream:
            return None
        replies = error_replies(left, REFUSED, refusal.message, data)
        if replies is None:
            return None
        return 200, b"event: message\ndata: %b\n\n" % replies if started else replies

    def _part(self, message: Message) -> Part:
        heard = self._heard.get(message.id) if message.asks else None
        use = ToolUse(
            name=message.name,
            arguments=message.arguments if self._keep_content else _NO_ARGUMENTS,
            session=self._session,
            result_bytes=None if heard is None else heard[0].size,
            failed=heard is not None and heard[0].failed,
        )
        api = f"{message.method} {message.name}"
        return Part(api, use) if heard is None else Part(api, use, heard[1], heard[0].failed, heard[0].said)

    def _read_error(self, body: bytes) -> None:
        """Since the revision 2026-07-28 JSON-RPC errors come with an HTTP status too."""
        try:
            self._reader.read(body)
        except MalformedRequest:
            return  # a page of a proxy in between, say
        self.note()


class _Stream:
    """Its events as they come."""

    def __init__(self, traffic: McpTraffic, stream: McpStream) -> None:
        self._traffic = traffic
        self._stream = stream

    def feed(self, data: bytes) -> bytes:
        passed = self._stream.feed(data)
        self._traffic.note()
        return passed

    def flush(self) -> bytes:
        return self._stream.flush()


class _Document:
    """One JSON document, or nothing."""

    def __init__(self, traffic: McpTraffic, reader: AnswerReader, *, guarded: bool) -> None:
        self._traffic = traffic
        self._reader = reader
        self._guarded = guarded
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """All of it is kept by whoever feeds it."""
        if not data.strip():
            return data
        try:
            instead = self._reader.read(data)
        except MalformedRequest as error:
            if self._guarded:
                raise MalformedAnswer(f"the MCP server's answer is no JSON-RPC message: {error}") from None
            return data
        self._traffic.note()
        return data if instead is None else instead

    def flush(self) -> bytes:
        return b""
