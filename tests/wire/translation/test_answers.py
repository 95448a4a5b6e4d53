"""Whole answers and errors between the formats, as the official SDKs' types and our own readers take them."""

import json
from typing import Any

import msgspec
import pytest
from anthropic.types import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from holdfast.errors import MalformedAnswer
from holdfast.events.usage import Usage
from holdfast.wire import anthropic_messages, openai_chat, openai_responses
from holdfast.wire.call import WireFormat
from holdfast.wire.translation import Translation, anthropic_answer, chat_answer, responses_answer
from holdfast.wire.translation.between import FORMATS, between
from holdfast.wire.translation.neutral import Answer, Call, Reasoning, Refused, Said, Text

PAIRS = [(caller, target) for caller in FORMATS for target in FORMATS if caller != target]
FORMS: dict[str, WireFormat] = {
    "openai-chat": openai_chat.FORMAT,
    "openai-responses": openai_responses.FORMAT,
    "anthropic-messages": anthropic_messages.FORMAT,
}
WRITE = {
    "openai-chat": chat_answer.write_answer,
    "openai-responses": responses_answer.write_answer,
    "anthropic-messages": anthropic_answer.write_answer,
}
READ = {
    "openai-chat": chat_answer.read_answer,
    "openai-responses": responses_answer.read_answer,
    "anthropic-messages": anthropic_answer.read_answer,
}
MODELS: dict[str, Any] = {"openai-chat": ChatCompletion, "openai-responses": Response, "anthropic-messages": Message}

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).filter(str.strip)
arguments = st.dictionaries(words, st.integers(-9, 9) | words, max_size=2).map(json.dumps)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    cached, written, rest, reasoning, output = (draw(st.integers(0, 10_000)) for _ in range(5))
    return Usage(cached + written + rest, output + reasoning, cached_input=cached, cache_write=written, reasoning=reasoning)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """As every format can have it: thoughts, then text, then calls, or a refusal."""
    parts: list[Said] = [*map(Reasoning, draw(st.lists(words, max_size=1))), *map(Text, draw(st.lists(words, max_size=1)))]
    parts += [
        Call(f"call_{index}", draw(st.from_regex(r"[a-z]{1,9}", fullmatch=True)), draw(arguments))
        for index in range(draw(st.integers(0, 3)))
    ]
    called = any(isinstance(part, Call) for part in parts)
    stop = "tool" if called else draw(st.sampled_from(["end", "length"]))
    return Answer(id="id_1", model="m", parts=parts, stop=stop, usage=draw(usages()))  # type: ignore[arg-type]


def translation(caller: str, target: str) -> Translation:
    found = between(caller, target)
    assert found is not None
    return found


def meaning(answer: Answer) -> dict[str, Any]:
    return {
        "id": answer.id,
        "model": answer.model,
        "text": "".join(part.text for part in answer.parts if isinstance(part, Text)),
        "thoughts": "\n\n".join(part.text for part in answer.parts if isinstance(part, Reasoning)),
        "calls": [(part.id, part.name, json.loads(part.arguments)) for part in answer.parts if isinstance(part, Call)],
        "refusal": "".join(part.text for part in answer.parts if isinstance(part, Refused)),
        "stop": answer.stop,
        "usage": answer.usage,
    }


@pytest.mark.parametrize(("caller", "target"), PAIRS)
@given(answer=answers())
@settings(max_examples=60, deadline=None)
def test_an_answer_means_the_same_in_the_callers_format(caller: str, target: str, answer: Answer) -> None:
    there = WRITE[target](answer)
    back = translation(caller, target).answer(there)
    assert meaning(READ[caller](back)) == meaning(answer)
    heard, told = FORMS[target].answer(there), FORMS[caller].answer(back)
    assert (told.text, told.chosen_action, told.usage, told.response_id) == (
        heard.text,
        heard.chosen_action,
        heard.usage,
        heard.response_id,
    )
    MODELS[caller].model_validate_json(back, strict=False)


def called(body: dict[str, Any], caller: str, target: str) -> dict[str, Any]:
    answer: dict[str, Any] = msgspec.json.decode(translation(caller, target).answer(msgspec.json.encode(body)))
    return answer


def chat(finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "model": "m",
        "created": 7,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "so", **message}, "finish_reason": finish_reason}],
    }


def message(stop_reason: str | None = "end_turn", *content: dict[str, Any], **more: Any) -> dict[str, Any]:
    said = list(content) or [{"type": "text", "text": "so"}]
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": said, "stop_reason": stop_reason, **more}


