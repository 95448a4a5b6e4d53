"""GCRA held against its definition, in whole numbers."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import SECOND
from holdfast.policy.rate import MOST_DEBT_NS, PERIODS, Rate, correct, take

amounts = st.integers(1, 200)
periods = st.sampled_from([7, 10, 1_000, *PERIODS.values()])
pauses = st.lists(st.tuples(st.sampled_from([0, 0, 1, 3, 10, SECOND, 60 * SECOND]), st.integers(1, 5), st.integers(-5, 5)), max_size=60)


def rate(amount: int, per_ns: int, burst: int) -> Rate:
    return Rate(scope="all", unit="requests", amount=amount, per_ns=per_ns, burst=burst)


rates = st.builds(rate, amounts, periods, st.integers(1, 20))


@given(rates, st.integers(0, 2**62), pauses)
def test_no_interval_holds_more_than_the_burst_and_its_share_of_the_rate(wanted: Rate, now: int, steps: list[tuple[int, int, int]]) -> None:
    tat, took = 0, list[tuple[int, int]]()
    for pause, cost, _ in steps:
        now += pause
        tat, wait = take(wanted, tat, now, cost)
        if not wait:
            took.append((now, cost))
    largest = max((cost for _, cost in took), default=0)
    for at, (begin, _) in enumerate(took):
        total = 0
        for end, cost in took[at:]:
            total += cost
            assert total <= max(wanted.burst, largest) + Fraction(wanted.amount * (end - begin), wanted.per_ns)


@given(rates, st.integers(0, 2**62), pauses)
def test_taken_less_given_back_keeps_the_rate_too(wanted: Rate, now: int, steps: list[tuple[int, int, int]]) -> None:
    tat, net, admitted = 0, list[tuple[int, int]](), list[int]()
    for pause, cost, back in steps:
        now += pause
        tat, wait = take(wanted, tat, now, min(cost, wanted.burst))
        if not wait:
            admitted.append(len(net))
            net.append((now, min(cost, wanted.burst)))
        if back > 0:
            tat = correct(wanted, tat, now, -back)
            net.append((now, -back))
    for end in admitted:
        for begin in range(end + 1):
            passed = net[end][0] - net[begin][0]
            assert sum(amount for _, amount in net[begin : end + 1]) <= wanted.burst + Fraction(wanted.amount * passed, wanted.per_ns)


@given(rates, st.integers(0, 2**62), pauses)
def test_a_call_that_conforms_is_never_refused(wanted: Rate, now: int, steps: list[tuple[int, int, int]]) -> None:
    """Whatever is refused would have made some interval hold too much."""
    tat, took = 0, list[tuple[int, int]]()
    for pause, cost, _ in steps:
        now, cost = now + pause, min(cost, wanted.burst)
        tat, wait = take(wanted, tat, now, cost)
        if wait:
            fullest = max(
                sum(c for t, c in took if t >= begin) - Fraction(wanted.amount * (now - begin), wanted.per_ns) for begin, _ in took
            )
            assert fullest + cost > wanted.burst
        else:
            took.append((now, cost))


@given(rates, st.integers(0, 2**62), st.lists(st.integers(1, 25), max_size=30), st.integers(1, 25))
def test_the_wait_is_exact(wanted: Rate, now: int, costs: list[int], cost: int) -> None:
    tat = 0
    for each in costs:
        tat = take(wanted, tat, now, each)[0]
    same, wait = take(wanted, tat, now, cost)
    if wait:
        assert same == tat
        assert take(wanted, tat, now + wait - 1, cost)[1] == 1
        assert take(wanted, tat, now + wait, cost)[1] == 0


def test_thirds_of_a_nanosecond_are_neither_lost_nor_won() -> None:
    wanted = rate(3, 10, 2)
    tat, calls, last = 0, 0, 300_000
    for now in range(last + 1):
        wait = 0
        while not wait:
            tat, wait = take(wanted, tat, now, 1)
            calls += not wait
    assert calls == 2 + 3 * last // 10


def test_a_call_larger_than_the_burst_passes_a_whole_bucket_and_is_paid_for_by_those_behind_it() -> None:
    wanted = rate(60, 60 * SECOND, 10)
    tat, wait = take(wanted, 0, 0, 1)
    assert take(wanted, tat, 0, 40)[1] == SECOND
    tat, wait = take(wanted, tat, SECOND, 40)
    assert wait == 0
    assert take(wanted, tat, SECOND, 1) == (tat, 31 * SECOND)


def test_use_beyond_the_estimate_closes_the_bucket_for_its_time_and_no_longer_than_a_day() -> None:
    wanted = rate(60, 60 * SECOND, 10)
    tat = correct(wanted, 0, 5 * SECOND, 15)
    assert take(wanted, tat, 5 * SECOND, 1)[1] == 6 * SECOND
    absurd = correct(wanted, tat, 5 * SECOND, 10**15)
    assert take(wanted, absurd, 5 * SECOND, 1)[1] == MOST_DEBT_NS + SECOND
    assert correct(wanted, absurd, 5 * SECOND, 10**15) == absurd


@pytest.mark.parametrize(
    ("scope", "said"), [("all", "everything: 60 requests per minute, 6 at once"), ("user", "user ann: 60 requests per minute, 6 at once")]
)
def test_it_says_what_it_is(scope: str, said: str) -> None:
    assert Rate(scope=scope, unit="requests", amount=60, per_ns=PERIODS["minute"], burst=6).describe("ann") == said  # type: ignore[arg-type]
