import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import Clock
from holdfast.testing import FakeClock


def test_both_clocks_advance_together() -> None:
    clock: Clock = FakeClock(wall_ns=1000, monotonic_ns=7)
    assert isinstance(clock, FakeClock)
    clock.advance(5)
    assert (clock.wall_ns(), clock.monotonic_ns()) == (1005, 12)


def test_stepping_the_wall_clock_leaves_the_monotonic_clock_and_the_timers_alone() -> None:
    clock = FakeClock(wall_ns=1000)
    ran: list[int] = []
    clock.call_later(1, lambda: ran.append(1))
    clock.step_wall(-300)
    assert (clock.wall_ns(), clock.monotonic_ns(), ran) == (700, 0, [])


@given(st.lists(st.integers(0, 50)), st.lists(st.integers(0, 20)))
def test_timers_run_in_order_at_their_own_instant_however_time_is_cut(delays: list[int], steps: list[int]) -> None:
    clock = FakeClock()
    ran: list[tuple[int, int]] = []
    for index, delay in enumerate(delays):
        clock.call_later(delay, lambda index=index: ran.append((clock.monotonic_ns(), index)))  # type: ignore[misc]
    for step in steps:
        clock.advance(step)
    reached = sum(steps)
    due = sorted((delay, index) for index, delay in enumerate(delays) if delay <= reached) if steps else []
    assert ran == due
    assert clock.pending == len(delays) - len(due)
    assert clock.monotonic_ns() == reached


def test_a_timer_set_by_a_timer_runs_in_the_same_advance_when_it_is_due() -> None:
    clock = FakeClock()
    ran: list[int] = []

    def first() -> None:
        clock.call_later(10, lambda: ran.append(clock.monotonic_ns()))
        clock.call_later(90, lambda: ran.append(clock.monotonic_ns()))

    clock.call_later(5, first)
    clock.advance(20)
    assert ran == [15]
    assert clock.pending == 1


def test_a_cancelled_timer_never_runs_and_is_not_pending() -> None:
    clock = FakeClock()
    ran: list[int] = []
    timer = clock.call_later(1, lambda: ran.append(1))
    timer.cancel()
    assert clock.pending == 0
    clock.advance(2)
    assert ran == []


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="never goes back"):
        FakeClock().advance(-1)
