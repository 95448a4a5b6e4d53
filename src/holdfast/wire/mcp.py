"""Model Context Protocol over streamable HTTP (revisions 2025-03-26 to 2026-07-28): the JSON-RPC messages that an agent posts, read so that
what was checked is what the server reads; and what the server answers, read on its way."""

import base64
import binascii
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from msgspec import Raw, Struct

from holdfast.errors import MalformedRequest
from holdfast.wire.request_body import Fields, check_names, checked, read_fields

MAX_BATCH = 64
"""Messages in one array, which the revision 2025-03-26 allows."""

MAX_NAME = 1024
"""Characters of a method, or of a tool's name, which the specification bounds at 128: it is matched against patterns, and recorded."""

REFUSED = -32050
"""JSON-RPC error code of a refusal, from the range that is left to implementations."""

INVALID_REQUEST, HEADER_MISMATCH = -32600, -32020

Id = str | int | float | None
"""Of a request; compared by value, because a server may write it differently."""

_ENVELOPE = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_CALL = frozenset({"name", "arguments"})
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_ENDLESS = frozenset({"subscriptions/listen"})
_NO_ARGUMENTS = Raw(b"{}")
_messages_of = msgspec.json.Decoder(list[Raw]).decode
_text_of = msgspec.json.Decoder(str).decode
_id_of = msgspec.json.Decoder(str | int | float | None).decode
_encode = msgspec.json.Encoder().encode


