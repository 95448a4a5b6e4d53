"""Error answers as OpenAI and Anthropic word them."""

import msgspec

from holdfast.execution.upstream import Headers
from holdfast.wire.call import Family

JSON_HEADERS: Headers = ((b"content-type", b"application/json"),)

_OPENAI_TYPES = {429: "requests", 401: "authentication_error", 403: "permission_error"}
_OPENAI_CODES = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_body(family: Family, status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    """The body of an error answer with this status, as the family's SDK reads it."""
    if family == "anthropic":
        kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_sim"})
    kind = _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code or _OPENAI_CODES.get(status)}})


def too_long(family: Family, tokens: int, bound: int, param: str) -> bytes:
    """The body of the 400 for a prompt of more tokens than the model reads; param: the field that holds the history."""
    if family == "anthropic":
        return error_body(family, 400, f"prompt is too long: {tokens} tokens > {bound} maximum")
    if param == "input":
        message = "Your input exceeds the context window of this model. Please adjust your input and try again."
    else:
        message = f"This model's maximum context length is {bound} tokens. However, your messages resulted in {tokens} tokens."
        message += " Please reduce the length of the messages."
    return error_body(family, 400, message, param, "context_length_exceeded")


def error_headers(status: int, retry_after_s: int = 1) -> Headers:
    """Rate limits say when to come back."""
    return (*JSON_HEADERS, (b"retry-after", b"%d" % retry_after_s)) if status == 429 else JSON_HEADERS
