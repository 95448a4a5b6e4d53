"""Reads and writes whole answers of OpenAI's Responses.

Thoughts of another provider's model are marked as such by the id of their item, which OpenAI would not know: see `foreign`.
"""

import msgspec
from msgspec import Struct

from holdfast.errors import MalformedAnswer
from holdfast.events.usage import Usage
from holdfast.wire.openai_responses_answer import UNREADABLE, Response, read_items, reported_usage
from holdfast.wire.openai_responses_item import Item, content, text
from holdfast.wire.translation.chat_answer import created_of
from holdfast.wire.translation.ids import FOREIGN, call_id, digest
from holdfast.wire.translation.neutral import Answer, Call, Reasoning, Refused, Said, Stop, Text

Object = dict[str, object]


class ResponseError(Struct, gc=False):
    message: str | None = None
    code: str | None = None


class FullResponse(Response, gc=False):
    created_at: object = None
    error: ResponseError | None = None


_read = msgspec.json.Decoder(FullResponse).decode


def read_answer(body: bytes) -> Answer:
    try:
        response = _read(body)
        items = read_items(response.output)
        parts = [part for item in items for part in parts_of(item)]
    except UNREADABLE as error:
        raise MalformedAnswer(f"not an OpenAI response: {error}") from None
    if response.status in ("failed", "cancelled"):
        raise MalformedAnswer((response.error and response.error.message) or f"the response has {response.status}")
    return Answer(
        id=response.id or "",
        model=response.model or "",
        parts=parts,
        stop=stop_of(response, calls=any(isinstance(part, Call) for part in parts)),
        usage=reported_usage(response, items),
        created_s=created_of(response.created_at),
    )


def stop_of(response: Response, *, calls: bool) -> Stop:
    if response.status == "completed":
        return "tool" if calls else "end"
    reason = response.incomplete_details.reason if response.incomplete_details is not None else None
    if response.status == "incomplete" and reason in ("max_output_tokens", "content_filter"):
        return "length" if reason == "max_output_tokens" else "filter"
    raise MalformedAnswer(f"the answer ends for a reason that is not known: status {response.status!r}, {reason!r}")


def parts_of(item: Item) -> list[Said]:
    """Raises MalformedAnswer for items that are not translated, MalformedRequest for those that are not what their type says."""
    match item.kind:
        case "message":
            return [Refused(text(part.refusal)) if part.type == "refusal" else Text(text(part.text)) for part in content(item.content)]
        case "reasoning":
            thoughts = [text(part.text) for part in (*content(item.summary), *content(item.content))]
            return [Reasoning(thought) for thought in thoughts if thought]
        case "function_call":
            return [Call(text(item.call_id), text(item.name), text(item.arguments))]
        case "custom_tool_call":
            return [Call(text(item.call_id), text(item.name), text(item.input), True)]
        case kind:
            raise MalformedAnswer(f"the answer has an item of type {kind!r}, which is not translated")


def write_answer(answer: Answer) -> bytes:
    response_id = answer.id or f"resp_{digest(repr(answer.parts))}"
    output: list[Object] = []
    said: list[Object] = []
    status = "completed" if answer.stop not in ("length", "filter") else "incomplete"
    for part in answer.parts:
        if isinstance(part, Text | Refused):
            if not said:
                output.append(message_item(response_id, len(output), said, status))
            said.append(text_part(part.text) if isinstance(part, Text) else {"type": "refusal", "refusal": part.text})
            continue
        said = []
        if isinstance(part, Reasoning):
            output.append(reasoning_item(response_id, len(output), [part.text]))
        else:
            output.append(call_item(response_id, len(output), part, "completed"))
    return msgspec.json.encode(response_object(response_id, answer.model, answer.created_s, output, answer.stop, answer.usage))


def response_object(
    response_id: str, model: str, created_s: int, output: list[Object], stop: Stop | None, usage: Usage | None = None
) -> Object:
    """stop None: still in progress."""
    reasons = {"length": "max_output_tokens", "filter": "content_filter"}
    reason = reasons.get(stop or "")
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_s,
        "status": "in_progress" if stop is None else "incomplete" if reason else "completed",
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": write_usage(usage) if usage is not None else None,
    }


def write_usage(usage: Usage) -> Object:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached_input, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def text_part(written: str) -> Object:
    return {"type": "output_text", "text": written, "annotations": [], "logprobs": []}


def message_item(response_id: str, index: int, parts: list[Object], status: str) -> Object:
    return {"id": f"msg_{digest(response_id)}_{index}", "type": "message", "status": status, "role": "assistant", "content": parts}


def reasoning_item(response_id: str, index: int, thoughts: list[str]) -> Object:
    summary = [{"type": "summary_text", "text": thought} for thought in thoughts]
    return {"id": f"rs_{FOREIGN}{digest(response_id)}_{index}", "type": "reasoning", "summary": summary}


def call_item(response_id: str, index: int, call: Call, status: str, *, begun: bool = False) -> Object:
    """begun: the arguments are still to come."""
    given: Object = {"call_id": call_id(call.id), "name": call.name, "status": status}
    if call.custom:
        return {"id": f"ctc_{digest(response_id)}_{index}", "type": "custom_tool_call", "input": call.arguments} | given
    return {
        "id": f"fc_{digest(response_id)}_{index}",
        "type": "function_call",
        "arguments": call.arguments or ("" if begun else "{}"),
    } | given
