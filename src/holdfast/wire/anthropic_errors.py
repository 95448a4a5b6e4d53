"""Error bodies and events as Anthropic's SDKs read them."""

import msgspec

from holdfast.wire.call import Refusal

_TYPES = {
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


def refusal_body(refusal: Refusal) -> bytes:
    """`{"type": "error", "error": {type, message, …details}}`; the refusal's kind is the `error_code` that the SDKs look for."""
    kind = _TYPES.get(refusal.status, "api_error" if refusal.status >= 500 else "invalid_request_error")
    error = {**refusal.details, "type": kind, "message": refusal.message, "details": {"error_code": refusal.kind}}
    if refusal.param is not None:
        error["param"] = refusal.param
    return msgspec.json.encode({"type": "error", "error": error})


def error_event(message: str, kind: str) -> bytes:
    """The SDKs raise APIStatusError on it."""
    error = {"type": "api_error", "message": message, "details": {"error_code": kind}}
    return b"event: error\ndata: " + msgspec.json.encode({"type": "error", "error": error}) + b"\n\n"
