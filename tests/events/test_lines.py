"""Whatever an event holds, its line is one line of valid UTF-8 that reads back as the same event."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.events import UNREADABLE, ApiCall, Context, Decision, Error, decode, encode_into
from holdfast.events.ids import uuid7, wall_ns_of
from holdfast.events.usage import Usage

ANY_TEXT = st.text(st.characters() | st.integers(0xD800, 0xDFFF).map(chr))
UTF8_TEXT = st.text(st.characters(exclude_categories=("Cs",)))


def line_of(event: Decision | Context | Error | ApiCall) -> bytes:
    buffer = bytearray(b"before\n")
    encode_into(event, buffer)
    assert buffer.startswith(b"before\n")
    line = bytes(buffer[len(b"before\n") :])
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    line.decode()
    return line


def a_decision(text: str = "", raw: bytes = b"[]", **fields: float | None) -> Decision:
    return Decision(
        decision_id=text,
        timestamp=1,
        agent=text,
        release="r",
        interaction=text,
        model=text,
        format="openai-chat",
        answer=text,
        context=(text, text),
        chosen_action="reply",
        input_messages=Raw(raw),
        usage=Usage(1, 2),
        **fields,
    )


@given(text=UTF8_TEXT, value=st.recursive(UTF8_TEXT | st.integers() | st.none(), st.lists, max_leaves=5))
def test_any_text_and_any_json_come_back_equal(text: str, value: object) -> None:
    event = a_decision(text, msgspec.json.encode(value))
    assert decode(line_of(event)) == event


@given(text=ANY_TEXT)
def test_text_that_is_not_unicode_is_repaired_and_nothing_else_is_touched(text: str) -> None:
    back = decode(line_of(a_decision(text)))
    assert isinstance(back, Decision)
    assert back.answer == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert back.context == (back.answer, back.answer)
    assert (back.timestamp, back.usage) == (1, Usage(1, 2))


def test_line_breaks_between_the_tokens_of_a_request_do_not_break_the_line() -> None:
    back = decode(line_of(a_decision(raw=b'[\n  {"role": "user",\r\n "content": "a\\nb"}\n]\n')))
    assert isinstance(back, Decision)
    assert msgspec.json.decode(back.input_messages) == [{"role": "user", "content": "a\nb"}]


def test_bytes_of_a_request_that_are_not_utf8_do_not_spoil_the_line() -> None:
    back = decode(line_of(Context(digest="d", role="system", content=Raw(b'"caf\xe9"'))))
    assert isinstance(back, Context)
    assert msgspec.json.decode(back.content) == "caf\ufffd"


def test_a_confidence_that_is_no_number_is_read_as_unknown() -> None:
    back = decode(line_of(a_decision(confidence_score=math.nan)))
    assert isinstance(back, Decision)
    assert back.confidence_score is None


def test_a_prompt_of_a_megabyte_comes_back() -> None:
    event = a_decision("x" * 1_000_000)
    assert decode(line_of(event)) == event


@given(st.binary())
def test_other_bytes_raise_only_what_is_documented(line: bytes) -> None:
    with pytest.raises(UNREADABLE):
        decode(line)


def test_nesting_beyond_reason_is_unreadable_not_fatal() -> None:
    with pytest.raises(UNREADABLE):
        decode(b'{"kind":"context","digest":"d","role":"system","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_fields_of_newer_versions_are_ignored() -> None:
    line = line_of(a_decision("x"))
    assert decode(line[:-2] + b',"of_the_future":{"a":[1]}}\n') == a_decision("x")


@given(millis=st.integers(0, 2**48 - 1), bits=st.integers(0, 2**80))
def test_an_identifier_tells_its_millisecond_and_sorts_by_it(millis: int, bits: int) -> None:
    identifier = uuid7(millis * 1_000_000, bits)
    assert wall_ns_of(identifier) == millis * 1_000_000
    assert (len(identifier), identifier[14]) == (36, "7")
    assert identifier >= uuid7(millis * 1_000_000, 0)
