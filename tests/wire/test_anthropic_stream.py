"""Streams of Anthropic Messages: bytes pass untouched, in whatever pieces they come, and are understood on the way."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.events.usage import Usage
from holdfast.wire.anthropic_messages import FORMAT
from holdfast.wire.anthropic_stream import AnthropicStreamReader
from holdfast.wire.call import Answer, Rewrite

CALL = FORMAT.parse(b'{"model":"claude","messages":[{"role":"user","content":"hi"}],"max_tokens":10,"stream":true}')


def event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields}, ensure_ascii=False)}\n\n".encode()


def start(index: int, **block: Any) -> bytes:
    return event("content_block_start", index=index, content_block=block)


def delta(index: int, kind: str, **fields: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


HEAD = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-1", "content": [], "stop_reason": None}
BEGIN = event("message_start", message={**HEAD, "usage": {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 1}})
PING = event("ping")
END = [
    event("message_delta", delta={"stop_reason": "tool_use", "stop_sequence": None}, usage={"output_tokens": 40}),
    event("message_stop"),
]
EVENTS = [
    BEGIN,
    start(0, type="thinking", thinking="", signature=""),
    PING,
    delta(0, "thinking_delta", thinking="Let me see… "),
    delta(0, "thinking_delta", thinking="yes."),
    delta(0, "signature_delta", signature="c2ln"),
    event("content_block_stop", index=0),
    start(1, type="text", text=""),
    delta(1, "text_delta", text="Grüß"),
    delta(1, "text_delta", text=" dich."),
    event("content_block_stop", index=1),
    start(2, type="tool_use", id="toolu_1", name="ls", input={}),
    delta(2, "input_json_delta", partial_json=""),
    delta(2, "input_json_delta", partial_json='{"path": '),
    delta(2, "input_json_delta", partial_json='"/tmp"}'),
    event("content_block_stop", index=2),
    start(3, type="tool_use", id="toolu_2", name="pwd", input={}),
    event("content_block_stop", index=3),
    *END,
]
STREAM = b"".join(EVENTS)


def reader() -> AnthropicStreamReader:
    made = FORMAT.stream(CALL, Rewrite())
    assert isinstance(made, AnthropicStreamReader)
    return made


def read(*pieces: bytes) -> tuple[bytes, AnthropicStreamReader]:
    made = reader()
    return b"".join([*[made.feed(piece) for piece in pieces], made.flush()]), made


def answered(*events: bytes) -> Answer:
    return read(*events)[1].answer()


def test_a_stream_says_what_the_whole_message_would() -> None:
    content = [
        {"type": "thinking", "thinking": "Let me see… yes.", "signature": "c2ln"},
        {"type": "text", "text": "Grüß dich."},
        {"type": "tool_use", "id": "toolu_1", "name": "ls", "input": {"path": "/tmp"}},
        {"type": "tool_use", "id": "toolu_2", "name": "pwd", "input": {}},
    ]
    usage = {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 40}
    whole = FORMAT.answer(json.dumps({**HEAD, "content": content, "stop_reason": "tool_use", "usage": usage}).encode())
    streamed = answered(*EVENTS)
    assert [json.loads(call.arguments) for call in streamed.tool_calls] == [{"path": "/tmp"}, {}]
    assert streamed.tool_calls[0].arguments == '{"path": "/tmp"}'
    whole.tool_calls = streamed.tool_calls
    assert streamed == whole
    assert whole.chosen_action == "ls+pwd" and whole.usage == Usage(input=100, output=40, cached_input=90)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30).map(sorted))
def test_the_pieces_do_not_matter(cuts: list[int]) -> None:
    pieces = [STREAM[a:b] for a, b in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]
    passed, made = read(*pieces)
    assert passed == STREAM
    assert made.answer() == answered(STREAM) and made.ended and made.committed


def test_a_whole_event_passes_as_the_very_same_object() -> None:
    made = reader()
    assert all(made.feed(data) is data for data in EVENTS)


def test_a_torn_event_waits_for_its_end() -> None:
    made = reader()
    assert made.feed(BEGIN + PING[:9]) == BEGIN
    assert made.flush() == PING[:9]


@given(st.binary())
def test_what_is_no_stream_passes_all_the_same(data: bytes) -> None:
    passed, made = read(data)
    assert passed == data
    assert not made.committed or b"content_block" in data
    made.answer()


@given(
    st.lists(
        st.builds(
            lambda name, fields: event(name, **fields),
            st.sampled_from(["message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop"]),
            st.dictionaries(
                st.sampled_from(["index", "delta", "content_block", "message", "usage"]),
                st.none()
                | st.integers()
                | st.text()
                | st.dictionaries(st.sampled_from(["type", "text", "name", "input", "usage", "id"]), st.text()),
            ),
        )
    )
)
def test_odd_events_raise_nothing(events: list[bytes]) -> None:
    passed, made = read(*events)
    assert passed == b"".join(events)
    made.answer()


def test_a_block_that_is_not_what_its_type_says_takes_only_the_content_away() -> None:
    passed, made = read(BEGIN, odd := start(0, type="tool_use", id="toolu_1", name=5, input={}), *END)
    assert passed == b"".join([BEGIN, odd, *END])
    assert (made.answer().response_id, made.answer().tool_calls, made.ended) == ("msg_1", (), True)


@pytest.mark.parametrize(
    ("data", "commits"),
    [
        (BEGIN, False),
        (PING, False),
        (start(0, type="text", text=""), False),
        (start(0, type="thinking", thinking="", signature=""), False),
        (delta(0, "text_delta", text=""), False),
        (delta(0, "input_json_delta", partial_json=""), False),
        (END[0], False),
        (event("error", error={"type": "overloaded_error", "message": "Overloaded"}), False),
        (delta(0, "text_delta", text="a"), True),
        (delta(0, "thinking_delta", thinking="a"), True),
        (delta(0, "signature_delta", signature="a"), True),
        (delta(0, "input_json_delta", partial_json="{"), True),
        (start(0, type="tool_use", id="t", name="ls", input={}), True),
        (start(0, type="text", text="a"), True),
        (start(0, type="redacted_thinking", data="x"), True),
    ],
)
def test_only_a_real_token_commits(data: bytes, commits: bool) -> None:
    assert read(data)[1].committed is commits


def test_an_event_without_a_name_is_known_by_its_type() -> None:
    unnamed = [data.split(b"\n", 1)[1] for data in EVENTS]
    assert answered(*unnamed) == answered(*EVENTS)


def test_an_error_event_ends_an_answer_that_is_not_complete() -> None:
    failed = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    _, made = read(*EVENTS[:9], failed)
    assert made.error is not None and json.loads(made.error)["error"]["type"] == "overloaded_error"
    assert not made.ended and not made.answer().complete and made.answer().text == "Grüß"
    assert read(FORMAT.error_event("cut off"))[1].error is not None


def test_a_cut_stream_has_no_usage_since_what_was_generated_is_not_known() -> None:
    answer = answered(*EVENTS[:14])
    assert answer.usage is None and not answer.complete
    assert answer.tool_calls[0].arguments == '{"path": '


def test_counts_are_running_totals_and_the_last_one_wins() -> None:
    first = event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 40, "cache_read_input_tokens": None})
    last = event(
        "message_delta",
        delta={"stop_reason": "end_turn"},
        usage={"output_tokens": 50, "input_tokens": 12, "server_tool_use": {"web_search_requests": 3}},
    )
    assert answered(BEGIN, first, last).usage == Usage(input=102, output=50, cached_input=90, web_searches=3)
    assert answered(BEGIN, first).usage == Usage(input=100, output=40, cached_input=90)


def test_generated_bytes_are_those_of_the_content() -> None:
    assert read(*EVENTS)[1].generated_bytes == len('Let me see… yes.Grüß dich.ls{"path": "/tmp"}pwd'.encode())


def test_a_stream_whose_content_cannot_be_read_does_not_say_which_tools_ran() -> None:
    def hosted(*events: bytes) -> tuple[str, ...] | None:
        reader = AnthropicStreamReader()
        reader.feed(b"".join([BEGIN, *events, *END]))
        return reader.answer().hosted

    assert hosted(start(0, type="server_tool_use", id="1", name="web_search", input={})) == ("web_search",)
    assert hosted(start(0, type="text", text="")) == ()
    assert hosted(start(0, type="server_tool_use", id="1", name=7, input={})) is None
