import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import SECOND
from holdfast.policy.allowance import SLOTS, Window
from holdfast.policy.pacing import reaches_at_ns

HOUR = 3600 * SECOND
MINUTE = 60 * SECOND
WINDOW = Window.of(HOUR)
NOW = 1_000 * HOUR
SLOT = WINDOW.slot(NOW)


def steady(per_slot: int, slots: int) -> list[tuple[int, int]]:
    """The same amount in each of the last `slots` slots before now."""
    return [(slot, per_slot) for slot in range(SLOT - slots, SLOT)]


def test_a_steady_rate_reaches_the_limit_when_the_rest_is_spent() -> None:
    at_ns = reaches_at_ns(WINDOW, steady(10, 30), 400, NOW)
    assert at_ns == NOW + 10 * MINUTE


def test_what_leaves_the_window_on_the_way_puts_the_end_off() -> None:
    old = (SLOT - 55, 200)  # leaves in six minutes
    at_ns = reaches_at_ns(WINDOW, [old, *steady(10, 10)], 380, NOW)
    assert at_ns is not None
    assert at_ns > NOW + 8 * MINUTE
    assert at_ns == NOW + 28 * MINUTE


@pytest.mark.parametrize(
    ("slots", "limit"),
    [
        ([], 100),
        (steady(1, 60), 100),  # 60 an hour never reach 100
        (steady(10, 1), 100),  # a tenth of the limit is too little to judge by
        ([(SLOT - 30, 90)], 100),  # nothing lately
    ],
)
def test_nothing_is_foretold_without_a_reason(slots: list[tuple[int, int]], limit: int) -> None:
    assert reaches_at_ns(WINDOW, slots, limit, NOW) is None


def test_in_total_nothing_is_foretold() -> None:
    assert reaches_at_ns(Window.of(None), [(0, 90)], 100, NOW) is None


@given(
    slots=st.dictionaries(st.integers(SLOT - SLOTS, SLOT), st.integers(1, 1_000), max_size=20),
    limit=st.integers(1, 10_000),
    into=st.integers(0, MINUTE - 1),
)
def test_a_forecast_lies_within_a_window_from_now(slots: dict[int, int], limit: int, into: int) -> None:
    at_ns = reaches_at_ns(WINDOW, sorted(slots.items()), limit, NOW + into)
    assert at_ns is None or NOW + into <= at_ns <= NOW + into + HOUR
