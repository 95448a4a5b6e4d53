"""A stream that broke off and goes on with another target's: to the caller, and to its SDK, it is one answer."""

import json
from itertools import pairwise
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
from holdfast.wire.sse import Splitter
from holdfast.wire.translation.between import FORMATS
from holdfast.wire.translation.neutral import Began, CallBegan, CallPiece, Ended, Event, Failed, FormatName, Piece, Stopped
from holdfast.wire.translation.splice import INSTRUCTION, Continuation, continuation
from holdfast.wire.translation.streams import sink_of

RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
MESSAGE_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
REQUESTS: dict[str, bytes] = {
    "openai-chat": b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}',
    "openai-responses": b'{"model":"m","input":"hi","stream":true}',
    "anthropic-messages": b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}',
}
FIRST: list[Event] = [Began("id_1", "m-1", 7), Piece("text", "The answer"), Piece("text", " is ")]
SECOND: list[Event] = [
    Began("id_2", "m-2", 8),
    Piece("reasoning", "hm", 0),
    Piece("text", "forty", 1),
    Piece("text", "-two.", 1),
    Stopped("end"),
    Ended(Usage(30, 5)),
]


def written(name: FormatName, events: list[Event]) -> bytes:
    sink = sink_of(name, REQUESTS[name])
    return b"".join([sink.write(event) for event in events])


def begun(name: FormatName, events: list[Event]) -> tuple[Continuation, bytes]:
    first = written(name, events)
    splice = continuation(name, REQUESTS[name])
    assert splice is not None
    splice.observe(first)
    return splice, first


def accumulated(name: str, stream: bytes) -> dict[str, Any]:
    """What the SDK's own accumulator makes of it: id, text, calls and usage."""
    events = [event for event in Splitter().feed(stream) if event.data and event.data != b"[DONE]"]
    if name == "openai-chat":
        chat = ChatCompletionStreamState()
        for event in events:
            chat.handle_chunk(ChatCompletionChunk.model_validate_json(event.data))
        completion = chat.get_final_completion()
        said = completion.choices[0].message
        assert completion.usage is not None
        calls = [call.function.name for call in said.tool_calls or ()]
        return {"id": completion.id, "text": said.content, "calls": calls, "output": completion.usage.completion_tokens}
    if name == "openai-responses":
        state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
        reads: list[Any] = [RESPONSE_EVENT.validate_json(event.data) for event in events]
        assert [read.sequence_number for read in reads] == list(range(len(reads)))
        final = [state.handle_event(read) for read in reads][-1][-1].response
        calls = [item.name for item in final.output if item.type == "function_call"]
        return {"id": final.id, "text": final.output_text, "calls": calls, "output": final.usage.output_tokens}
    snapshot: Any = None
    pieces: dict[int, bytes] = {}
    opened: set[int] = set()
    for event in events:
        read: Any = MESSAGE_EVENT.validate_json(event.data)
        if read.type == "content_block_start":
            assert read.index not in opened
            opened.add(read.index)
        snapshot = accumulate_event(event=read, current_snapshot=snapshot, json_bufs=pieces)
    text = "".join(block.text for block in snapshot.content if block.type == "text")
    calls = [block.name for block in snapshot.content if block.type == "tool_use"]
    return {"id": snapshot.id, "text": text, "calls": calls, "output": snapshot.usage.output_tokens}


@pytest.mark.parametrize("name", FORMATS)
@given(cut=st.integers(0, len(FIRST)), cuts=st.lists(st.integers(0, 4_000), max_size=6))
@settings(max_examples=25, deadline=None)
def test_the_sdk_sees_one_answer_wherever_the_first_stream_broke_off(name: FormatName, cut: int, cuts: list[int]) -> None:
    splice, first = begun(name, FIRST[:cut])
    assert splice.can_continue
    second = written(name, SECOND)
    edges = sorted({0, len(second), *[at for at in cuts if at < len(second)]})
    pieces = [splice.resume(second[start:end]) for start, end in pairwise(edges)]
    found = accumulated(name, first + b"".join(pieces) + splice.flush())
    said = "".join(event.text for event in FIRST[:cut] if isinstance(event, Piece))
    assert found == {"id": "id_1" if cut else "id_2", "text": f"{said}forty-two.", "calls": [], "output": 5}
    assert splice.said == f"{said}forty-two."
    assert not splice.can_continue


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("first", [[*FIRST[:1], Piece("reasoning", "well")], [*FIRST[:1], Piece("reasoning", "well"), *FIRST[1:]]])
def test_thoughts_before_the_break_are_closed(name: FormatName, first: list[Event]) -> None:
    splice, sent = begun(name, first)
    assert splice.can_continue
    found = accumulated(name, sent + splice.resume(written(name, SECOND)))
    assert found["text"].endswith("forty-two.")


