"""Chat Completions answers: whole bodies, streams in any cut, and what upstreams get wrong."""

import json
import re
from math import exp
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import MalformedAnswer
from holdfast.events.usage import Usage
from holdfast.wire.call import Answer, Rewrite, StreamReader, ToolCall
from holdfast.wire.openai_chat import FORMAT

HISTORY = [{"role": "user", "content": "hi"}]
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}

LINE_END = re.compile(rb"\r\n?|\n")


def completion(message: dict[str, Any], **choice: Any) -> bytes:
    choices = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop", **choice}]
    return json.dumps({"id": "c-1", "model": "gpt-4o-2024", "choices": choices, "usage": USAGE}).encode()


def with_usage(usage: object) -> Usage | None:
    return FORMAT.answer(json.dumps({"choices": [], "usage": usage}).encode()).usage


def chunk(delta: dict[str, Any] | None = None, index: int = 0, finish: str | None = None, **fields: Any) -> bytes:
    choices = [] if delta is None else [{"index": index, "delta": delta, "finish_reason": finish}]
    return b"data: " + json.dumps({"id": "c-1", "model": "m", "choices": choices, **fields}).encode() + b"\n\n"


def reader(asked: bool = False, wanted: bool = False) -> StreamReader:
    """asked: the guard asked for usage; wanted: the agent did."""
    body = json.dumps({"model": "m", "messages": HISTORY, "stream": True, "stream_options": {"include_usage": wanted}}).encode()
    return FORMAT.stream(FORMAT.parse(body), Rewrite(usage_in_stream=asked))


def read(*events: bytes) -> StreamReader:
    stream = reader()
    for event in events:
        assert stream.feed(event) == event
    return stream


DONE = b"data: [DONE]\n\n"


def test_an_answer_is_read_whole() -> None:
    calls = [{"id": "call_1", "type": "function", "function": {"name": "book", "arguments": '{"a":1}'}}]
    answer = FORMAT.answer(completion({"content": "ok", "reasoning_content": "hm", "tool_calls": calls}, finish_reason="tool_calls"))
    assert answer == Answer(
        model="gpt-4o-2024",
        response_id="c-1",
        text="ok",
        reasoning="hm",
        tool_calls=(ToolCall("book", '{"a":1}', "call_1"),),
        finish_reason="tool_calls",
        usage=Usage(input=11, output=7),
        turns=answer.turns,
    )
    assert answer.chosen_action == "book"
    appended = {"role": "assistant", "content": "ok", "tool_calls": calls}
    assert answer.turns == FORMAT.parse(json.dumps({"model": "m", "messages": [appended]}).encode()).turns


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ({"content": "hello"}, "reply"),
        ({"content": None, "refusal": "I cannot."}, "refusal"),
        ({"content": None}, "none"),
        ({"content": "", "function_call": {"name": "f", "arguments": "{}"}}, "f"),
        ({"tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "shell", "input": "ls"}}]}, "shell"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}, {"function": {"name": "g", "arguments": "{}"}}]}, "f+g"),
        ({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "hello"}]}, "reply"),
    ],
)
def test_the_chosen_action_is_what_the_model_picked(message: dict[str, Any], action: str) -> None:
    assert FORMAT.answer(completion(message)).chosen_action == action


