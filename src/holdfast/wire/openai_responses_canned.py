"""An answer of the gateway's own as an OpenAI response."""

import msgspec

from holdfast.wire.call import Call

_FREE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}


def response(call: Call, text: str, response_id: str, created_s: int) -> bytes:
    return msgspec.json.encode(_response(call, response_id, created_s, "completed", [_message(response_id, text)]))


def stream(call: Call, text: str, response_id: str, created_s: int) -> bytes:
    message = _message(response_id, text)
    started = _response(call, response_id, created_s, "in_progress", [])
    ended = _response(call, response_id, created_s, "completed", [message])
    item = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    events: list[tuple[str, dict[str, object]]] = [
        ("response.created", {"response": started}),
        ("response.in_progress", {"response": started}),
        ("response.output_item.added", {"output_index": 0, "item": {**message, "status": "in_progress", "content": []}}),
        ("response.content_part.added", {**item, "part": _part("")}),
        ("response.output_text.delta", {**item, "delta": text, "logprobs": []}),
        ("response.output_text.done", {**item, "text": text, "logprobs": []}),
        ("response.content_part.done", {**item, "part": _part(text)}),
        ("response.output_item.done", {"output_index": 0, "item": message}),
        ("response.completed", {"response": ended}),
    ]
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name, "sequence_number": number, **fields}))
        for number, (name, fields) in enumerate(events)
    )


def _response(call: Call, response_id: str, created_s: int, status: str, output: list[dict[str, object]]) -> dict[str, object]:
    done = status == "completed"
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_s,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": call.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": _FREE if done else None,
    }


def _message(response_id: str, text: str) -> dict[str, object]:
    return {"id": f"msg_{response_id}", "type": "message", "status": "completed", "role": "assistant", "content": [_part(text)]}


def _part(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
