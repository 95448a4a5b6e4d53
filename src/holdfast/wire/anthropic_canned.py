"""An answer of the gateway's own as an Anthropic message."""

import msgspec

from holdfast.wire.call import Call

_FREE = {"input_tokens": 0, "output_tokens": 0}


def message(call: Call, text: str, response_id: str) -> bytes:
    body = {**_head(call, response_id), "content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}
    return msgspec.json.encode(body)


def stream(call: Call, text: str, response_id: str) -> bytes:
    return b"".join(
        (
            _event("message_start", message={**_head(call, response_id), "content": [], "stop_reason": None}),
            _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}),
            _event("content_block_stop", index=0),
            _event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=_FREE),
            _event("message_stop"),
        )
    )


def _head(call: Call, response_id: str) -> dict[str, object]:
    return {"id": response_id, "type": "message", "role": "assistant", "model": call.model, "stop_sequence": None, "usage": _FREE}


def _event(name: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name, **fields}))