@pytest.mark.parametrize("name", FORMATS)
def test_the_continuation_may_call_tools(name: FormatName) -> None:
    splice, first = begun(name, FIRST)
    calls: list[Event] = [
        SECOND[0],
        CallBegan(0, "c1", "f"),
        CallPiece(0, "{}"),
        CallBegan(1, "c2", "g"),
        Stopped("tool"),
        Ended(Usage(1, 5)),
    ]
    found = accumulated(name, first + splice.resume(written(name, calls)))
    assert (found["text"], found["calls"]) == ("The answer is ", ["f", "g"])


@pytest.mark.parametrize("name", FORMATS)
def test_a_second_break_can_be_continued_too(name: FormatName) -> None:
    splice, sent = begun(name, FIRST)
    sent += splice.resume(written(name, SECOND[:3]))
    assert splice.can_continue
    assert "The answer is forty" in splice.request().decode()
    sent += splice.resume(written(name, [SECOND[0], Piece("text", " two"), *SECOND[4:]]))
    assert accumulated(name, sent)["text"] == "The answer is forty two"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "more", [[CallBegan(0, "c", "f")], [Piece("refusal", "no")], [Stopped("end"), Ended()], [Failed("Overloaded")]], ids=str
)
def test_an_answer_that_is_more_than_text_is_not_continued(name: FormatName, more: list[Event]) -> None:
    splice, _ = begun(name, [*FIRST, *more])
    refusal_is_text = name == "anthropic-messages" and isinstance(more[0], Piece)  # until the stop reason says what it was
    assert splice.can_continue == refusal_is_text


@pytest.mark.parametrize("name", FORMATS)
def test_a_torn_event_is_not_continued(name: FormatName) -> None:
    splice, first = begun(name, FIRST)
    splice.observe(first[:20])
    assert not splice.can_continue


@pytest.mark.parametrize("name", FORMATS)
def test_the_request_says_what_was_said_and_to_go_on_from_there(name: FormatName) -> None:
    splice, _ = begun(name, FIRST)
    request = msgspec.json.decode(splice.request())
    history = request.pop("input" if name == "openai-responses" else "messages")
    assert history == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "The answer is "},
        {"role": "user", "content": INSTRUCTION},
    ]
    given: dict[str, Any] = json.loads(REQUESTS[name])
    assert request == {field: value for field, value in given.items() if field not in ("input", "messages")}


@pytest.mark.parametrize("name", FORMATS)
def test_where_nothing_was_said_the_request_is_the_callers(name: FormatName) -> None:
    splice, _ = begun(name, FIRST[:1])
    assert splice.request() is REQUESTS[name]


@pytest.mark.parametrize("name", FORMATS)
def test_a_failure_of_the_second_stream_is_an_error_and_no_end(name: FormatName) -> None:
    splice, _ = begun(name, FIRST)
    got = splice.resume(written(name, [*SECOND[:3], Failed("Overloaded")]))
    assert b"Overloaded" in Splitter().feed(got)[-1].data
    assert not splice.can_continue


def test_output_that_is_bound_to_a_schema_is_not_continued() -> None:
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    assert continuation("openai-chat", msgspec.json.encode({"response_format": {"type": "json_object"}})) is None
    assert continuation("openai-responses", msgspec.json.encode({"text": {"format": schema}})) is None
    assert continuation("anthropic-messages", msgspec.json.encode({"output_config": {"format": schema}})) is None
    assert continuation("openai-chat", msgspec.json.encode({"response_format": {"type": "text"}})) is not None
    assert continuation("openai-embeddings", b"{}") is None


def test_openais_own_response_object_is_the_one_that_ends() -> None:
    """The fields of the first stream's response, which ours has not, are in the last one."""
    created = {"id": "resp_1", "object": "response", "model": "m", "status": "in_progress", "output": [], "created_at": 1, "store": True}
    event = b"event: response.created\ndata: " + msgspec.json.encode(
        {"type": "response.created", "sequence_number": 0, "response": created}
    )
    splice = continuation("openai-responses", REQUESTS["openai-responses"])
    assert splice is not None
    splice.observe(event + b"\n\n")
    got = splice.resume(written("openai-responses", SECOND))
    final = msgspec.json.decode(Splitter().feed(got)[-1].data)["response"]
    assert (final["id"], final["store"], final["status"]) == ("resp_1", True, "completed")


@given(st.lists(st.binary(max_size=60), max_size=9))
@settings(max_examples=50, deadline=None)
def test_no_bytes_make_it_raise(pieces: list[bytes]) -> None:
    for name in FORMATS:
        splice, _ = begun(name, FIRST)
        for piece in pieces:
            splice.observe(piece)
            splice.resume(piece)


def test_the_open_block_goes_on_and_later_thoughts_do_not_part_it() -> None:
    splice, _ = begun("anthropic-messages", FIRST)
    got = splice.resume(written("anthropic-messages", SECOND))
    assert b"content_block_start" not in got
    assert b"thinking_delta" not in got
