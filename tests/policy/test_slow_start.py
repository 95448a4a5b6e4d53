"""How fast those who wait are let out."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import SECOND
from holdfast.policy.slow_start import BASE_NS, CAP_NS, LARGEST_ROUND, PATIENCE_NS, ROUND_NS, SlowStart, pause_ns


def let_out(pace: SlowStart, now_ns: int) -> int:
    """How many may go at this instant."""
    count = 0
    while pace.wait_ns(now_ns) == 0:
        pace.let_out(now_ns)
        count += 1
    return count


def opened(now_ns: int = 0) -> SlowStart:
    pace = SlowStart(now_ns, 0)
    pace.answered(now_ns, now_ns)
    return pace


def test_one_probe_goes_out_after_the_back_off_and_another_when_it_says_nothing() -> None:
    pace = SlowStart(0, 0.5)
    assert pace.wait_ns(0) == BASE_NS // 2
    assert let_out(pace, BASE_NS // 2) == 1
    assert pace.wait_ns(BASE_NS // 2) == PATIENCE_NS


def test_the_back_off_doubles_with_every_probe_that_fails_up_to_its_cap() -> None:
    pace, now, waits = SlowStart(0, 0.5), 0, []
    for _ in range(7):
        waits.append(pace.wait_ns(now))
        now += waits[-1]
        pace.let_out(now)
        pace.failed(now, now, 0.5)
    assert waits == [SECOND // 2, SECOND, 2 * SECOND, 4 * SECOND, CAP_NS // 2, CAP_NS // 2, CAP_NS // 2]
    assert pause_ns(1_000_000, 0.5) == CAP_NS // 2
    assert pause_ns(0, 0.0) == ROUND_NS


def test_rounds_double_while_answers_come_up_to_the_largest() -> None:
    pace, sizes = opened(), []
    for at in range(8):
        now = at * ROUND_NS
        sizes.append(let_out(pace, now))
        pace.answered(now, now)
    assert sizes == [1, 2, 4, 8, 16, 32, 32, LARGEST_ROUND]


def test_rounds_do_not_grow_without_an_answer() -> None:
    pace = opened()
    assert [let_out(pace, at * ROUND_NS) for at in range(4)] == [1, 1, 1, 1]


def test_a_failure_halves_the_round_and_the_second_in_a_row_ends_it() -> None:
    pace = opened()
    for at in range(4):
        let_out(pace, at * ROUND_NS)
        pace.answered(at * ROUND_NS, at * ROUND_NS)
    now = 4 * ROUND_NS
    assert let_out(pace, now) == 16
    pace.failed(now, now, 0.5)
    assert let_out(pace, now + ROUND_NS) == 8
    pace.failed(now + ROUND_NS, now, 0.5)
    assert pace.wait_ns(now + ROUND_NS) == SECOND


def test_an_answer_between_two_failures_keeps_it_going() -> None:
    pace = opened()
    for at in range(6):
        let_out(pace, at * ROUND_NS)
        pace.answered(at * ROUND_NS, at * ROUND_NS)
    now = 6 * ROUND_NS
    pace.failed(now, now, 0.5)
    pace.answered(now, now)
    pace.failed(now, now, 0.5)
    assert let_out(pace, now) == 8


def test_what_began_before_it_died_or_came_back_tells_nothing() -> None:
    pace = SlowStart(10, 0.5)
    pace.answered(20, 9)
    assert pace.size == 0
    now = 10 + SECOND
    let_out(pace, now)
    pace.answered(now, now)
    pace.failed(now, now - 1, 0.5)
    pace.failed(now, now - 1, 0.5)
    assert pace.size == 1


def test_failures_of_calls_that_are_not_probes_do_not_put_the_next_probe_off() -> None:
    pace = SlowStart(0, 0.5)
    pace.failed(1, 1, 0.5)
    pace.failed(2, 2, 0.5)
    assert pace.wait_ns(0) == SECOND // 2


def test_a_cooldown_is_kept_until_an_answer_proves_it_wrong() -> None:
    pace = opened()
    pace.cool_down(0, 60 * SECOND)
    assert pace.wait_ns(SECOND) == 59 * SECOND
    pace.answered(3 * SECOND, 2 * SECOND)
    assert let_out(pace, 3 * SECOND) == 1


def test_the_first_round_begins_no_sooner_than_a_round_after_the_probe() -> None:
    pace = SlowStart(0, 0)
    let_out(pace, ROUND_NS)
    pace.answered(ROUND_NS + 1, ROUND_NS)
    assert pace.wait_ns(ROUND_NS + 1) == ROUND_NS - 1


def test_one_that_was_turned_away_leaves_the_next_some_time_and_the_pace_as_it_is() -> None:
    pace = opened()
    let_out(pace, 0)
    pace.answered(0, 0)
    pace.turned_away(0, 0.5)
    assert pace.wait_ns(0) == SECOND // 2
    assert let_out(pace, SECOND // 2) == 2


def test_a_probe_under_way_ends_the_cooldown_that_another_call_was_told_of_meanwhile() -> None:
    pace = SlowStart(0, 0.5)
    let_out(pace, SECOND)
    pace.cool_down(SECOND + 1, 60 * SECOND)
    pace.answered(2 * SECOND, SECOND)
    assert let_out(pace, 2 * SECOND) == 1


def test_one_that_did_not_try_leaves_its_place_to_another() -> None:
    probing = SlowStart(0, 0)
    let_out(probing, ROUND_NS)
    probing.unused(ROUND_NS)
    assert let_out(probing, ROUND_NS) == 1
    pace = opened()
    let_out(pace, 0)
    pace.unused(0)
    pace.unused(0)
    assert let_out(pace, 0) == 1


steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, ROUND_NS // 3, ROUND_NS, SECOND, 20 * SECOND]),
        st.sampled_from(["answered", "failed", "unused", "turned away", "cool down", "stale answer"]),
        st.floats(0, 1, exclude_max=True),
    ),
    max_size=80,
)


def happen(pace: SlowStart, now_ns: int, what: str, jitter: float) -> None:
    """One of `steps`."""
    {
        "answered": lambda: pace.answered(now_ns, now_ns),
        "stale answer": lambda: pace.answered(now_ns, -1),
        "failed": lambda: pace.failed(now_ns, now_ns, jitter),
        "unused": lambda: None,
        "turned away": lambda: pace.turned_away(now_ns, jitter),
        "cool down": lambda: pace.cool_down(now_ns, now_ns + SECOND),
    }[what]()


@given(steps)
def test_no_round_lets_out_more_than_its_size_and_none_more_than_the_largest(done: list[tuple[int, str, float]]) -> None:
    """Those that did not try aside: rounds follow each other, so a window of one round's length touches two of them at the most."""
    pace, now, tried = SlowStart(0, 0.5), 0, list[tuple[int, int]]()
    for pause, what, jitter in done:
        now += pause
        went = let_out(pace, now)
        assert went <= max(1, pace.size)
        tried.append((now, went))
        if what == "unused" and went:
            pace.unused(now)
            tried.append((now, -1))
        happen(pace, now, what, jitter)
    for begin, _ in tried:
        assert sum(went for at, went in tried if begin <= at < begin + ROUND_NS) <= 2 * LARGEST_ROUND


@given(steps)
def test_whatever_happened_one_may_go_within_the_longest_back_off_and_the_cooldown(done: list[tuple[int, str, float]]) -> None:
    pace, now = SlowStart(0, 0.5), 0
    for pause, what, jitter in done:
        now += pause
        let_out(pace, now)
        happen(pace, now, what, jitter)
    assert pace.wait_ns(now) <= max(CAP_NS, PATIENCE_NS)
