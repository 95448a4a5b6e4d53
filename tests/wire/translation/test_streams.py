"""Streams between the formats: in any split, through the official SDKs' accumulators, and never with an end that did not come."""

import json
from typing import Any

import msgspec
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from holdfast.events.usage import Usage
from holdfast.wire import anthropic_messages, openai_chat, openai_responses
from holdfast.wire.call import Answer as Heard
from holdfast.wire.call import Rewrite, WireFormat
from holdfast.wire.sse import Splitter
from holdfast.wire.translation import StreamTranslator, anthropic_answer, chat_answer, responses_answer
from holdfast.wire.translation.between import FORMATS, between
from holdfast.wire.translation.neutral import (
    Answer,
    Began,
    Call,
    CallBegan,
    CallPiece,
    Ended,
    Event,
    Failed,
    FormatName,
    Piece,
    Reasoning,
    Stopped,
    Text,
)
from holdfast.wire.translation.streams import sink_of

PAIRS = [(caller, target) for caller in FORMATS for target in FORMATS if caller != target]
FORMS: dict[str, WireFormat] = {
    "openai-chat": openai_chat.FORMAT,
    "openai-responses": openai_responses.FORMAT,
    "anthropic-messages": anthropic_messages.FORMAT,
}
RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
MESSAGE_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
REQUESTS = {
    "openai-chat": b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}',
    "openai-responses": b'{"model":"m","input":"hi","stream":true}',
    "anthropic-messages": b'{"model":"m","messages":[],"max_tokens":9,"stream":true}',
}
USAGE = Usage(40, 20, cached_input=8, cache_write=2, reasoning=5)

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=9)


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Thoughts, then text, then calls whose pieces may come in turns."""
    events: list[Event] = [Began("id_1", "m", 0)]
    events += [Piece("reasoning", text) for text in draw(st.lists(words, max_size=3))]
    events += [Piece("text", text) for text in draw(st.lists(words, max_size=3))]
    count = draw(st.integers(0, 3))
    for key in range(count):
        events.append(CallBegan(key, f"call_{key}", draw(st.sampled_from(["f", "g"]))))
        whole = json.dumps({draw(words): draw(words)})
        cut = draw(st.integers(1, len(whole) - 1))
        events += [CallPiece(key, whole[:cut]), CallPiece(key, whole[cut:])]
    return [*events, Stopped("tool" if count else draw(st.sampled_from(["end", "length"]))), Ended(USAGE)]


def written(name: FormatName, events: list[Event]) -> bytes:
    sink = sink_of(name, REQUESTS[name])
    return b"".join([sink.write(event) for event in events])


def translator(caller: str, target: str) -> StreamTranslator:
    translation = between(caller, target)
    assert translation is not None
    return translation.stream(REQUESTS[caller])


def heard(name: str, stream: bytes) -> Heard:
    form = FORMS[name]
    reader = form.stream(form.parse(REQUESTS[name]), Rewrite())
    reader.feed(stream)
    return reader.answer()


def accumulated(name: str, stream: bytes) -> dict[str, Any]:
    """What the SDK's own accumulator makes of it, as a whole answer of the format."""
    events = [event for event in Splitter().feed(stream) if event.data and event.data != b"[DONE]"]
    if name == "openai-chat":
        chat = ChatCompletionStreamState()
        for event in events:
            chat.handle_chunk(ChatCompletionChunk.model_validate_json(event.data))
        return chat.current_completion_snapshot.model_dump(mode="json", warnings=False)
    if name == "openai-responses":
        responses: Any = ResponseStreamState(input_tools=omit, text_format=omit)
        numbers: list[int] = []
        for event in events:
            read: Any = RESPONSE_EVENT.validate_json(event.data)
            assert read.type == event.name.decode()
            numbers.append(read.sequence_number)
            last = responses.handle_event(read)
        assert numbers == list(range(len(numbers)))
        final: dict[str, Any] = last[-1].response.model_dump(mode="json", warnings=False)
        return final
    snapshot: Any = None
    pieces: dict[int, bytes] = {}
    for event in events:
        message: Any = MESSAGE_EVENT.validate_json(event.data)
        assert message.type == event.name.decode()
        snapshot = accumulate_event(event=message, current_snapshot=snapshot, json_bufs=pieces)
    dumped: dict[str, Any] = snapshot.model_dump(mode="json", warnings=False)
    return dumped


READ = {
    "openai-chat": chat_answer.read_answer,
    "openai-responses": responses_answer.read_answer,
    "anthropic-messages": anthropic_answer.read_answer,
}


def meaning(answer: Answer) -> dict[str, Any]:
    return {
        "id": answer.id,
        "model": answer.model,
        "text": "".join(part.text for part in answer.parts if isinstance(part, Text)),
        "thoughts": "".join(part.text for part in answer.parts if isinstance(part, Reasoning)),
        "calls": [(part.id, part.name, json.loads(part.arguments)) for part in answer.parts if isinstance(part, Call)],
        "stop": answer.stop,
        "usage": answer.usage,
    }


