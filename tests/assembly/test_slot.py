"""How soon a worker that died is started again."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.assembly.slot import pause_ns
from holdfast.clock import MILLISECOND, SECOND


def test_the_first_death_is_made_up_for_at_once_and_further_ones_ever_later() -> None:
    assert [pause_ns(deaths) for deaths in range(8)] == [
        0,
        0,
        250 * MILLISECOND,
        500 * MILLISECOND,
        SECOND,
        2 * SECOND,
        4 * SECOND,
        5 * SECOND,
    ]


@given(st.integers(2, 1 << 40))
def test_a_worker_that_dies_again_and_again_neither_spins_nor_is_given_up(deaths: int) -> None:
    assert 250 * MILLISECOND <= pause_ns(deaths) <= 5 * SECOND
