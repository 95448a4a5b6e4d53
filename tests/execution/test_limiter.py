from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import MILLISECOND, SECOND
from holdfast.errors import StorageError
from holdfast.execution.limiter import Ask, LedgerUnavailable, Outcome, Reservation
from holdfast.policy.limit import Limit, LimitReached

HOUR = 3600 * SECOND
CALLS = Limit(scope="all", unit="calls", amount=10, per_ns=HOUR)
USD = Limit(scope="agent", unit="usd", amount=1_000)
NOTHING = Ask(usd_least=0, usd_most=0)


NewWorld = Callable[..., Any]


def exactly(usd: int) -> Ask:
    return Ask(usd_least=usd, usd_most=usd)


def served(outcomes: list[Outcome]) -> int:
    return sum(isinstance(outcome, Reservation) for outcome in outcomes)


def test_a_hundred_concurrent_calls_against_ten_get_exactly_ten(new_world: NewWorld) -> None:
    outcomes = new_world().ask([(CALLS, "")], times=100)
    assert served(outcomes) == 10
    assert sum(isinstance(outcome, LimitReached) for outcome in outcomes) == 90


def test_a_hundred_concurrent_asks_against_the_money_of_ten_get_exactly_ten(new_world: NewWorld) -> None:
    assert served(new_world().ask([(USD, "a")], exactly(100), times=100)) == 10


def test_with_several_limits_the_tightest_decides_how_many_are_served(new_world: NewWorld) -> None:
    world = new_world()
    wide = Limit(scope="user", unit="calls", amount=50)
    assert served(world.ask([(wide, "u"), (CALLS, ""), (USD, "a")], exactly(125), times=100)) == 8
    world.limiter.close(lambda _: None)
    assert [world.ledger.spent(limit.account(value)) for limit, value in ((wide, "u"), (CALLS, ""), (USD, "a"))] == [8, 8, 1000]


def test_two_processes_together_get_exactly_ten(new_world: NewWorld) -> None:
    world = new_world(processes=2)
    heard: list[Outcome] = []
    for _ in range(50):
        for limiter in world.limiters:
            limiter.reserve([(CALLS, ""), (USD, "a")], exactly(100), heard.append)
    world.settle_down()
    assert len(heard) == 100
    assert served(heard) == 10


def test_limits_that_share_an_account_count_a_call_once_and_the_tighter_one_holds(new_world: NewWorld) -> None:
    world = new_world()
    loose = Limit(scope="all", unit="calls", amount=1_000, per_ns=HOUR)
    assert served(world.ask([(loose, "")], times=3)) == 3
    assert served(world.ask([(loose, ""), (CALLS, "")], times=100)) == 7
    assert world.refuse([(loose, ""), (CALLS, "")]).limit == CALLS


def test_slices_in_hand_answer_before_reserve_returns_and_without_the_ledger(new_world: NewWorld) -> None:
    world = new_world()
    wide = Limit(scope="all", unit="calls", amount=10_000, per_ns=HOUR)
    world.reserve([(wide, "")])
    trips = world.ledger.trips
    heard: list[Outcome] = []
    for _ in range(100):
        world.limiter.reserve([(wide, "")], NOTHING, heard.append)
    assert (served(heard), world.ledger.trips) == (100, trips)


def test_a_slice_is_renewed_before_it_is_used_up_and_before_its_slot_ends(new_world: NewWorld) -> None:
    world = new_world()
    wide = Limit(scope="all", unit="calls", amount=10_000, per_ns=HOUR)
    world.reserve([(wide, "")])
    for _ in range(3_000):
        heard: list[Outcome] = []
        world.limiter.reserve([(wide, "")], NOTHING, heard.append)
        assert served(heard) == 1
        world.clock.advance(SECOND)


def test_all_that_fall_short_in_one_tick_share_one_trip(new_world: NewWorld) -> None:
    world = new_world()
    for at in range(20):
        world.limiter.reserve([(CALLS, ""), (USD, f"agent {at}")], exactly(10), lambda _: None)
    world.settle_down()
    assert world.ledger.trips == 1


