"""Error bodies as the OpenAI SDKs read them, shared by every format of that family."""

import msgspec

from holdfast.wire.call import Refusal

_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


def refusal_body(refusal: Refusal) -> bytes:
    """`{"error": {message, type, code, param, …details}}`; `code` is the refusal's kind, `type` OpenAI's family for its status."""
    return msgspec.json.encode({"error": {**refusal.details, **error_object(refusal.status, refusal.kind, refusal.message, refusal.param)}})


def error_object(status: int, code: str, message: str, param: str | None = None) -> dict[str, str | None]:
    """The four fields that OpenAI documents for an error of this HTTP status."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "code": code, "param": param}


def error_event(message: str, kind: str) -> bytes:
    """An error inside a started Chat Completions stream: the SDKs raise APIError on a chunk that has `error`."""
    return b"data: " + msgspec.json.encode({"error": error_object(502, kind, message)}) + b"\n\n"
