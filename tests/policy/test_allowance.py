from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import SECOND
from holdfast.policy.allowance import SLOTS, Rows, Window, granted, resets_at_ns

AMOUNTS = st.integers(0, 10**12)
INSTANTS = st.integers(0, 10**19)


@given(per_ns=st.integers(1, 10**17), first=INSTANTS, gap=st.integers(0, 10**17))
def test_two_instants_within_the_window_are_at_most_its_slots_apart(per_ns: int, first: int, gap: int) -> None:
    window = Window.of(per_ns)
    assert window.slot(first + gap % per_ns) - window.slot(first) <= SLOTS


@given(per_ns=st.integers(1, 10**17), at=INSTANTS)
def test_a_slot_stops_to_count_when_its_youngest_call_has_left_the_window_and_not_much_later(per_ns: int, at: int) -> None:
    window = Window.of(per_ns)
    slot = window.slot(at)
    leaves = window.leaves_ns(slot)
    assert window.slot(leaves) == slot + SLOTS + 1
    assert per_ns <= leaves - at <= per_ns + 3 * window.slot_ns + SLOTS


def test_in_total_is_one_slot_that_never_leaves() -> None:
    window = Window.of(None)
    assert window.total
    assert window.slot(4 * 10**18) == 0
    assert resets_at_ns(window, ((0, 10),), 1) is None


@given(limit=AMOUNTS, used=AMOUNTS, need=AMOUNTS, least=AMOUNTS, ahead=AMOUNTS)
def test_a_grant_never_exceeds_what_is_left_nor_what_was_wanted(limit: int, used: int, need: int, least: int, ahead: int) -> None:
    amount = granted(limit, used, need, min(least, need), ahead)
    assert 0 <= amount <= max(0, limit - used)
    assert amount <= need + ahead
    assert amount >= need or amount in (0, limit - used)


def test_near_the_end_a_grant_is_exactly_the_need() -> None:
    assert granted(limit=100, used=90, need=4, least=4, ahead=50) == 4
    assert granted(limit=100, used=99, need=4, least=2, ahead=50) == 0
    assert granted(limit=100, used=97, need=4, least=2, ahead=50) == 3


@given(
    amounts=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 50)), min_size=1, unique_by=lambda row: row[0]), share=st.floats(0.01, 1)
)
def test_the_reset_is_the_first_instant_at_which_enough_has_left(amounts: list[tuple[int, int]], share: float) -> None:
    window, slots = Window.of(60 * SECOND), tuple(sorted(amounts))
    excess = max(1, int(Rows(slots, 0).used * share))
    at = resets_at_ns(window, slots, excess)
    assert at is not None
    gone = [amount for slot, amount in slots if window.leaves_ns(slot) <= at]
    assert sum(gone) >= excess
    assert sum(gone[:-1]) < excess
