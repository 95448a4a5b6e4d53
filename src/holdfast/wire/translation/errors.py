"""Errors of a target in the caller's format: whole bodies and events inside a stream. The words are the target's own."""

import msgspec

from holdfast.wire.declined import too_long
from holdfast.wire.translation.neutral import Failed, FormatName

_OPENAI = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}
_ANTHROPIC = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_TO_ANTHROPIC = {
    "server_error": "api_error",
    "insufficient_quota": "billing_error",
    "requests": "rate_limit_error",
    "tokens": "rate_limit_error",
    "rate_limit_exceeded": "rate_limit_error",
}
_TO_OPENAI = {"api_error": "server_error", "overloaded_error": "server_error", "timeout_error": "server_error"}
_KNOWN_TO_ANTHROPIC = frozenset({*_ANTHROPIC.values(), "api_error", "invalid_request_error"})

_TOO_LONG = "context_length_exceeded"
_TOO_LONG_WORDS = "prompt is too long"
_MOST_WORDS = 4_096
_NO_WORDS = "the target sent no message"


def write_error(caller: FormatName, status: int, body: bytes) -> bytes:
    failed = read_error(body)
    if too_long(status, body):
        failed = _too_long(caller, failed)
    family = _ANTHROPIC if caller == "anthropic-messages" else _OPENAI
    kind = family.get(status, ("api_error" if family is _ANTHROPIC else "server_error") if status >= 500 else "invalid_request_error")
    if caller == "anthropic-messages":
        error: dict[str, object] = {"type": kind, "message": failed.message}
        return msgspec.json.encode({"type": "error", "error": error | ({"details": {"error_code": failed.code}} if failed.code else {})})
    return msgspec.json.encode({"error": {"message": failed.message, "type": kind, "param": None, "code": failed.code or None}})


def _too_long(caller: FormatName, failed: Failed) -> Failed:
    """That the prompt is too long is what agents shorten their history at: by the code of OpenAI, by the words of Anthropic."""
    if caller != "anthropic-messages":
        return Failed(failed.message, failed.kind, _TOO_LONG)
    said = _TOO_LONG_WORDS in failed.message.lower()
    return Failed(failed.message if said else f"{_TOO_LONG_WORDS}: {failed.message}", failed.kind, failed.code)


def read_error(body: bytes) -> Failed:
    """Whatever it is: both families' objects, what compatible servers write, plain text."""
    try:
        read = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Failed(body[:_MOST_WORDS].decode("utf-8", "replace").strip() or _NO_WORDS)
    return failure_in(read)


def failure_in(read: object) -> Failed:
    """From the JSON of an error: `error` as object or text, or the fields themselves."""
    if not isinstance(read, dict):
        return Failed(str(read) if isinstance(read, str) and read else _NO_WORDS)
    error = read.get("error")
    if isinstance(error, str) and error:
        return Failed(error)
    found = error if isinstance(error, dict) else read
    details = found.get("details")
    code = details.get("error_code") if isinstance(details, dict) else found.get("code")
    words = next((value for name in ("message", "detail", "msg") if isinstance(value := found.get(name), str) and value), _NO_WORDS)
    kind = found.get("type")
    return Failed(words, kind if isinstance(kind, str) and kind != "error" else "", str(code) if isinstance(code, str | int) else "")


def error_of_stream(caller: FormatName, failed: Failed, sequence_number: int = 0) -> bytes:
    """The event with which a stream of the caller's format reports the failure."""
    if caller == "anthropic-messages":
        kind = _TO_ANTHROPIC.get(failed.kind or failed.code, failed.kind)
        error: dict[str, object] = {"type": kind if kind in _KNOWN_TO_ANTHROPIC else "api_error", "message": failed.message}
        return b"event: error\ndata: " + msgspec.json.encode({"type": "error", "error": error}) + b"\n\n"
    kind = _TO_OPENAI.get(failed.kind, failed.kind) or "server_error"
    error = {"message": failed.message, "type": kind, "param": None, "code": failed.code or None}
    if caller == "openai-chat":
        return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"
    data = {"type": "error", "sequence_number": sequence_number, "code": error["code"], "message": failed.message, "param": None}
    return b"event: error\ndata: " + msgspec.json.encode(data | {"error": error}) + b"\n\n"
