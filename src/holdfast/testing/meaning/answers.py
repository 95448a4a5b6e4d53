"""What an answer says, whole or streamed."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from holdfast.testing.meaning.requests import Format


class Said(Struct, frozen=True, kw_only=True):
    """One answer.

    refusal: what is said where `stop` is "refused"; `text` is empty then. calls: tool and parsed arguments, in order. stop: "end" (a
    stop sequence too: Chat does not tell them apart), "tools", "length", "refused" (by the model or by a filter), else the format's own
    word. Tokens: `cached` is a part of `input`, `thought` of `output`; None: not told.
    """

    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, Any], ...] = ()
    stop: str = ""
    input: int | None = None
    cached: int | None = None
    output: int | None = None
    thought: int | None = None


def said(format: Format, answer: dict[str, Any]) -> Said:
    """The meaning of a whole answer, as its JSON was decoded; of several choices the first."""
    meant = _READERS[format](answer)
    return msgspec.structs.replace(meant, text="", refusal=meant.text + meant.refusal) if meant.stop == "refused" else meant


def gathered(format: Format, events: list[dict[str, Any]], *, strict: bool = True) -> dict[str, Any]:
    """The whole answer that a stream's events add up to. Raises AssertionError where it has no end and, where strict, where the events
    contradict each other or come in an order that the format does not have."""
    return _GATHERERS[format](events, strict)


def _arguments(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _chat(answer: dict[str, Any]) -> Said:
    choice = answer["choices"][0]
    message, usage = choice["message"], answer.get("usage") or {}
    calls = message.get("tool_calls") or ()
    stops = {"stop": "end", "tool_calls": "tools", "length": "length", "content_filter": "refused"}
    return Said(
        text=message.get("content") or "",
        refusal=message.get("refusal") or "",
        reasoning=message.get("reasoning_content") or "",
        calls=tuple((call["function"]["name"], _arguments(call["function"]["arguments"])) for call in calls),
        stop="refused" if message.get("refusal") and choice["finish_reason"] == "stop" else stops.get(choice["finish_reason"], ""),
        input=usage.get("prompt_tokens"),
        cached=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        output=usage.get("completion_tokens"),
        thought=(usage.get("completion_tokens_details") or {}).get("reasoning_tokens"),
    )


def _responses(answer: dict[str, Any]) -> Said:
    parts = [part for item in answer["output"] if item["type"] == "message" for part in item["content"]]
    thoughts = [part["text"] for item in answer["output"] if item["type"] == "reasoning" for part in item["summary"]]
    calls = tuple((item["name"], _arguments(item["arguments"])) for item in answer["output"] if item["type"] == "function_call")
    refusal = "".join(part["refusal"] for part in parts if part["type"] == "refusal")
    usage = answer.get("usage") or {}
    return Said(
        text="".join(part["text"] for part in parts if part["type"] == "output_text"),
        refusal=refusal,
        reasoning="".join(thoughts),
        calls=calls,
        stop=_responses_stop(answer, refused=bool(refusal), calls=bool(calls)),
        input=usage.get("input_tokens"),
        cached=(usage.get("input_tokens_details") or {}).get("cached_tokens"),
        output=usage.get("output_tokens"),
        thought=(usage.get("output_tokens_details") or {}).get("reasoning_tokens"),
    )


def _responses_stop(answer: dict[str, Any], *, refused: bool, calls: bool) -> str:
    if answer["status"] == "incomplete":
        reason = answer["incomplete_details"]["reason"]
        return {"max_output_tokens": "length", "content_filter": "refused"}.get(reason, str(reason))
    if answer["status"] != "completed":
        return str(answer["status"])
    if refused:
        return "refused"
    return "tools" if calls else "end"


def _messages(answer: dict[str, Any]) -> Said:
    blocks, usage = answer["content"], answer["usage"]
    stops = {"end_turn": "end", "stop_sequence": "end", "tool_use": "tools", "max_tokens": "length", "refusal": "refused"}
    cached = usage.get("cache_read_input_tokens") or 0
    return Said(
        text="".join(block["text"] for block in blocks if block["type"] == "text"),
        reasoning="".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        calls=tuple((block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"),
        stop=stops.get(answer["stop_reason"], answer["stop_reason"]),
        input=usage["input_tokens"] + cached + (usage.get("cache_creation_input_tokens") or 0),
        cached=cached,
        output=usage["output_tokens"],
        thought=(usage.get("output_tokens_details") or {}).get("thinking_tokens"),
    )


def _gather_chat(events: list[dict[str, Any]], strict: bool) -> dict[str, Any]:
    """Of the first choice, as the OpenAI SDK adds them up."""
    message: dict[str, Any] = {"role": "assistant"}
    calls: list[dict[str, Any]] = []
    finish, usage = None, None
    for event in events:
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            if choice["index"] == 0:
                assert finish is None or not strict, "something came after the finish reason"
                finish = choice.get("finish_reason") or finish
                _add_delta(message, calls, choice["delta"])
    assert finish is not None, "the stream has no finish reason"
    if calls:
        message["tool_calls"] = calls
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage, "model": events[0]["model"]}


def _add_delta(message: dict[str, Any], calls: list[dict[str, Any]], delta: dict[str, Any]) -> None:
    for field in ("content", "refusal", "reasoning_content"):
        if delta.get(field):
            message[field] = message.get(field, "") + delta[field]
    for piece in delta.get("tool_calls") or ():
        assert piece["index"] <= len(calls), "a call was skipped"
        if piece["index"] == len(calls):
            calls.append({"id": piece["id"], "type": "function", "function": {"name": piece["function"]["name"], "arguments": ""}})
        calls[piece["index"]]["function"]["arguments"] += piece["function"].get("arguments") or ""


def _gather_responses(events: list[dict[str, Any]], strict: bool) -> dict[str, Any]:
    """The last event carries the answer; every other has to agree with it."""
    last = events[-1]
    assert last["type"] in {"response.completed", "response.incomplete"}, f"the stream ends with {last['type']}"
    answer: dict[str, Any] = last["response"]
    if strict:
        _agree(events, answer)
    return answer


def _agree(events: list[dict[str, Any]], answer: dict[str, Any]) -> None:
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    done = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    assert [done[index] for index in sorted(done)] == answer["output"]
    for index, item in enumerate(answer["output"]):
        deltas = [event["delta"] for event in events if event.get("output_index") == index and event["type"].endswith(".delta")]
        assert "".join(deltas) == _text_of(item)


def _text_of(item: dict[str, Any]) -> str:
    match item["type"]:
        case "message":
            return "".join(part.get("text", part.get("refusal")) for part in item["content"])
        case "reasoning":
            return "".join(part["text"] for part in item["summary"])
        case _:
            return str(item.get("arguments", item.get("input")))


def _gather_messages(events: list[dict[str, Any]], strict: bool) -> dict[str, Any]:
    """As the Anthropic SDK adds them up; blocks follow each other, and none stays open."""
    events = [event for event in events if event["type"] != "ping"]
    first, *middle, last = events
    assert (first["type"], last["type"]) == ("message_start", "message_stop"), "the stream has no beginning or no end"
    message: dict[str, Any] = {**first["message"], "content": []}
    pieces: list[str] = []
    is_open = False
    for event in middle:
        if event["type"] == "message_delta":
            message.update(event["delta"])
            message["usage"] = {**message["usage"], **event["usage"]}
            continue
        assert is_open == (event["type"] != "content_block_start") or not strict, "blocks overlap"
        is_open = event["type"] != "content_block_stop"
        if event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(dict(event["content_block"]))
            pieces = []
        _add_piece(message["content"][event["index"]], pieces, event)
    assert message["stop_reason"] and not (is_open and strict), "the stream has no stop reason"
    return message


def _add_piece(block: dict[str, Any], pieces: list[str], event: dict[str, Any]) -> None:
    delta = event.get("delta") or {}
    match delta.get("type"):
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "input_json_delta":
            pieces.append(delta["partial_json"])
    if event["type"] == "content_block_stop" and block["type"] == "tool_use" and any(pieces):
        block["input"] = _arguments("".join(pieces))


_READERS: dict[Format, Callable[[dict[str, Any]], Said]] = {
    "openai-chat": _chat,
    "openai-responses": _responses,
    "anthropic-messages": _messages,
}
_GATHERERS: dict[Format, Callable[[list[dict[str, Any]], bool], dict[str, Any]]] = {
    "openai-chat": _gather_chat,
    "openai-responses": _gather_responses,
    "anthropic-messages": _gather_messages,
}
