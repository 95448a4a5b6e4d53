"""What goes through a call of a tool, as the tool's own protocol has it: plain HTTP here, MCP in `mcp_traffic`."""

from typing import Protocol

from msgspec import Struct

from holdfast.events.api_call import ToolUse
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.upstream import Headers
from holdfast.gateway.masking import MaskedBody
from holdfast.http.message import Request
from holdfast.http.upload import Upload
from holdfast.wire.call import Refusal

MOST_KEPT = 1024 * 1024
"""Bytes of an error answer that are kept until its end, so that the call can be made again; a longer one is passed on as it comes."""


class Through(Protocol):
    """What a body goes through on its way to the agent."""

    def feed(self, data: bytes) -> bytes:
        """Raises MalformedAnswer where it must not go on."""

    def flush(self) -> bytes: ...


class Passage(Struct, frozen=True):
    """How an answer is passed on. through: None: as it is. keep: bytes of it that are kept until its end. overflows: whether one that is
    longer is passed on as it comes, instead of failing."""

    through: Through | None = None
    keep: int = 0
    overflows: bool = True


class Part(Struct, frozen=True):
    """One of the calls that an attempt consisted of, for the record. api: what was asked of the tool, for people. use: None where only
    HTTP is known of it. ended_ns: monotonic, None: with the attempt. failed: the tool says so."""

    api: str
    use: ToolUse | None = None
    ended_ns: int | None = None
    failed: bool = False
    said: bytes = b""


class Traffic(Protocol):
    """One request to a tool and its answer. calls: for how many it counts against limits, and how often its price is paid. tools: by name
    beside the tool's own, which the kill switch may stop. endless: it lasts as long as both sides like."""

    calls: int
    tools: tuple[str, ...]
    endless: bool
    body: bytes
    upload: Upload | None

    @property
    def satisfied(self) -> bool:
        """Whether an agent that leaves now has all that it asked for."""

    def headers(self, headers: Headers) -> Headers:
        """The agent's, as they are to go on."""

    def passage(self, status: int, headers: Headers) -> Passage: ...

    def parts(self, result: AttemptResult) -> tuple[Part, ...]:
        """What the attempt consisted of, after its end."""

    def refusal(self, refusal: Refusal, *, started: bool) -> tuple[int, bytes] | None:
        """How the tool's protocol denies: status and body of a whole answer, or the last piece of one that has begun. None: it has no
        way."""


class PlainTraffic:
    """A `Traffic` of HTTP that is relayed unread, but for secrets in errors."""

    calls = 1
    tools: tuple[str, ...] = ()
    endless = False
    satisfied = False

    def __init__(self, request: Request, api: str, secrets: tuple[bytes, ...]) -> None:
        self.body = request.body
        self.upload = request.upload
        self._api = api
        self._secrets = secrets

    def headers(self, headers: Headers) -> Headers:
        return headers

    def passage(self, status: int, headers: Headers) -> Passage:
        return error_passage(headers, self._secrets) if status >= 400 else Passage()

    def parts(self, result: AttemptResult) -> tuple[Part, ...]:
        return (Part(self._api),)

    def refusal(self, refusal: Refusal, *, started: bool) -> tuple[int, bytes] | None:
        return None


def error_passage(headers: Headers, secrets: tuple[bytes, ...]) -> Passage:
    """An error is read, to take secrets out of it, and kept, as long as it is short; raises MalformedAnswer for one that cannot be read."""
    encoding = next((value for name, value in headers if name == b"content-encoding"), b"")
    return Passage(MaskedBody(secrets, encoding), keep=MOST_KEPT)