def said(events: list[Event], caller: str) -> dict[str, Any]:
    calls = [event for event in events if isinstance(event, CallBegan)]
    arguments = {
        call.key: "".join(piece.text for piece in events if isinstance(piece, CallPiece) and piece.key == call.key) for call in calls
    }
    thoughts = "".join(event.text for event in events if isinstance(event, Piece) and event.kind == "reasoning")
    return {
        "id": "id_1",
        "model": "m",
        "text": "".join(event.text for event in events if isinstance(event, Piece) and event.kind == "text"),
        "thoughts": thoughts if caller != "openai-chat" else "",  # the SDK's accumulator of chunks keeps them apart
        "calls": [(call.id, call.name, json.loads(arguments[call.key])) for call in calls],
        "stop": next(event.stop for event in events if isinstance(event, Stopped)),
        "usage": USAGE,
    }


@pytest.mark.parametrize(("caller", "target"), PAIRS)
@given(events=streams())
@settings(max_examples=25, deadline=None)
def test_the_sdk_puts_together_what_the_target_said(caller: FormatName, target: FormatName, events: list[Event]) -> None:
    there = written(target, events)
    back = translator(caller, target).feed(there)
    found = meaning(READ[caller](msgspec.json.encode(accumulated(caller, back))))
    if caller == "openai-chat":
        found["thoughts"] = ""
    assert found == said(events, caller)
    told, meant = heard(caller, back), heard(target, there)
    assert (told.text, told.reasoning, told.tool_calls, told.usage, told.complete) == (
        meant.text,
        meant.reasoning,
        meant.tool_calls,
        meant.usage,
        True,
    )


@pytest.mark.parametrize(("caller", "target"), PAIRS)
@given(events=streams(), data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_cuts_of_the_bytes_make_no_difference(caller: FormatName, target: FormatName, events: list[Event], data: st.DataObject) -> None:
    there = written(target, events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(there)), max_size=20)))
    pieces = [there[start:end] for start, end in zip([0, *cuts], [*cuts, len(there)], strict=True)]
    translated = translator(caller, target)
    assert b"".join([*map(translated.feed, pieces), translated.flush()]) == translator(caller, target).feed(there)
    by_bytes = translator(caller, target)
    assert b"".join([by_bytes.feed(there[at : at + 1]) for at in range(len(there))]) == translator(caller, target).feed(there)


TERMINAL = {"openai-chat": b"[DONE]", "openai-responses": b"response.completed", "anthropic-messages": b"message_stop"}
TOLD: list[Event] = [Began("id_1", "m"), Piece("text", "so far"), Stopped("end"), Ended(USAGE)]


@pytest.mark.parametrize(("caller", "target"), PAIRS)
def test_an_end_is_written_when_it_came_and_not_before(caller: FormatName, target: FormatName) -> None:
    there = written(target, TOLD)
    events = Splitter().feed(there)
    for count in range(len(events)):
        translated = translator(caller, target)
        got = translated.feed(b"".join([event.raw for event in events[:count]])) + translated.flush()
        assert TERMINAL[caller] not in got
        assert not heard(caller, got).complete
    assert TERMINAL[caller] in translator(caller, target).feed(there)


@pytest.mark.parametrize(("caller", "target"), PAIRS)
def test_an_error_inside_a_stream_is_the_callers_with_the_targets_words_and_the_last_event(caller: FormatName, target: FormatName) -> None:
    failure = [*TOLD[:2], Failed("Overloaded", "overloaded_error")]
    got = translator(caller, target).feed(written(target, failure) + written(target, TOLD[1:]))
    reader = FORMS[caller].stream(FORMS[caller].parse(REQUESTS[caller]), Rewrite())
    reader.feed(got)
    assert b"Overloaded" in (reader.error or b"")
    assert not reader.ended
    assert reader.answer().text == "so far"
    assert Splitter().feed(got)[-1].data == reader.error


@pytest.mark.parametrize("caller", ["openai-chat", "anthropic-messages"])
def test_a_response_that_fails_is_an_error_of_the_caller(caller: FormatName) -> None:
    failed = (
        b'event: response.failed\ndata: {"type":"response.failed","response":{"error":{"code":"server_error","message":"the words"}}}\n\n'
    )
    got = translator(caller, "openai-responses").feed(written("openai-responses", TOLD[:2]) + failed)
    assert b"the words" in Splitter().feed(got)[-1].data
    assert TERMINAL[caller] not in got


@pytest.mark.parametrize(("caller", "target"), PAIRS)
@pytest.mark.parametrize("junk", [b"data: {nonsense\n\n", b"data: [1]\n\n", b'data: {"type": 5, "choices": 5}\n\n'])
def test_what_cannot_be_read_is_an_error_and_nothing_is_dropped_unread(caller: FormatName, target: FormatName, junk: bytes) -> None:
    translated = translator(caller, target)
    got = translated.feed(written(target, TOLD[:2]) + junk + written(target, TOLD[2:]))
    assert b"cannot be translated" in Splitter().feed(got)[-1].data
    assert TERMINAL[caller] not in got