def response(status: str = "completed", *output: dict[str, Any], **more: Any) -> dict[str, Any]:
    said = list(output) or [{"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "so"}]}]
    return {"id": "resp_1", "object": "response", "created_at": 7, "model": "m", "status": status, "output": said, **more}


@pytest.mark.parametrize(
    ("finish_reason", "stop_reason", "status", "incomplete"),
    [
        ("stop", "end_turn", "completed", None),
        ("length", "max_tokens", "incomplete", "max_output_tokens"),
        ("content_filter", "refusal", "incomplete", "content_filter"),
    ],
)
def test_stop_reasons_are_mapped_all_ways(finish_reason: str, stop_reason: str, status: str, incomplete: str | None) -> None:
    details = {"incomplete_details": {"reason": incomplete}} if incomplete else {}
    given: dict[str, dict[str, Any]] = {
        "openai-chat": chat(finish_reason),
        "anthropic-messages": message(stop_reason),
        "openai-responses": response(status, **details),
    }
    for target, body in given.items():
        if target != "openai-chat":
            assert called(body, "openai-chat", target)["choices"][0]["finish_reason"] == finish_reason
        if target != "anthropic-messages":
            assert called(body, "anthropic-messages", target)["stop_reason"] == stop_reason
        if target != "openai-responses":
            written = called(body, "openai-responses", target)
            assert (written["status"], (written["incomplete_details"] or {}).get("reason")) == (status, incomplete)


def test_a_stop_sequence_and_a_full_context_have_their_nearest_words() -> None:
    assert called(message("stop_sequence", stop_sequence="X"), "openai-chat", "anthropic-messages")["choices"][0]["finish_reason"] == "stop"
    full = called(message("model_context_window_exceeded"), "openai-chat", "anthropic-messages")
    assert full["choices"][0]["finish_reason"] == "length"


def test_a_call_that_a_forced_choice_ends_with_stop_is_a_call() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert called(chat("stop", tool_calls=[call]), "anthropic-messages", "openai-chat")["stop_reason"] == "tool_use"


def test_a_refusal_is_one_in_every_format() -> None:
    refused = called(chat(content=None, refusal="no"), "anthropic-messages", "openai-chat")
    assert refused["stop_reason"] == "refusal"
    assert refused["content"] == [{"type": "text", "text": "no"}]
    assert refused["stop_details"]["explanation"] == "no"
    told = called(
        message("refusal", stop_details={"type": "refusal", "category": None, "explanation": "no"}), "openai-chat", "anthropic-messages"
    )
    assert told["choices"][0]["finish_reason"] == "content_filter"
    assert told["choices"][0]["message"]["refusal"] == "no"
    part = called(chat(content=None, refusal="no"), "openai-responses", "openai-chat")["output"][0]["content"][0]
    assert part == {"type": "refusal", "refusal": "no"}


def test_thoughts_are_shown_and_marked_as_another_models() -> None:
    thought = chat(reasoning_content="hm")
    assert called(thought, "anthropic-messages", "openai-chat")["content"][0] == {
        "type": "thinking",
        "thinking": "hm",
        "signature": "holdfast~",
    }
    item = called(thought, "openai-responses", "openai-chat")["output"][0]
    assert item["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert item["id"].startswith("rs_holdfast~")
    assert called(chat(reasoning="hm"), "openai-responses", "openai-chat")["output"][0]["type"] == "reasoning"


def test_arguments_that_were_cut_off_reach_anthropics_callers_as_what_they_are() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": '}}
    cut = called(chat("length", tool_calls=[call]), "anthropic-messages", "openai-chat")
    assert cut["content"][1]["input"] == {"INVALID_JSON": '{"x": '}
    assert cut["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("openai-chat", chat(None)),
        ("openai-chat", chat("insufficient_system_resource")),
        ("openai-chat", {"choices": []}),
        ("anthropic-messages", message("pause_turn")),
        ("anthropic-messages", message("end_turn", {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}})),
        ("openai-responses", response("in_progress")),
        ("openai-responses", response("completed", {"type": "web_search_call", "id": "ws"})),
        ("openai-responses", response("failed", error={"code": "server_error", "message": "the words"})),
    ],
)
def test_what_is_no_answer_is_not_made_one(target: str, body: dict[str, Any]) -> None:
    for caller in FORMATS:
        if caller != target:
            with pytest.raises(MalformedAnswer):
                called(body, caller, target)


@pytest.mark.parametrize(("caller", "target"), PAIRS)
@pytest.mark.parametrize("junk", [b"", b"[]", b"{}", b"\xff", b"<html>", b"[" * 100_000])
def test_junk_is_no_answer(caller: str, target: str, junk: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        translation(caller, target).answer(junk)


def test_the_words_of_an_error_are_the_targets() -> None:
    openai = b'{"error": {"message": "Too many tokens.", "type": "tokens", "code": "rate_limit_exceeded", "param": null}}'
    written = msgspec.json.decode(translation("anthropic-messages", "openai-chat").error(429, openai))
    assert written == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "Too many tokens.", "details": {"error_code": "rate_limit_exceeded"}},
    }
    anthropic = b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}'
    for caller in ("openai-chat", "openai-responses"):
        error = msgspec.json.decode(translation(caller, "anthropic-messages").error(529, anthropic))["error"]
        assert error == {"message": "Overloaded", "type": "server_error", "param": None, "code": None}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>502 Bad Gateway</html>", "<html>502 Bad Gateway</html>"),
        (b'{"error": "model not found"}', "model not found"),
        (b'{"detail": "no such route"}', "no such route"),
        (b'{"object": "error", "message": "from vLLM", "code": 400}', "from vLLM"),
        (b"", "the target sent no message"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_whatever_an_error_is_its_words_are_kept(body: bytes, words: str) -> None:
    for caller, target in PAIRS:
        assert msgspec.json.decode(translation(caller, target).error(500, body))["error"]["message"] == words