def test_of_several_choices_the_first_is_the_record() -> None:
    choices = [{"index": i, "message": {"role": "assistant", "content": f"text {i}"}, "finish_reason": "stop"} for i in range(2)]
    assert FORMAT.answer(json.dumps({"choices": choices}).encode()).text == "text 0"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>", b'{"error":{"message":"x"}}', b'{"choices":3}', b"\xff", b"[" * 100_000])
def test_a_body_of_another_shape_is_not_an_answer(body: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        FORMAT.answer(body)


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (USAGE, Usage(input=11, output=7)),
        (
            {**USAGE, "prompt_tokens_details": {"cached_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 4}},
            Usage(input=11, output=7, cached_input=5, reasoning=4),
        ),
        ({**USAGE, "prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": None}}, Usage(input=11, output=7)),
        ({**USAGE, "prompt_cache_hit_tokens": 3}, Usage(input=11, output=7, cached_input=3)),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": 99}}, Usage(input=11, output=7, cached_input=11)),
        ({"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 118}, Usage(input=11, output=107)),
        ({"prompt_tokens": 11, "total_tokens": 11}, Usage(input=11)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage()),
        (None, None),
        ({}, None),
        ({"prompt_tokens": 11}, None),
        ({"prompt_tokens": -1, "completion_tokens": 7}, None),
        ({"prompt_tokens": 11, "completion_tokens": "7", "total_tokens": 18}, None),
        ({"prompt_tokens": 11, "completion_tokens": -7, "total_tokens": 18}, None),
        ({"prompt_tokens": 1.5, "completion_tokens": 7}, None),
        ({"prompt_tokens": 11, "completion_tokens": 10**9 + 1}, None),
        ({"prompt_tokens": True, "completion_tokens": 7}, None),
        (3, None),
    ],
)
def test_usage_is_normalised_and_nonsense_is_not_measured(usage: object, read: Usage | None) -> None:
    assert with_usage(usage) == read


def test_confidence_comes_from_log_probabilities_alone() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}]}
    assert FORMAT.answer(completion({"content": "ab"}, logprobs=logprobs)).confidence == pytest.approx(exp(-1))
    for none in (None, {}, {"content": None}, {"content": []}, {"content": [{"logprob": "x"}]}, 3):
        assert FORMAT.answer(completion({"content": "ab"}, logprobs=none)).confidence is None


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "a"},
        {"reasoning_content": "a"},
        {"reasoning": "a"},
        {"refusal": "a"},
        {"tool_calls": [{"index": 0, "function": {"name": "f"}}]},
        {"function_call": {"name": "f"}},
        {"content": [{"type": "text", "text": "a"}]},
    ],
)
def test_the_first_real_token_commits(delta: dict[str, Any]) -> None:
    stream = read(
        b": keep-alive\n\n",
        chunk(),
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": None, "reasoning": "", "tool_calls": []}),
        chunk({}, prompt_filter_results=[]),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}),
    )
    assert not stream.committed
    stream.feed(chunk(delta))
    assert stream.committed
    assert stream.generated_bytes == 1


def test_a_streamed_answer_is_put_together() -> None:
    stream = read(
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"reasoning_content": "h"}),
        chunk({"reasoning_content": "m"}),
        chunk({"content": "él"}),
        chunk({"content": "o"}),
        chunk({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
        chunk({"tool_calls": [{"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        chunk({}, finish="tool_calls"),
        chunk({"content": ""}),
        chunk(usage=USAGE),
    )
    assert not stream.ended
    assert not stream.answer().complete
    stream.feed(DONE + b": bye\n\n")
    calls = (ToolCall("f", '{"a":1}', "c1"), ToolCall("g", "{}", "c2"))
    answer = stream.answer()
    assert answer == Answer(
        model="m",
        response_id="c-1",
        text="élo",
        reasoning="hm",
        tool_calls=calls,
        finish_reason="tool_calls",
        usage=Usage(input=11, output=7),
        turns=answer.turns,
    )
    assert stream.generated_bytes == len("hm" + "elo" + "x" + "f" + "g" + '{"a":1}' + "{}")


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        ([{"index": 0, "id": "a", "function": {"name": "f"}}, {"index": 0, "id": "b", "function": {"name": "g"}}], "f g"),
        ([{"id": "a", "function": {"name": "f"}}, {"id": "b", "function": {"name": "g", "arguments": "{}"}}], "f g"),
        ([{"index": 0, "id": "a", "function": {"name": "f"}}, {"index": 0, "id": "a", "function": {"arguments": "{}"}}], "f"),
        ([{"index": 3, "id": "", "custom": {"name": "shell", "input": "l"}}, {"index": 3, "custom": {"input": "s"}}], "shell"),
    ],
)
def test_tool_calls_are_told_apart_by_index_and_id(deltas: list[dict[str, Any]], calls: str) -> None:
    stream = read(*(chunk({"tool_calls": [delta]}) for delta in deltas))
    assert " ".join(call.name for call in stream.answer().tool_calls) == calls


def test_the_last_usage_wins_and_is_never_summed() -> None:
    stream = read(
        chunk({"content": "a"}, usage={"prompt_tokens": 11, "completion_tokens": 1}),
        chunk({"content": "b"}, usage={"prompt_tokens": 11, "completion_tokens": 2}),
        chunk({}, usage=None),
        chunk(usage={"prompt_tokens": "x"}),
    )
    assert stream.answer().usage == Usage(input=11, output=2)


def test_other_choices_count_as_generated_but_are_not_the_record() -> None:
    stream = read(chunk({"content": "b"}, index=1), chunk({"content": "a"}), chunk({}, index=1, finish="length"))
    answer = stream.answer()
    assert (stream.committed, stream.generated_bytes, answer.text, answer.finish_reason) == (True, 2, "a", "")


def test_log_probabilities_of_a_stream_make_its_confidence() -> None:
    events = [
        {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": value}]}}]}
        for value in (-1.0, -3.0)
    ]
    stream = read(*(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events))
    assert stream.answer().confidence == pytest.approx(exp(-2))


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":{"message":"overloaded"}}\n\n',
        b'data: {"error":"overloaded","choices":3}\n\n',
        b'event: error\ndata: {"message":"overloaded"}\n\n',
    ],
)
def test_an_error_inside_the_stream_is_an_error(event: bytes) -> None:
    stream = read(chunk({"content": "a"}), event, DONE)
    assert stream.error is not None
    assert b"overloaded" in stream.error
    assert stream.ended
    assert not stream.answer().complete


def test_an_error_event_of_the_gateway_is_read_as_one() -> None:
    assert read(FORMAT.error_event("cut")).error is not None


def test_events_that_are_not_of_the_format_pass_untouched() -> None:
    odd = [
        b"data: {\n\n",
        b"data: nonsense\n\n",
        b"data: [1]\n\n",
        b"event: x\n\n",
        b'data: {"choices":[{"delta":3}]}\n\n',
        b"data: \xff\n\n",
    ]
    stream = read(*odd)
    assert (stream.committed, stream.ended, stream.error) == (False, False, None)
    assert stream.answer().turns == ()


def test_usage_counts_even_in_a_chunk_of_another_shape() -> None:
    assert read(chunk({"content": 3}, usage=USAGE)).answer().usage == Usage(input=11, output=7)


@pytest.mark.parametrize(("asked", "wanted", "hidden"), [(True, False, True), (True, True, False), (False, False, False)])
def test_a_usage_chunk_reaches_only_an_agent_that_asked_for_it(asked: bool, wanted: bool, hidden: bool) -> None:
    stream = reader(asked, wanted)
    content, usage = chunk({"content": "a"}, usage=None), chunk(usage=USAGE)
    filtered = chunk(prompt_filter_results=[{}])
    assert stream.feed(filtered + content + usage + DONE) == filtered + content + (b"" if hidden else usage) + DONE
    assert stream.answer().usage == Usage(input=11, output=7)


def test_a_usage_chunk_with_a_choice_or_an_error_is_never_hidden() -> None:
    for event in (chunk({"content": "a"}, usage=USAGE), chunk(usage=USAGE, error={"message": "x"})):
        assert reader(asked=True).feed(event) == event


def test_a_torn_event_is_held_until_the_stream_is_over() -> None:
    stream = read(chunk({"content": "a"}))
    assert stream.feed(b'data: {"cho') == b""
    assert stream.flush() == b'data: {"cho'


EVENTS = st.sampled_from(
    [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "héllo"}),
        chunk({"reasoning": "hm"}),
        chunk({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}),
        chunk({}, finish="stop"),
        chunk(usage=USAGE),
        chunk({"content": "x"}, usage=USAGE),
        b": ping\n\n",
        b"data: {broken\n\n",
        b"event: error\ndata: {}\n\n",
        DONE,
    ]
)


