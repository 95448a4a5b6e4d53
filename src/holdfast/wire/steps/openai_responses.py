"""Steps of Responses: every call and every result is an item of its own; under `previous_response_id` only the new ones are sent."""

import msgspec
from msgspec import Raw

from holdfast.errors import MalformedRequest
from holdfast.wire.openai_responses_item import Item, text, tool_call
from holdfast.wire.steps.step import Step, called, said

_read = msgspec.json.Decoder(Item).decode


def steps(raw: Raw, digest: bytes) -> list[Step]:
    try:
        item = _read(raw)
        kind = item.kind
        if kind == "message":
            return _said(item.role, digest)
        if (call := tool_call(item)) is not None:
            return [called(call.name, call.arguments, call.id)]
        return [said("result", digest, text(item.call_id))] if kind.endswith("_output") else []
    except (msgspec.MsgspecError, ValueError, RecursionError, MalformedRequest):  # an id that is a number, say
        return []


def _said(role: str | None, digest: bytes) -> list[Step]:
    if role == "user":
        return [said("user", digest)]
    return [said("text", digest)] if role in (None, "assistant") else []
