"""What frameworks do to a history must not change a turn; what changes its meaning must."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.canonical import canonical_json, turn

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
CALLS = st.lists(st.tuples(TEXT, st.dictionaries(TEXT, VALUES, max_size=3).map(json.dumps)), max_size=3)


def backwards(value: Any) -> Any:
    """The same JSON value with every object's keys in the opposite order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


@given(value=VALUES)
def test_json_dumped_in_any_way_is_the_same(value: Any) -> None:
    ways = (
        json.dumps(value),
        json.dumps(backwards(value), indent=2),
        json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        json.dumps(value).encode(),
    )
    assert len({canonical_json(way) for way in ways}) == 1
    assert json.loads(canonical_json(ways[0])) == value


@given(value=VALUES, other=VALUES)
def test_json_of_another_value_is_not_the_same(value: Any, other: Any) -> None:
    same = canonical_json(json.dumps(value)) == canonical_json(json.dumps(other))
    assert same == (json.dumps(_plain(value), sort_keys=True) == json.dumps(_plain(other), sort_keys=True))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@pytest.mark.parametrize("text", ["{", "", "nan", '{"a": 1e999}', '"\\ud800"', "\ud800", "[" * 100_000, "1" * 5_000])
def test_what_is_not_json_stays_as_it_is(text: str) -> None:
    assert canonical_json(text) == text.encode("utf-8", "surrogatepass")


def test_a_number_is_the_same_as_javascript_writes_it() -> None:
    assert canonical_json("[1.0, 1e2, -0.0, 1.50]") == canonical_json("[1, 100, 0, 1.5]")
    assert canonical_json("1e21") == canonical_json("1000000000000000000000")


@given(text=TEXT, cut=st.integers(0, 12), calls=CALLS)
def test_texts_may_be_split_and_trimmed_and_arguments_dumped_again(text: str, cut: int, calls: list[tuple[str, str]]) -> None:
    rewritten = [(name, json.dumps(backwards(json.loads(arguments)), indent=1)) for name, arguments in calls]
    assert turn("assistant", [text], calls) == turn("assistant", [f" {text[:cut]}", f"{text[cut:]}\n"], rewritten)


Fields = tuple[str, str, list[tuple[str, str]], list[bytes]]


@given(
    one=st.tuples(TEXT, TEXT, CALLS, st.lists(st.binary(max_size=5), max_size=2)),
    other=st.tuples(TEXT, TEXT, CALLS, st.lists(st.binary(max_size=5), max_size=2)),
)
def test_turns_are_equal_only_when_they_mean_the_same(one: Fields, other: Fields) -> None:
    def meaning(fields: Fields) -> object:
        role, text, calls, media = fields
        return role, text.strip(), [(name, canonical_json(arguments)) for name, arguments in calls], media

    same = turn(one[0], [one[1]], *one[2:]).digest == turn(other[0], [other[1]], *other[2:]).digest
    assert same == (meaning(one) == meaning(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (turn("user", ["a"]), turn("assistant", ["a"])),
        (turn("u", ["sera"]), turn("us", ["era"])),
        (turn("user", ["a", "b"]), turn("user", ["ba"])),
        (turn("user", ["a b"]), turn("user", ["ab"])),
        (turn("assistant", [], [("f", "{}")]), turn("assistant", [], [("f", "{}"), ("f", "{}")])),
        (turn("assistant", [], [("f", '{"a":1}')]), turn("assistant", [], [("f", '{"a":2}')])),
        (turn("assistant", [], [("f", "{}"), ("g", "{}")]), turn("assistant", [], [("g", "{}"), ("f", "{}")])),
        (turn("user", ["c1:f2:{}"]), turn("user", [], [("f", "{}")])),
        (turn("assistant", [], [("f1", "{}"), ("ggggg", "{}")]), turn("assistant", [], [("f", "{}cggggg2:{}")])),
        (turn("user", ["a"], media=[b"x"]), turn("user", ["a"], media=[b"y"])),
        (turn("user", ["a"], media=[b"xy"]), turn("user", ["a"], media=[b"x", b"y"])),
    ],
)
def test_what_differs_in_meaning_differs(one: Any, other: Any) -> None:
    assert one.digest != other.digest


def test_missing_arguments_are_an_empty_object() -> None:
    assert turn("assistant", [], [("f", "")]) == turn("assistant", [], [("f", "{ }")])


def test_a_digest_has_16_bytes() -> None:
    assert len(turn("user", ["a"]).digest) == 16