@given(
    events=st.lists(EVENTS, max_size=8),
    torn=st.sampled_from([b"", b"data: {", b"\n"]),
    cuts=st.lists(st.integers(0, 2_000), max_size=10),
    crlf=st.booleans(),
    asked=st.booleans(),
)
def test_the_cuts_of_a_stream_change_neither_its_bytes_nor_its_answer(
    events: list[bytes], torn: bytes, cuts: list[int], crlf: bool, asked: bool
) -> None:
    stream = b"".join(events) + torn
    hidden = chunk(usage=USAGE) if asked else b""
    expected = b"".join(event for event in events if event != hidden) + torn
    if crlf:
        stream, expected = stream.replace(b"\n", b"\r\n"), expected.replace(b"\n", b"\r\n")
    whole, cut = reader(asked), reader(asked)
    assert whole.feed(stream) + whole.flush() == expected
    pieces, start = [], 0
    for end in [*sorted(end % (len(stream) + 1) for end in cuts), len(stream)]:
        pieces.append(cut.feed(stream[start:end]))
        start = end
    passed = b"".join(pieces) + cut.flush()
    if crlf and asked:  # of every hidden event that was cut inside its last CRLF, an empty line remains
        lines = LINE_END.sub(b"\n", passed).split(b"\n"), LINE_END.sub(b"\n", expected).split(b"\n")
        assert [line for line in lines[0] if line] == [line for line in lines[1] if line]
    else:
        assert passed == expected
    assert cut.answer() == whole.answer()
    assert (cut.committed, cut.ended, cut.error, cut.generated_bytes) == (whole.committed, whole.ended, whole.error, whole.generated_bytes)


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_no_bytes_make_a_reader_raise(pieces: list[bytes]) -> None:
    stream = reader()
    passed = [stream.feed(piece) for piece in [b"data: {", *pieces]]
    assert b"".join(passed) + stream.flush() == b"data: {" + b"".join(pieces)
    stream.answer()
