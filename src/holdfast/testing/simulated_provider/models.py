"""The list of models, in both families' shapes; any other name is a model too."""

import msgspec

from holdfast.wire.call import Family

NAMES = (
    "sim-ok",
    "sim-echo",
    "sim-slow-1000",
    "sim-stall-1000",
    "sim-tokens-100",
    "sim-stream-50-20",
    "sim-slow-tokens-20",
    "sim-context-100",
    "sim-cached-100",
    "sim-rate-60",
    "sim-error-500",
    "sim-flaky-20",
    "sim-fail-2-then-ok",
    "sim-hang",
    "sim-cut-stream",
    "sim-cut-before",
    "sim-end-early",
    "sim-error-event",
    "sim-garbage",
    "sim-garbage-http",
    "sim-garbage-shape",
    "sim-tool",
    "sim-tools-parallel",
    "sim-loop",
    "sim-refuse",
    "sim-filter",
    "sim-reasoning",
)
_CREATED_S = 1_767_225_600
_CREATED = "2026-01-01T00:00:00Z"


def listed(family: Family) -> bytes:
    """The body of `GET /v1/models`."""
    data = [_model(family, name) for name in NAMES]
    if family == "anthropic":
        return msgspec.json.encode({"data": data, "has_more": False, "first_id": NAMES[0], "last_id": NAMES[-1]})
    return msgspec.json.encode({"object": "list", "data": data})


def one(family: Family, name: str) -> bytes:
    """The body of `GET /v1/models/NAME`."""
    return msgspec.json.encode(_model(family, name))


def _model(family: Family, name: str) -> dict[str, object]:
    if family == "anthropic":
        return {"type": "model", "id": name, "display_name": name, "created_at": _CREATED, "lifecycle": "active"}
    return {"id": name, "object": "model", "created": _CREATED_S, "owned_by": "holdfast"}