class Named(Struct, frozen=True):
    """Which tools of a server an agent may call: patterns with `*`, `deny` before `allow`. allow: None for all that are not denied."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        return self.allow is None and not self.deny

    def permits(self, name: str) -> bool:
        if any(fnmatchcase(name, pattern) for pattern in self.deny):
            return False
        return self.allow is None or any(fnmatchcase(name, pattern) for pattern in self.allow)


class Message(Struct, frozen=True):
    """One message of an agent. method: "" of an answer to the server. asks: it is to be answered. name: what it is about where the
    revision 2026-07-28 says so in a header too; of `tools/call` the tool."""

    method: str
    id: Id = None
    asks: bool = False
    name: str = ""
    arguments: Raw = _NO_ARGUMENTS

    @property
    def calls(self) -> bool:
        """Whether it calls a tool: also as a notification, which a careless server carries out."""
        return self.method == "tools/call"


class Posted(Struct, frozen=True):
    """The messages of one POST. batch: it was an array. body: what is to be sent: every field once, so that no server can read another
    value than the one that was checked."""

    messages: tuple[Message, ...]
    batch: bool
    body: bytes

    @property
    def calls(self) -> tuple[Message, ...]:
        return tuple(message for message in self.messages if message.calls)

    @property
    def endless(self) -> bool:
        """Whether the answer is a stream of notifications that lasts as long as somebody listens."""
        return any(message.method in _ENDLESS for message in self.messages)

    @property
    def methods(self) -> str:
        """For people: `tools/list`, `notifications/initialized, ping`."""
        return ", ".join(dict.fromkeys(message.method or "answer" for message in self.messages))


def read_posted(body: bytes) -> Posted:
    """The messages of a POST; raises MalformedRequest for what is not JSON-RPC, or may be read differently by another reader."""
    batch = body.lstrip(b" \t\r\n").startswith(b"[")
    raws = checked(_messages_of, body) if batch else [body]
    if not 1 <= len(raws) <= MAX_BATCH:
        raise MalformedRequest(f"An array of 1 to {MAX_BATCH} messages is expected, not of {len(raws)}.")
    messages, bodies = zip(*[_message(bytes(raw)) for raw in raws], strict=True)
    return Posted(messages, batch, b"[" + b",".join(bodies) + b"]" if batch else bodies[0])


def _message(raw: bytes) -> tuple[Message, bytes]:
    fields = read_fields(raw)
    check_names(fields, _ENVELOPE)
    known = checked(_id_of, fields["id"], "id") if "id" in fields else None
    if "method" not in fields:
        if "result" not in fields and "error" not in fields:
            raise MalformedRequest("A JSON-RPC message has a method, a result or an error.", "method")
        return Message("", known), _encode(fields)
    method = checked(_text_of, fields["method"], "method")
    if not 0 < len(method) <= MAX_NAME:
        raise MalformedRequest(f"The method of a JSON-RPC message is a name of 1 to {MAX_NAME} characters.", "method")
    name, arguments = "", _NO_ARGUMENTS
    key = _NAMED.get(method)
    if key is None:
        _check_method(method)
    else:
        params = read_fields(bytes(fields.get("params", _NO_ARGUMENTS)))
        check_names(params, _CALL | {key})
        if key not in params:
            raise MalformedRequest(f"{method} needs params.{key}.", f"params.{key}")
        name = checked(_text_of, params[key], f"params.{key}")
        if method == "tools/call" and len(name) > MAX_NAME:
            raise MalformedRequest(f"No tool has a name of more than {MAX_NAME} characters.", "params.name")
        arguments = params.get("arguments", _NO_ARGUMENTS)
        fields["params"] = Raw(_encode(params))
    return Message(method, known, "id" in fields, name, arguments), _encode(fields)


def _check_method(method: str) -> None:
    """Methods are told apart by every letter, but a server that is careless of that must not carry out what was not checked."""
    meant = method.strip().casefold()
    if meant in _NAMED:
        raise MalformedRequest(f"Invalid request: some servers read the method {method[:64]!r} as {meant}; write it so.", "method")


def header_mismatch(posted: Posted, method: bytes | None, name: bytes | None) -> str:
    """Why the routing headers of the revision 2026-07-28 say something else than the body, "" where they do not: a server that believes
    them would do what was not checked. method, name: the values of `Mcp-Method` and `Mcp-Name`."""
    if method is None and name is None:
        return ""
    if posted.batch:
        return "Mcp-Method and Mcp-Name belong to a single message, not to an array"
    message = posted.messages[0]
    if method is not None and method.decode("latin-1") != message.method:
        return f"the header Mcp-Method does not name the method of the body, {message.method}"
    if name is not None and message.method in _NAMED and _header_text(name) != message.name:
        return f"the header Mcp-Name does not name what the body of {message.method} names"
    return ""


def _header_text(value: bytes) -> str | None:
    """A header's value, with `=?base64?…?=` taken off; None where that is not what it looks like."""
    if not (value.startswith(b"=?base64?") and value.endswith(b"?=")):
        return value.decode("latin-1")
    try:
        return base64.b64decode(value[9:-2], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None


def error_reply(code: int, message: str, data: object, known: Id = None) -> bytes:
    """An error for one request, or for a body in which none could be read."""
    return _encode({"jsonrpc": "2.0", "id": known, "error": {"code": code, "message": message, "data": data}})


def error_replies(posted: Posted, code: int, message: str, data: object) -> bytes | None:
    """An error for every request of `posted`, in its shape; None where it holds none."""
    replies = [error_reply(code, message, data, each.id) for each in posted.messages if each.asks]
    if not replies:
        return None
    return b"[" + b",".join(replies) + b"]" if posted.batch else replies[0]


class Outcome(Struct, frozen=True):
    """The answer to one request. size: bytes of its result or error. failed: it is a JSON-RPC error, or a tool's result that says so.
    said: of a failed one, as JSON."""

    id: Id
    size: int
    failed: bool
    code: int | None = None
    said: bytes = b""


class _Said(Struct):
    """What is read of a JSON-RPC error or of a result."""

    code: Any = None
    isError: Any = None  # noqa: N815 - the protocol's word


_said_of = msgspec.json.Decoder(_Said).decode
_name_of = msgspec.json.Decoder(dict[str, Raw]).decode


class AnswerReader:
    """Reads the messages of a server. outcomes: the answers that came, in their order.

    offered: whether a tool may be offered to the agent; None for all. Lists of tools are passed on without the others.
    """

    def __init__(self, offered: Callable[[str], bool] | None) -> None:
        self.outcomes: list[Outcome] = []
        self._offered = offered

    def read(self, data: bytes) -> bytes | None:
        """The message, or array of messages, to be passed on in place of `data`; None: that very same. Raises MalformedRequest."""
        if data.lstrip(b" \t\r\n").startswith(b"["):
            raws = [bytes(raw) for raw in checked(_messages_of, data)]
            read = [self._read(raw) for raw in raws]
            if all(each is None for each in read):
                return None
            return b"[" + b",".join(raw if new is None else new for raw, new in zip(raws, read, strict=True)) + b"]"
        return self._read(data)

    def _read(self, data: bytes) -> bytes | None:
        fields = read_fields(data)
        answer = fields.get("error", fields.get("result"))
        if "method" in fields or answer is None:
            return None
        said = checked(_said_of, answer) if bytes(answer).startswith(b"{") else _Said()
        failed = "error" in fields or said.isError is True
        code = said.code if "error" in fields and isinstance(said.code, int) else None
        known = checked(_id_of, fields.get("id", Raw(b"null")), "id")
        self.outcomes.append(Outcome(known, len(bytes(answer)), failed, code, bytes(answer) if failed else b""))
        return None if self._offered is None or "result" not in fields else self._without_tools(fields, self._offered)

    def _without_tools(self, fields: Fields, offered: Callable[[str], bool]) -> bytes | None:
        """A list of tools is told by its shape: in a stream that is taken up again nobody knows what was asked."""
        result = bytes(fields["result"])
        if not result.startswith(b"{"):
            return None
        parts = read_fields(result)
        if not bytes(parts.get("tools", b"")).startswith(b"["):
            return None
        tools = checked(_messages_of, parts["tools"], "tools")
        kept = [tool for tool in tools if offered(_tool_name(tool))]
        if len(kept) == len(tools):
            return None
        return _encode({**fields, "result": {**parts, "tools": kept}})


def _tool_name(tool: Raw) -> str:
    name = checked(_name_of, tool, "tools").get("name")
    return "" if name is None else checked(_text_of, name, "tools.name")
