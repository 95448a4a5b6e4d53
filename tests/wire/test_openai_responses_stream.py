"""Streams of OpenAI Responses: bytes pass untouched, in whatever pieces they come, and are understood on the way."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.events.usage import Usage
from holdfast.wire.call import Answer, Rewrite
from holdfast.wire.openai_responses import FORMAT
from holdfast.wire.openai_responses_stream import ResponsesStreamReader

CALL = FORMAT.parse(b'{"model":"gpt-5.1","input":"hi","stream":true}')


def event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields}, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def response(status: str, output: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "gpt-5.1-2025", "status": status, "output": output, **fields}


TEXT = {"type": "output_text", "text": "Grüß dich.", "annotations": [], "logprobs": [{"token": "x", "logprob": -0.5}]}
SAID = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [TEXT]}
CALLED = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "ls", "arguments": '{"path": "/tmp"}', "status": "completed"}
CUSTOM = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "patch", "input": "*** Begin"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gAAAA"}
OUTPUT = [THOUGHT, SAID, CALLED, CUSTOM]
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
}
CREATED = event("response.created", response=response("in_progress", []), sequence_number=0)
COMPLETED = event("response.completed", response=response("completed", OUTPUT, usage=USAGE))


def added(index: int, item: dict[str, Any]) -> bytes:
    return event("response.output_item.added", output_index=index, item=item)


def done(index: int, item: dict[str, Any]) -> bytes:
    return event("response.output_item.done", output_index=index, item=item)


def delta(index: int, kind: str, text: str) -> bytes:
    return event(f"response.{kind}.delta", output_index=index, item_id="x", content_index=0, delta=text)


EVENTS = [
    CREATED,
    event("response.in_progress", response=response("in_progress", [])),
    added(0, THOUGHT | {"summary": []}),
    delta(0, "reasoning_summary_text", "hm"),
    done(0, THOUGHT),
    added(1, SAID | {"content": []}),
    event("response.content_part.added", output_index=1, content_index=0, part=TEXT | {"text": ""}),
    delta(1, "output_text", "Grüß"),
    delta(1, "output_text", " dich."),
    event("response.output_text.done", output_index=1, content_index=0, text="Grüß dich."),
    event("response.content_part.done", output_index=1, content_index=0, part=TEXT),
    done(1, SAID),
    added(2, CALLED | {"arguments": ""}),
    delta(2, "function_call_arguments", '{"path": '),
    delta(2, "function_call_arguments", '"/tmp"}'),
    event("response.function_call_arguments.done", output_index=2, arguments='{"path": "/tmp"}'),
    done(2, CALLED),
    added(3, CUSTOM | {"input": ""}),
    delta(3, "custom_tool_call_input", "*** Begin"),
    done(3, CUSTOM),
    COMPLETED,
]
STREAM = b"".join(EVENTS)


def reader() -> ResponsesStreamReader:
    made = FORMAT.stream(CALL, Rewrite())
    assert isinstance(made, ResponsesStreamReader)
    return made


def read(*pieces: bytes) -> tuple[bytes, ResponsesStreamReader]:
    made = reader()
    return b"".join([*[made.feed(piece) for piece in pieces], made.flush()]), made


def answered(*events: bytes) -> Answer:
    return read(*events)[1].answer()


def test_a_stream_says_what_the_whole_response_would() -> None:
    whole = FORMAT.answer(json.dumps(response("completed", OUTPUT, usage=USAGE)).encode())
    assert answered(*EVENTS) == whole
    assert whole.chosen_action == "ls+patch" and whole.usage == Usage(input=10, output=5, cached_input=4, reasoning=2)


@pytest.mark.parametrize("kept", ["delta", "output_item.done", "response.completed"])
def test_servers_that_leave_events_out_are_understood(kept: str) -> None:
    events = [data for data in EVENTS if kept.encode() in data.split(b"\n")[0] or b"output_item.added" in data]
    answer, whole = answered(*events, COMPLETED), answered(*EVENTS)
    assert (answer.text, answer.chosen_action, answer.usage) == (whole.text, whole.chosen_action, whole.usage)
    assert [turn.digest for turn in answer.turns] == [turn.digest for turn in whole.turns]


@given(st.lists(st.integers(0, len(STREAM)), max_size=30).map(sorted))
def test_the_pieces_do_not_matter(cuts: list[int]) -> None:
    pieces = [STREAM[a:b] for a, b in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]
    passed, made = read(*pieces)
    assert passed == STREAM
    assert made.answer() == answered(STREAM) and made.ended and made.committed


def test_a_whole_event_passes_as_the_very_same_object() -> None:
    made = reader()
    assert all(made.feed(data) is data for data in EVENTS)


@given(st.binary())
def test_what_is_no_stream_passes_all_the_same(data: bytes) -> None:
    passed, made = read(data)
    assert passed == data
    made.answer()


@given(
    st.lists(
        st.builds(
            lambda name, fields: event(name, **fields),
            st.sampled_from([data.split(b"\n")[0][7:].decode() for data in EVENTS]),
            st.dictionaries(
                st.sampled_from(["output_index", "delta", "item", "response", "logprobs"]),
                st.none()
                | st.integers()
                | st.text()
                | st.dictionaries(st.sampled_from(["type", "content", "name", "arguments"]), st.text()),
            ),
        )
    )
)
def test_odd_events_raise_nothing(events: list[bytes]) -> None:
    passed, made = read(*events)
    assert passed == b"".join(events)
    made.answer()


@pytest.mark.parametrize(
    ("data", "commits"),
    [
        (CREATED, False),
        (EVENTS[1], False),
        (added(0, THOUGHT | {"summary": []}), False),
        (added(0, SAID | {"content": []}), False),
        (EVENTS[6], False),
        (delta(0, "output_text", ""), False),
        (COMPLETED, False),
        (event("error", code="x", message="m"), False),
        (delta(0, "output_text", "a"), True),
        (delta(0, "refusal", "a"), True),
        (delta(0, "reasoning_summary_text", "a"), True),
        (delta(0, "reasoning_text", "a"), True),
        (delta(0, "function_call_arguments", "{"), True),
        (delta(0, "nobody_knows", "a"), True),
        (added(0, CALLED | {"arguments": ""}), True),
        (done(0, THOUGHT), True),
    ],
)
def test_only_a_real_token_commits(data: bytes, commits: bool) -> None:
    assert read(data)[1].committed is commits


@pytest.mark.parametrize("unnamed", [True, False])
def test_the_type_may_stand_anywhere_and_the_name_may_be_missing(unnamed: bool) -> None:
    def odd(data: bytes) -> bytes:
        name, rest = data.split(b"\n", 1)
        fields = json.loads(rest.removeprefix(b"data: "))
        last = json.dumps({**{key: value for key, value in fields.items() if key != "type"}, "type": fields["type"]}).encode()
        return (b"" if unnamed else name + b"\n") + b"data: " + last + b"\n\n"

    assert answered(*[odd(data) for data in EVENTS]) == answered(*EVENTS)


def test_a_failed_response_is_an_error() -> None:
    failed = event("response.failed", response=response("failed", [], error={"code": "server_error", "message": "Oh."}))
    _, made = read(*EVENTS[:8], failed)
    assert made.ended and made.error is not None and b"server_error" in made.error
    assert not made.answer().complete and made.answer().text == "Grüß"


def test_an_error_event_is_an_error() -> None:
    _, made = read(*EVENTS[:8], FORMAT.error_event("cut off"))
    assert made.error is not None and not made.ended and not made.answer().complete


def test_an_incomplete_response_ends_with_its_reason() -> None:
    cut = event("response.incomplete", response=response("incomplete", [], incomplete_details={"reason": "max_output_tokens"}, usage=USAGE))
    answer = answered(*EVENTS[:9], cut)
    assert (answer.finish_reason, answer.complete, answer.text) == ("max_output_tokens", True, "Grüß dich.")
    assert answer.usage is not None


def test_a_cut_stream_keeps_what_came() -> None:
    answer = answered(*EVENTS[:14])
    assert (answer.text, answer.reasoning, answer.usage, answer.complete) == ("Grüß dich.", "hm", None, False)
    assert (answer.model, answer.response_id, answer.finish_reason) == ("gpt-5.1-2025", "resp_1", "")
    assert answer.tool_calls[0].name == "ls" and answer.tool_calls[0].arguments == '{"path": '


def test_generated_bytes_are_those_of_the_content() -> None:
    assert read(*EVENTS)[1].generated_bytes == len('hmGrüß dich.ls{"path": "/tmp"}patch*** Begin'.encode())
