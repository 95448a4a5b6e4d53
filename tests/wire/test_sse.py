"""The splitter against a reader that goes byte by byte, as the standard words it; the cuts and the line ends must not matter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire import sse
from holdfast.wire.sse import Event, Splitter

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
FIELDS = [b"", b"", b"data: a", b"data:b", b"data:  c", b"data", b"event: x", b"event:y", b": ping", b"id: 1", b'data: {"a": 1}', b"junk"]
LINES = st.sampled_from(FIELDS)
STREAMS = st.lists(st.tuples(LINES, LINE_ENDS).map(b"".join), max_size=20).map(b"".join)


def reference(stream: bytes) -> list[tuple[bytes, bytes]]:
    """(name, data) of every event that has a data line and an end: the standard's own algorithm, one line after the other."""
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    events: list[tuple[bytes, bytes]] = []
    name, data = b"", []
    for line in lines[:-1]:
        if line:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value
            continue
        if data:
            events.append((name, b"\n".join(data)))
        name, data = b"", []
    return events


def split(stream: bytes, cuts: list[int]) -> tuple[list[Event], bytes]:
    splitter, events, start = Splitter(), [], 0
    for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        events += splitter.feed(stream[start:cut])
        start = cut
    return events, splitter.flush()


@given(stream=STREAMS, cuts=st.lists(st.integers(0, 400), max_size=12))
def test_the_splitter_reads_what_the_standard_reads_whatever_the_cuts(stream: bytes, cuts: list[int]) -> None:
    events, rest = split(stream, cuts)
    assert b"".join(event.raw for event in events) + rest == stream
    assert [(event.name, event.data) for event in events if event.data] == [event for event in reference(stream) if event[1]]


@given(stream=st.binary(max_size=60), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_not_one_byte_is_lost_or_invented(stream: bytes, cuts: list[int]) -> None:
    events, rest = split(stream, cuts)
    assert b"".join(event.raw for event in events) + rest == stream


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\n\r", b"\r\n\r"])
def test_any_pair_of_line_ends_ends_an_event_at_once(blank: bytes) -> None:
    (event,) = Splitter().feed(b"data: x" + blank)
    assert (event.data, event.raw) == (b"x", b"data: x" + blank)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_one_line_end_does_not_end_an_event(line_end: bytes) -> None:
    splitter = Splitter()
    assert splitter.feed(b"data: x" + line_end) == []
    assert splitter.holding
    assert splitter.flush() == b"data: x" + line_end
    assert not splitter.holding


def test_an_event_in_one_piece_is_not_copied() -> None:
    data = b'data: {"a": 1}\n\n'
    (event,) = Splitter().feed(data)
    assert event.raw is data


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_the_lines_of_an_event_are_read_one_by_one(line_end: bytes) -> None:
    (event,) = Splitter().feed(line_end.join([b"data: a", b": note", b"event: x", b"data:b", b"", b""]))
    assert (event.name, event.data) == (b"x", b"a\nb")


def test_a_byte_order_mark_does_not_hide_the_first_event() -> None:
    (event,) = Splitter().feed(b"\xef\xbb\xbfdata: x\n\n")
    assert event.data == b"x"


def test_an_event_beyond_the_limit_is_passed_on_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 10)
    splitter = Splitter()
    assert splitter.feed(b"data: 4567") == []
    (event,) = splitter.feed(b"8")
    assert event == Event(b"data: 45678", b"", b"")
    assert not splitter.holding