ORPHANS: list[tuple[FormatName, bytes]] = [
    ("openai-responses", b'{"type":"response.function_call_arguments.delta","output_index":1,"delta":"{}"}'),
    ("anthropic-messages", b'{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{}"}}'),
]


@pytest.mark.parametrize(("target", "orphan"), ORPHANS)
def test_arguments_of_a_call_that_never_began_are_an_error_of_the_stream(target: FormatName, orphan: bytes) -> None:
    for caller in FORMATS:
        if (translation := between(caller, target)) is not None:
            said = translation.stream(REQUESTS[caller]).feed(b"data: " + orphan + b"\n\n")
            assert b"had not begun" in said and b"error" in said


def test_an_end_without_a_reason_is_none() -> None:
    begun = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"so"}}]}\n\ndata: [DONE]\n\n'
    for caller in ("openai-responses", "anthropic-messages"):
        got = translator(caller, "openai-chat").feed(begun)
        assert b"without saying why" in Splitter().feed(got)[-1].data
        assert TERMINAL[caller] not in got


@pytest.mark.parametrize("caller", ["openai-responses", "anthropic-messages"])
def test_calls_that_some_servers_all_number_0_are_told_apart_by_their_ids(caller: FormatName) -> None:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return b"data: " + msgspec.json.encode({"id": "c", "model": "m", "choices": [choice]}) + b"\n\n"

    stream = b"".join(
        chunk({"tool_calls": [{"index": 0, "id": name, "function": {"name": name, "arguments": "{}"}}]}) for name in ("a", "b")
    )
    got = translator(caller, "openai-chat").feed(stream + chunk({}, "stop") + b"data: [DONE]\n\n")
    assert [(call.id, call.name, call.arguments) for call in heard(caller, got).tool_calls] == [("a", "a", "{}"), ("b", "b", "{}")]
    assert heard(caller, got).complete


@pytest.mark.parametrize("target", ["openai-chat", "openai-responses"])
def test_pieces_of_calls_in_turns_stay_with_their_call(target: FormatName) -> None:
    events: list[Event] = [Began("id_1", "m"), CallBegan(0, "a", "f"), CallBegan(1, "b", "g")]
    events += [CallPiece(0, '{"x"'), CallPiece(1, "{"), CallPiece(0, ":1}"), CallPiece(1, "}"), Stopped("tool"), Ended(USAGE)]
    got = translator("anthropic-messages", target).feed(written(target, events))
    blocks = accumulated("anthropic-messages", got)["content"]
    assert [(block["name"], block["input"]) for block in blocks] == [("f", {"x": 1}), ("g", {})]


def test_items_that_a_server_sends_whole_are_read() -> None:
    message = {"type": "message", "id": "m1", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}
    call = {"type": "function_call", "id": "fc1", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "r", "model": "m"}},
        {"type": "response.output_item.done", "output_index": 0, "item": message},
        {"type": "response.output_item.done", "output_index": 1, "item": call},
        {"type": "response.completed", "response": {"id": "r", "model": "m", "status": "completed"}},
    ]
    stream = b"".join([b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events])
    for caller in ("openai-chat", "anthropic-messages"):
        answer = heard(caller, translator(caller, "openai-responses").feed(stream))
        assert answer.text == "hello"
        assert [(made.name, made.arguments) for made in answer.tool_calls] == [("f", '{"a": 1}')]


def test_the_usage_is_told_to_chat_callers_that_asked_for_it_only() -> None:
    translation = between("openai-chat", "anthropic-messages")
    assert translation is not None
    there = written("anthropic-messages", TOLD)
    assert b'"usage"' not in translation.stream(b"{}").feed(there)
    assert b'"total_tokens":60' in translation.stream(REQUESTS["openai-chat"]).feed(there)


def test_an_answer_without_an_id_has_one_that_derives_from_its_request() -> None:
    stream = b'data: {"choices":[{"index":0,"delta":{"content":"so"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    first, again = (heard("anthropic-messages", translator("anthropic-messages", "openai-chat").feed(stream)) for _ in range(2))
    assert first.response_id == again.response_id != ""


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([event.raw for event in Splitter().feed(written("openai-responses", TOLD))]), max_size=9
    )
)
@settings(max_examples=100, deadline=None)
def test_no_bytes_make_it_raise(pieces: list[bytes]) -> None:
    for caller, target in PAIRS:
        translated = translator(caller, target)
        for piece in pieces:
            translated.feed(piece)
        translated.flush()


@pytest.mark.parametrize("target", ["openai-responses", "anthropic-messages"])
def test_a_call_without_arguments_has_an_empty_object(target: FormatName) -> None:
    events: list[Event] = [Began("id_1", "m"), CallBegan(0, "a", "f"), Stopped("tool"), Ended(USAGE)]
    got = translator("openai-chat", target).feed(written(target, events))
    assert [call.arguments for call in heard("openai-chat", got).tool_calls] == ["{}"]