def test_a_call_gets_the_most_that_every_money_limit_allows(new_world: NewWorld) -> None:
    world = new_world()
    run = Limit(scope="run", unit="usd", amount=130)
    assert world.reserve([(USD, "a"), (run, "r")], Ask(usd_least=5, usd_most=100)).usd == 100
    assert world.reserve([(USD, "a"), (run, "r")], Ask(usd_least=5, usd_most=100)).usd == 30
    reached = world.refuse([(USD, "a"), (run, "r")], Ask(usd_least=5, usd_most=100))
    assert (reached.limit, reached.reserved, reached.asked) == (run, 130, 5)
    assert world.reserve([(USD, "a")], exactly(870)).usd == 870


def test_a_refused_call_takes_nothing_from_its_other_limits(new_world: NewWorld) -> None:
    world = new_world()
    world.refuse([(CALLS, ""), (USD, "a")], exactly(1_001))
    assert served(world.ask([(CALLS, "")], times=20)) == 10


def test_what_was_not_used_can_be_used_by_others(new_world: NewWorld) -> None:
    world = new_world()
    first = world.reserve([(USD, "a")], exactly(1_000))
    world.refuse([(USD, "a")], exactly(1))
    assert first.settle(400, 0) == 0
    world.reserve([(USD, "a")], exactly(600)).cancel()
    world.reserve([(USD, "a")], exactly(600))
    world.refuse([(USD, "a")], exactly(1))


def test_a_cancelled_call_does_not_count_and_a_settled_one_does(new_world: NewWorld) -> None:
    world = new_world()
    reservations = [world.reserve([(CALLS, "")]) for _ in range(10)]
    reservations[0].cancel()
    reservations[1].settle(0, 0)
    world.reserve([(CALLS, "")])
    world.refuse([(CALLS, "")])


def test_a_reservation_ends_once(new_world: NewWorld) -> None:
    world = new_world()
    first = world.reserve([(USD, "a")], exactly(500))
    first.settle(500, 0)
    assert first.settle(0, 0) == 0
    first.cancel()
    world.reserve([(USD, "a")], exactly(500))
    world.refuse([(USD, "a")], exactly(1))


