"""Bodies are changed where they must be and nowhere else; what was checked is what is sent."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.errors import MalformedRequest
from holdfast.wire.request_body import checked, one_line, read_fields, with_changes, without

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3) | st.sampled_from(["a", "b", "max_tokens", 'q"', "é"])
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
SPACE = st.sampled_from(["", "", " ", "\n ", "\t"])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bool]:
    """A JSON object as some client might write it, and whether one of its keys comes twice."""
    keys = draw(st.lists(KEYS, max_size=5))
    pairs = []
    for key in keys:
        value = json.dumps(draw(VALUES), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
        pairs.append(f"{draw(SPACE)}{json.dumps(key, ensure_ascii=draw(st.booleans()))}{draw(SPACE)}:{draw(SPACE)}{value}{draw(SPACE)}")
    return f"{draw(SPACE)}{{{','.join(pairs) or draw(SPACE)}}}{draw(SPACE)}".encode(), len(set(keys)) < len(keys)


@given(bodies())
def test_a_body_without_changes_is_the_same_object_unless_a_field_comes_twice(made: tuple[bytes, bool]) -> None:
    body, doubled = made
    sent = with_changes(body, lambda _: {})
    assert (sent is body) == (not doubled)
    assert json.loads(sent) == json.loads(body)
    assert len(json.loads(sent, object_pairs_hook=list)) == len(json.loads(body))


@given(bodies(), KEYS, VALUES)
def test_a_change_touches_its_own_field_only(made: tuple[bytes, bool], key: str, value: Any) -> None:
    body, _ = made
    before = read_fields(body)
    sent = with_changes(body, lambda _: {key: Raw(json.dumps(value).encode())})
    after = read_fields(sent)
    assert json.loads(sent) == {**json.loads(body), key: value}
    assert {name: bytes(raw) for name, raw in after.items() if name != key} == {
        name: bytes(raw) for name, raw in before.items() if name != key
    }
    assert len(json.loads(sent, object_pairs_hook=list)) == len(after)


def test_a_bound_cannot_hide_behind_a_second_field_of_the_same_name() -> None:
    body = b'{"max_tokens": 10, "max_tok\\u0065ns": 99999}'
    assert with_changes(body, lambda _: {}) == b'{"max_tokens":99999}'
    assert with_changes(body, lambda _: {"max_tokens": Raw(b"10")}) == b'{"max_tokens":10}'


@given(bodies())
def test_one_line_changes_nothing_but_white_space(made: tuple[bytes, bool]) -> None:
    line = one_line(made[0])
    assert b"\n" not in line
    assert json.loads(line, object_pairs_hook=list) == json.loads(made[0], object_pairs_hook=list)


@pytest.mark.parametrize("body", [b"\n", b"{\n", b"[" * 100_000 + b"\n", b'{"a":\n\xff}'])
def test_what_is_not_json_stays_for_the_reader_to_refuse(body: bytes) -> None:
    assert one_line(body) == body
    with pytest.raises(MalformedRequest):
        read_fields(body)


def test_the_rest_of_a_body_leaves_out_what_is_named() -> None:
    assert bytes(without(read_fields(b'{"b": [1, 2], "a":1,"c":{}}'), ("a", "missing"))) == b'{"b":[1, 2],"c":{}}'


class _Inner(msgspec.Struct):
    role: str


class _Outer(msgspec.Struct):
    items: list[_Inner]
    by_name: dict[str, int] = {}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"items":[{"role":1}]}', "items[0].role"),
        (b'{"items":[{"role":"a"},{}]}', "items[1].role"),
        (b'{"items":3}', "items"),
        (b"{}", "items"),
        (b'{"items":[],"by_name":{"x":"y"}}', "by_name"),
        (b"[]", None),
        (b"{", None),
        (b'{"items":[{"role":"\xff"}]}', None),
        (b'{"other":' + b"[" * 100_000, None),
    ],
)
def test_an_error_names_the_field(body: bytes, param: str | None) -> None:
    with pytest.raises(MalformedRequest) as caught:
        checked(msgspec.json.Decoder(_Outer).decode, body)
    assert caught.value.param == param
    with pytest.raises(MalformedRequest) as within:
        checked(msgspec.json.Decoder(_Outer).decode, body, "outer")
    assert within.value.param == ("outer" if param is None else f"outer.{param}")


@pytest.mark.parametrize("body", [b'{"a":"\xff"}', b'{"a":["\xc3"]}', b'{"a":"\xed\xa0\x80"}'])
def test_a_field_that_is_not_utf8_is_refused_even_where_it_is_not_read(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match="UTF-8"):
        read_fields(body)


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_reading_fields_raises_nothing_but_malformed_request(body: bytes) -> None:
    try:
        fields = read_fields(body)
    except MalformedRequest:
        return
    assert isinstance(json.loads(body.decode("utf-8")), dict)
    assert set(fields) == set(json.loads(body))