@pytest.mark.parametrize("later_ns", [0, 2 * HOUR // 60])
def test_a_settlement_above_its_reservation_counts_in_full(new_world: NewWorld, later_ns: int) -> None:
    world = new_world()
    limit = Limit(scope="agent", unit="usd", amount=1_000, per_ns=HOUR)
    first = world.reserve([(limit, "a")], exactly(100))
    world.clock.advance(later_ns)
    assert first.settle(950, 0) == 850
    assert world.limiter.overruns == 1
    world.refuse([(limit, "a")], exactly(51))
    world.reserve([(limit, "a")], exactly(50))
    world.limiter.close(lambda _: None)
    assert world.ledger.spent(limit.account("a")) == 1_000


def test_an_exhausted_limit_refuses_at_once_and_without_the_ledger(new_world: NewWorld) -> None:
    world = new_world()
    world.ask([(CALLS, "")], times=11)
    trips = world.ledger.trips
    heard: list[Outcome] = []
    for _ in range(50):
        world.limiter.reserve([(CALLS, "")], NOTHING, heard.append)
        world.clock.advance(MILLISECOND)
    assert (len(heard), served(heard), world.ledger.trips) == (50, 0, trips)


def test_while_another_process_holds_a_part_a_refusal_is_repeated_for_a_tenth_of_a_second(new_world: NewWorld) -> None:
    world = new_world(processes=2)
    other = world.ask([(CALLS, "")], process=1)[0]
    assert isinstance(other, Reservation)
    while served(world.ask([(CALLS, "")])):
        pass
    other.cancel()
    world.limiters[1].close(lambda _: None)
    heard: list[Outcome] = []
    world.limiter.reserve([(CALLS, "")], NOTHING, heard.append)
    assert (len(heard), served(heard)) == (1, 0)
    world.clock.advance(100 * MILLISECOND)
    world.reserve([(CALLS, "")])


def test_nobody_overtakes_who_waits_for_the_same_account(new_world: NewWorld) -> None:
    world = new_world()
    world.ledger.delay_ns = 10 * MILLISECOND
    order: list[int] = []
    for at in range(5):
        world.limiter.reserve([(USD, "a")], exactly(100 + at), lambda _, at=at: order.append(at))  # type: ignore[misc]
        world.clock.advance(3 * MILLISECOND)
    world.settle_down()
    assert order == [0, 1, 2, 3, 4]


def test_a_smaller_call_that_would_fit_does_not_overtake_either(new_world: NewWorld) -> None:
    world = new_world()
    world.reserve([(USD, "a")], exactly(300))
    order: list[int] = []
    for amount in (600, 50):
        world.limiter.reserve([(USD, "a")], exactly(amount), lambda _, amount=amount: order.append(amount))  # type: ignore[misc]
    assert order == []
    world.settle_down()
    assert order == [600, 50]


@pytest.mark.parametrize("back", [1, 2, 50])
def test_a_step_back_of_the_wall_clock_brings_back_what_was_spent_then(new_world: NewWorld, back: int) -> None:
    world = new_world()
    limit = Limit(scope="all", unit="calls", amount=1_000, per_ns=HOUR)
    slot_ns = HOUR // 60
    world.ask([(limit, "")], Ask(calls=990, usd_least=0, usd_most=0))
    world.clock.advance(62 * slot_ns)
    assert served(world.ask([(limit, "")], times=20)) == 20
    world.clock.step_wall(-back * slot_ns)
    world.refuse([(limit, "")])


def test_a_step_back_while_a_call_waits_is_noticed_too(new_world: NewWorld) -> None:
    world = new_world()
    limit = Limit(scope="all", unit="calls", amount=1_000, per_ns=HOUR)
    world.ask([(limit, "")], Ask(calls=1_000, usd_least=0, usd_most=0))
    world.clock.advance(62 * HOUR // 60)
    world.reserve([(limit, "")])
    heard: list[Outcome] = []
    world.limiter.reserve([(limit, ""), (USD, "new")], exactly(1), heard.append)
    world.clock.step_wall(-HOUR // 60)
    world.settle_down()
    (reached,) = heard
    assert isinstance(reached, LimitReached)
    assert reached.limit == limit


@pytest.mark.parametrize("in_flight", [False, True])
def test_money_that_comes_back_late_is_there_for_the_next_call(new_world: NewWorld, in_flight: bool) -> None:
    world = new_world()
    limit = Limit(scope="run", unit="usd", amount=1_000, per_ns=HOUR)
    first = world.reserve([(limit, "r")], exactly(1_000))
    world.clock.advance(2 * HOUR // 60)
    heard: list[Outcome] = []
    if in_flight:
        world.limiter.reserve([(limit, "r")], exactly(500), heard.append)
        world.ledger.delay_ns = MILLISECOND
        world.clock.advance(0)
        first.settle(0, 0)
    else:
        world.refuse([(limit, "r")], exactly(500))
        first.settle(0, 0)
        world.limiter.reserve([(limit, "r")], exactly(500), heard.append)
    world.settle_down()
    assert served(heard) == 1


def test_who_waits_for_one_account_does_not_hold_up_the_others(new_world: NewWorld) -> None:
    world = new_world()
    wide = Limit(scope="all", unit="calls", amount=10_000, per_ns=HOUR)
    world.reserve([(wide, "")])
    waiting: list[Outcome] = []
    world.limiter.reserve([(wide, ""), (USD, "new")], exactly(1), waiting.append)
    heard: list[Outcome] = []
    world.limiter.reserve([(wide, "")], NOTHING, heard.append)
    assert (len(waiting), served(heard)) == (0, 1)


def test_a_call_whose_first_slice_ran_out_while_it_waited_for_the_second_is_charged_anew(new_world: NewWorld) -> None:
    world = new_world()
    world.reserve([(CALLS, "")])
    world.ledger.delay_ns = 3 * HOUR // 60
    sent: list[int] = []
    world.limiter.reserve([(CALLS, ""), (USD, "new")], exactly(1), lambda _: sent.append(world.clock.wall_ns()))
    while not sent:
        world.clock.advance(SECOND)
    world.ledger.delay_ns = 0
    world.clock.advance(sent[0] + HOUR - 1 - world.clock.wall_ns())  # what was taken while it waited has left the window, the call has not
    assert served(world.ask([(CALLS, "")], times=20)) == 9


def test_a_broken_ledger_is_said_to_all_who_wait_for_it_and_the_next_call_asks_again(new_world: NewWorld) -> None:
    world = new_world()
    world.ledger.failing = StorageError("The disk is full; free some space.")
    assert world.ask([(CALLS, ""), (USD, "a")], exactly(1), times=3) == [LedgerUnavailable("The disk is full; free some space.")] * 3
    world.ledger.failing = None
    assert served(world.ask([(CALLS, ""), (USD, "a")], exactly(1), times=20)) == 10


@given(amount=st.integers(200, 100_000), percent=st.integers(1, 4), used=st.integers(0, 100), per_ns=st.sampled_from([None, HOUR]))
def test_calls_one_after_the_other_can_use_nearly_all_of_a_limit(
    new_world: NewWorld, amount: int, percent: int, used: int, per_ns: int | None
) -> None:
    world = new_world()
    limit = Limit(scope="run", unit="usd", amount=amount, per_ns=per_ns)
    ask = max(1, amount * percent // 100)
    spent = 0
    for _ in range(3_000):
        (outcome,) = world.ask([(limit, "r")], exactly(ask))
        if not isinstance(outcome, Reservation):
            break
        outcome.settle(max(1, ask * used // 100), 0)
        spent += max(1, ask * used // 100)
        world.clock.advance(SECOND // 2)
    else:
        return
    assert amount * 95 // 100 <= spent <= amount


@given(
    gaps=st.lists(st.integers(0, 600), min_size=1, max_size=30),
    asks=st.lists(st.integers(1, 400), min_size=1, max_size=10),
    last=st.integers(1, 1_000),
)
def test_a_refused_call_fits_at_the_time_it_was_told(new_world: NewWorld, gaps: list[int], asks: list[int], last: int) -> None:
    world = new_world()
    limit = Limit(scope="user", unit="usd", amount=1_000, per_ns=HOUR)
    for at, gap in enumerate(gaps):
        world.ask([(limit, "u")], exactly(asks[at % len(asks)]))
        world.clock.advance(gap * SECOND)
    (outcome,) = world.ask([(limit, "u")], exactly(last))
    if isinstance(outcome, LimitReached):
        assert outcome.resets_at_ns is not None
        assert outcome.resets_at_ns > world.clock.wall_ns()
        world.clock.advance(outcome.resets_at_ns - world.clock.wall_ns())
        world.reserve([(limit, "u")], exactly(last))


def test_a_refusal_carries_its_numbers(new_world: NewWorld) -> None:
    world = new_world()
    world.reserve([(USD, "a")], exactly(300)).settle(250, 0)
    world.reserve([(USD, "a")], exactly(600))
    reached = world.refuse([(USD, "a")], Ask(usd_least=200, usd_most=400))
    assert reached == LimitReached(limit=USD, value="a", spent=250, reserved=600, asked=200, resets_at_ns=None)


def test_what_can_never_fit_has_no_reset(new_world: NewWorld) -> None:
    limit = Limit(scope="user", unit="usd", amount=10, per_ns=HOUR)
    assert new_world().refuse([(limit, "u")], exactly(11)).resets_at_ns is None


def test_of_two_limits_that_refuse_the_one_that_does_so_longer_is_named(new_world: NewWorld) -> None:
    world = new_world()
    day = Limit(scope="agent", unit="calls", amount=10, per_ns=24 * HOUR)
    world.ask([(CALLS, ""), (day, "a")], times=10)
    assert world.refuse([(CALLS, ""), (day, "a")]).limit == day
    assert world.refuse([(day, "a"), (CALLS, "")]).limit == day


def test_tokens_are_counted_and_shrink_apart_from_money(new_world: NewWorld) -> None:
    world = new_world()
    tokens = Limit(scope="agent", unit="tokens", amount=1_000)
    ask = Ask(usd_least=10, usd_most=50, tokens_least=100, tokens_most=800)
    first = world.reserve([(USD, "a"), (tokens, "a")], ask)
    second = world.reserve([(USD, "a"), (tokens, "a")], ask)
    assert (first.amounts, second.amounts) == ((50, 1, 800), (50, 1, 200))
    first.settle(20, 300)
    reached = world.refuse([(USD, "a"), (tokens, "a")], Ask(usd_least=1, usd_most=1, tokens_least=501, tokens_most=501))
    assert (reached.limit, reached.spent, reached.reserved, reached.asked) == (tokens, 300, 200, 501)
