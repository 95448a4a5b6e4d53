from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import MILLISECOND, SECOND
from holdfast.errors import StorageError
from holdfast.execution.limiter import Ask, LedgerUnavailable, Limiter, Outcome, Reservation
from holdfast.execution.watch import Notice
from holdfast.policy.limit import WATCH_ONLY, Limit, LimitReached
from holdfast.testing import FakeClock
from holdfast.testing.ledger import MemoryLedger, MemorySlate

HOUR = 3600 * SECOND
CALLS = Limit(scope="all", unit="calls", amount=10, per_ns=HOUR)
USD = Limit(scope="agent", unit="usd", amount=1_000)
NOTHING = Ask(usd_least=0, usd_most=0)


class World:
    """Processes under one clock, on one ledger."""

    def __init__(self, processes: int = 1) -> None:
        self.clock = FakeClock()
        self.marks: list[tuple[str, int, int]] = []
        self.forecasts: list[Notice] = []
        self.ledgers = [MemoryLedger(self.clock, "process 0")]
        first = self.ledgers[0]
        self.ledgers += [MemoryLedger(self.clock, f"process {at}", rows=first.rows, told=first.told) for at in range(1, processes)]
        self.slates = [MemorySlate() for _ in self.ledgers]
        self.limiters = [Limiter(ledger, self.clock, slate, self._noticed) for ledger, slate in zip(self.ledgers, self.slates, strict=True)]
        self.limiter, self.ledger = self.limiters[0], self.ledgers[0]

    def _noticed(self, notice: Notice) -> None:
        if notice.mark is None:
            self.forecasts.append(notice)
        else:
            self.marks.append((notice.value, notice.mark, notice.spent))

    def ask(self, charges: Sequence[tuple[Limit, str]], ask: Ask = NOTHING, times: int = 1, process: int = 0) -> list[Outcome]:
        """What `times` concurrent calls hear, once the ledger has answered."""
        heard: list[Outcome] = []
        for _ in range(times):
            self.limiters[process].reserve(charges, ask, heard.append)
        self.settle_down()
        return heard

    def settle_down(self) -> None:
        for _ in range(4):
            self.clock.advance(self.ledger.delay_ns)

    def reserve(self, charges: Sequence[tuple[Limit, str]], ask: Ask = NOTHING) -> Reservation:
        (outcome,) = self.ask(charges, ask)
        assert isinstance(outcome, Reservation)
        return outcome

    def refuse(self, charges: Sequence[tuple[Limit, str]], ask: Ask = NOTHING) -> LimitReached:
        (outcome,) = self.ask(charges, ask)
        assert isinstance(outcome, LimitReached)
        return outcome


def exactly(usd: int) -> Ask:
    return Ask(usd_least=usd, usd_most=usd)


def served(outcomes: list[Outcome]) -> int:
    return sum(isinstance(outcome, Reservation) for outcome in outcomes)


def test_a_hundred_concurrent_calls_against_ten_get_exactly_ten() -> None:
    outcomes = World().ask([(CALLS, "")], times=100)
    assert served(outcomes) == 10
    assert sum(isinstance(outcome, LimitReached) for outcome in outcomes) == 90


def test_a_hundred_concurrent_asks_against_the_money_of_ten_get_exactly_ten() -> None:
    assert served(World().ask([(USD, "a")], exactly(100), times=100)) == 10


def test_with_several_limits_the_tightest_decides_how_many_are_served() -> None:
    world = World()
    wide = Limit(scope="user", unit="calls", amount=50)
    assert served(world.ask([(wide, "u"), (CALLS, ""), (USD, "a")], exactly(125), times=100)) == 8
    world.limiter.close(lambda _: None)
    assert [world.ledger.spent(limit.account(value)) for limit, value in ((wide, "u"), (CALLS, ""), (USD, "a"))] == [8, 8, 1000]


def test_two_processes_together_get_exactly_ten() -> None:
    world = World(processes=2)
    heard: list[Outcome] = []
    for _ in range(50):
        for limiter in world.limiters:
            limiter.reserve([(CALLS, ""), (USD, "a")], exactly(100), heard.append)
    world.settle_down()
    assert len(heard) == 100
    assert served(heard) == 10


def test_limits_that_share_an_account_count_a_call_once_and_the_tighter_one_holds() -> None:
    world = World()
    loose = Limit(scope="all", unit="calls", amount=1_000, per_ns=HOUR)
    assert served(world.ask([(loose, "")], times=3)) == 3
    assert served(world.ask([(loose, ""), (CALLS, "")], times=100)) == 7
    assert world.refuse([(loose, ""), (CALLS, "")]).limit == CALLS


def test_slices_in_hand_answer_before_reserve_returns_and_without_the_ledger() -> None:
    world = World()
    wide = Limit(scope="all", unit="calls", amount=10_000, per_ns=HOUR)
    world.reserve([(wide, "")])
    trips = world.ledger.trips
    heard: list[Outcome] = []
    for _ in range(100):
        world.limiter.reserve([(wide, "")], NOTHING, heard.append)
    assert (served(heard), world.ledger.trips) == (100, trips)


def test_a_slice_is_renewed_before_it_is_used_up_and_before_its_slot_ends() -> None:
    world = World()
    wide = Limit(scope="all", unit="calls", amount=10_000, per_ns=HOUR)
    world.reserve([(wide, "")])
    for _ in range(3_000):
        heard: list[Outcome] = []
        world.limiter.reserve([(wide, "")], NOTHING, heard.append)
        assert served(heard) == 1
        world.clock.advance(SECOND)


def test_all_that_fall_short_in_one_tick_share_one_trip() -> None:
    world = World()
    for at in range(20):
        world.limiter.reserve([(CALLS, ""), (USD, f"agent {at}")], exactly(10), lambda _: None)
    world.settle_down()
    assert world.ledger.trips == 1


def test_a_call_gets_the_most_that_every_money_limit_allows() -> None:
    world = World()
    run = Limit(scope="run", unit="usd", amount=130)
    assert world.reserve([(USD, "a"), (run, "r")], Ask(usd_least=5, usd_most=100)).usd == 100
    assert world.reserve([(USD, "a"), (run, "r")], Ask(usd_least=5, usd_most=100)).usd == 30
    reached = world.refuse([(USD, "a"), (run, "r")], Ask(usd_least=5, usd_most=100))
    assert (reached.limit, reached.reserved, reached.asked) == (run, 130, 5)
    assert world.reserve([(USD, "a")], exactly(870)).usd == 870


def test_a_refused_call_takes_nothing_from_its_other_limits() -> None:
    world = World()
    world.refuse([(CALLS, ""), (USD, "a")], exactly(1_001))
    assert served(world.ask([(CALLS, "")], times=20)) == 10


def test_what_was_not_used_can_be_used_by_others() -> None:
    world = World()
    first = world.reserve([(USD, "a")], exactly(1_000))
    world.refuse([(USD, "a")], exactly(1))
    assert first.settle(400, 0) == 0
    world.reserve([(USD, "a")], exactly(600)).cancel()
    world.reserve([(USD, "a")], exactly(600))
    world.refuse([(USD, "a")], exactly(1))


def test_a_cancelled_call_does_not_count_and_a_settled_one_does() -> None:
    world = World()
    reservations = [world.reserve([(CALLS, "")]) for _ in range(10)]
    reservations[0].cancel()
    reservations[1].settle(0, 0)
    world.reserve([(CALLS, "")])
    world.refuse([(CALLS, "")])


def test_a_reservation_ends_once() -> None:
    world = World()
    first = world.reserve([(USD, "a")], exactly(500))
    first.settle(500, 0)
    assert first.settle(0, 0) == 0
    first.cancel()
    world.reserve([(USD, "a")], exactly(500))
    world.refuse([(USD, "a")], exactly(1))


@pytest.mark.parametrize("later_ns", [0, 2 * HOUR // 60])
def test_a_settlement_above_its_reservation_counts_in_full(later_ns: int) -> None:
    world = World()
    limit = Limit(scope="agent", unit="usd", amount=1_000, per_ns=HOUR)
    first = world.reserve([(limit, "a")], exactly(100))
    world.clock.advance(later_ns)
    assert first.settle(950, 0) == 850
    assert world.limiter.overruns == 1
    world.refuse([(limit, "a")], exactly(51))
    world.reserve([(limit, "a")], exactly(50))
    world.limiter.close(lambda _: None)
    assert world.ledger.spent(limit.account("a")) == 1_000


def test_an_exhausted_limit_refuses_at_once_and_without_the_ledger() -> None:
    world = World()
    world.ask([(CALLS, "")], times=11)
    trips = world.ledger.trips
    heard: list[Outcome] = []
    for _ in range(50):
        world.limiter.reserve([(CALLS, "")], NOTHING, heard.append)
        world.clock.advance(MILLISECOND)
    assert (len(heard), served(heard), world.ledger.trips) == (50, 0, trips)


def test_while_another_process_holds_a_part_a_refusal_is_repeated_for_a_tenth_of_a_second() -> None:
    world = World(processes=2)
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


def test_nobody_overtakes_who_waits_for_the_same_account() -> None:
    world = World()
    world.ledger.delay_ns = 10 * MILLISECOND
    order: list[int] = []
    for at in range(5):
        world.limiter.reserve([(USD, "a")], exactly(100 + at), lambda _, at=at: order.append(at))  # type: ignore[misc]
        world.clock.advance(3 * MILLISECOND)
    world.settle_down()
    assert order == [0, 1, 2, 3, 4]


def test_a_smaller_call_that_would_fit_does_not_overtake_either() -> None:
    world = World()
    world.reserve([(USD, "a")], exactly(300))
    order: list[int] = []
    for amount in (600, 50):
        world.limiter.reserve([(USD, "a")], exactly(amount), lambda _, amount=amount: order.append(amount))  # type: ignore[misc]
    assert order == []
    world.settle_down()
    assert order == [600, 50]


@pytest.mark.parametrize("back", [1, 2, 50])
def test_a_step_back_of_the_wall_clock_brings_back_what_was_spent_then(back: int) -> None:
    world = World()
    limit = Limit(scope="all", unit="calls", amount=1_000, per_ns=HOUR)
    slot_ns = HOUR // 60
    world.ask([(limit, "")], Ask(calls=990, usd_least=0, usd_most=0))
    world.clock.advance(62 * slot_ns)
    assert served(world.ask([(limit, "")], times=20)) == 20
    world.clock.step_wall(-back * slot_ns)
    world.refuse([(limit, "")])


def test_a_step_back_while_a_call_waits_is_noticed_too() -> None:
    world = World()
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
def test_money_that_comes_back_late_is_there_for_the_next_call(in_flight: bool) -> None:
    world = World()
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


def test_who_waits_for_one_account_does_not_hold_up_the_others() -> None:
    world = World()
    wide = Limit(scope="all", unit="calls", amount=10_000, per_ns=HOUR)
    world.reserve([(wide, "")])
    waiting: list[Outcome] = []
    world.limiter.reserve([(wide, ""), (USD, "new")], exactly(1), waiting.append)
    heard: list[Outcome] = []
    world.limiter.reserve([(wide, "")], NOTHING, heard.append)
    assert (len(waiting), served(heard)) == (0, 1)


def test_a_call_whose_first_slice_ran_out_while_it_waited_for_the_second_is_charged_anew() -> None:
    world = World()
    world.reserve([(CALLS, "")])
    world.ledger.delay_ns = 3 * HOUR // 60
    sent: list[int] = []
    world.limiter.reserve([(CALLS, ""), (USD, "new")], exactly(1), lambda _: sent.append(world.clock.wall_ns()))
    while not sent:
        world.clock.advance(SECOND)
    world.ledger.delay_ns = 0
    world.clock.advance(sent[0] + HOUR - 1 - world.clock.wall_ns())  # what was taken while it waited has left the window, the call has not
    assert served(world.ask([(CALLS, "")], times=20)) == 9


def test_a_broken_ledger_is_said_to_all_who_wait_for_it_and_the_next_call_asks_again() -> None:
    world = World()
    world.ledger.failing = StorageError("The disk is full; free some space.")
    assert world.ask([(CALLS, ""), (USD, "a")], exactly(1), times=3) == [LedgerUnavailable("The disk is full; free some space.")] * 3
    world.ledger.failing = None
    assert served(world.ask([(CALLS, ""), (USD, "a")], exactly(1), times=20)) == 10


@given(amount=st.integers(200, 100_000), percent=st.integers(1, 4), used=st.integers(0, 100), per_ns=st.sampled_from([None, HOUR]))
def test_calls_one_after_the_other_can_use_nearly_all_of_a_limit(amount: int, percent: int, used: int, per_ns: int | None) -> None:
    world = World()
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
def test_a_refused_call_fits_at_the_time_it_was_told(gaps: list[int], asks: list[int], last: int) -> None:
    world = World()
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


def test_a_refusal_carries_its_numbers() -> None:
    world = World()
    world.reserve([(USD, "a")], exactly(300)).settle(250, 0)
    world.reserve([(USD, "a")], exactly(600))
    reached = world.refuse([(USD, "a")], Ask(usd_least=200, usd_most=400))
    assert reached == LimitReached(limit=USD, value="a", spent=250, reserved=600, asked=200, resets_at_ns=None)


def test_what_can_never_fit_has_no_reset() -> None:
    limit = Limit(scope="user", unit="usd", amount=10, per_ns=HOUR)
    assert World().refuse([(limit, "u")], exactly(11)).resets_at_ns is None


def test_of_two_limits_that_refuse_the_one_that_does_so_longer_is_named() -> None:
    world = World()
    day = Limit(scope="agent", unit="calls", amount=10, per_ns=24 * HOUR)
    world.ask([(CALLS, ""), (day, "a")], times=10)
    assert world.refuse([(CALLS, ""), (day, "a")]).limit == day
    assert world.refuse([(day, "a"), (CALLS, "")]).limit == day


def test_a_mark_is_told_once_per_window_and_by_what_was_spent_not_by_what_is_reserved() -> None:
    world = World()
    limit = Limit(scope="all", unit="usd", amount=1_000, per_ns=HOUR, marks=(500, 800))
    first = world.reserve([(limit, "")], exactly(900))
    assert world.marks == []
    first.settle(499, 0)
    world.settle_down()
    assert world.marks == []
    world.reserve([(limit, "")], exactly(100)).settle(1, 0)
    world.settle_down()
    assert world.marks == [("", 500, 500)]
    world.reserve([(limit, "")], exactly(400)).settle(400, 0)
    world.settle_down()
    assert world.marks == [("", 500, 500), ("", 800, 900)]
    world.clock.advance(2 * HOUR)
    world.reserve([(limit, "")], exactly(600)).settle(600, 0)
    world.settle_down()
    assert world.marks[2:] == [("", 500, 600)]


def test_what_other_processes_hold_ahead_of_need_reaches_no_mark() -> None:
    world = World(processes=2)
    limit = Limit(scope="all", unit="usd", amount=WATCH_ONLY, marks=(500,))
    assert served(world.ask([(limit, "")], exactly(1))) == 1
    assert served(world.ask([(limit, "")], exactly(1), process=1)) == 1
    assert world.marks == []


def test_a_mark_is_told_by_one_of_the_processes_that_come_upon_it() -> None:
    world = World(processes=2)
    limit = Limit(scope="all", unit="usd", amount=1_000, per_ns=HOUR, marks=(500,))
    for process in (0, 1, 0, 1):
        (outcome,) = world.ask([(limit, "")], exactly(200), process=process)
        assert isinstance(outcome, Reservation)
        outcome.settle(200, 0)
        world.settle_down()
    assert [mark for _, mark, _ in world.marks] == [500]


def test_a_ledger_that_cannot_say_whether_a_mark_was_told_has_it_told() -> None:
    world = World()
    limit = Limit(scope="all", unit="usd", amount=1_000, per_ns=HOUR, marks=(500,))
    first = world.reserve([(limit, "")], exactly(900))
    world.ledger.failing = StorageError("The disk is full; free some space.")
    first.settle(600, 0)
    world.settle_down()
    assert world.marks == [("", 500, 600)]


def test_a_limit_that_refuses_has_reached_its_last_mark() -> None:
    world = World()
    limit = Limit(scope="all", unit="usd", amount=1_000, per_ns=HOUR, marks=(500, 1_000))
    world.reserve([(limit, "")], exactly(960)).settle(960, 0)
    world.refuse([(limit, "")], exactly(100))
    world.refuse([(limit, "")], exactly(100))
    assert [mark for _, mark, _ in world.marks] == [500, 1_000]


def test_a_call_that_is_larger_than_what_is_left_of_a_half_used_limit_reaches_no_mark() -> None:
    world = World()
    limit = Limit(scope="all", unit="usd", amount=1_000, per_ns=HOUR, marks=(600, 1_000))
    world.reserve([(limit, "")], exactly(500)).settle(500, 0)
    world.refuse([(limit, "")], exactly(700))
    assert world.marks == []


def test_a_pace_that_will_reach_the_limit_is_told_once_per_window() -> None:
    world = World()
    limit = Limit(scope="all", unit="usd", amount=100_000, per_ns=HOUR)
    for _ in range(20):
        world.reserve([(limit, "")], exactly(3_000)).settle(3_000, 0)
        world.clock.advance(60 * SECOND)
    (forecast,) = world.forecasts
    assert (forecast.limit, forecast.mark) == (limit, None)
    assert forecast.reaches_at_ns is not None
    assert world.clock.wall_ns() - HOUR < forecast.reaches_at_ns < world.clock.wall_ns() + HOUR


def test_a_pace_that_the_limit_allows_is_not_worth_a_word() -> None:
    world = World()
    limit = Limit(scope="all", unit="usd", amount=100_000, per_ns=HOUR)
    for _ in range(90):
        world.reserve([(limit, "")], exactly(1_500)).settle(1_500, 0)
        world.clock.advance(60 * SECOND)
    assert world.forecasts == []


def test_after_a_crash_only_what_was_settled_or_still_open_is_spent() -> None:
    world = World(processes=2)
    limit = Limit(scope="user", unit="usd", amount=1_000, per_ns=HOUR)
    world.reserve([(USD, "a"), (limit, "u")], exactly(100)).settle(40, 0)
    world.reserve([(USD, "a"), (limit, "u")], exactly(100))
    world.clock.advance(2 * 60 * SECOND)  # the open call's slot is over, and its slice returned
    world.reserve([(USD, "a"), (limit, "u")], exactly(100)).settle(70, 0)
    world.ledger.crash()
    world.ledgers[1].recover([world.slates[0].remains("process 0")], lambda error: None)
    assert [world.ledger.spent(each.account(value)) for each, value in ((USD, "a"), (limit, "u"))] == [210, 210]


def test_what_was_granted_and_never_heard_of_is_given_back_after_a_crash() -> None:
    world = World(processes=2)
    world.ledger.delay_ns = SECOND
    world.limiter.reserve([(CALLS, ""), (USD, "a")], exactly(1_000), lambda _: None)
    world.clock.advance(0)
    assert world.ledger.spent(USD.account("a")) == 1_000
    world.ledger.crash()
    world.ledgers[1].recover([world.slates[0].remains("process 0")], lambda error: None)
    assert (world.ledger.spent(USD.account("a")), world.ledger.spent(CALLS.account(""))) == (0, 0)


def test_an_idle_slice_returns_so_that_another_process_can_use_it() -> None:
    world = World(processes=2)
    wide = Limit(scope="all", unit="calls", amount=100, per_ns=24 * HOUR)
    world.ask([(wide, "")], process=1)
    world.ask([(wide, "")], times=200)
    assert world.ledger.spent(wide.account("")) == 100
    for _ in range(20):
        world.clock.advance(SECOND)
    (outcome,) = world.ask([(wide, "")])
    assert isinstance(outcome, Reservation)


def test_a_ledger_in_trouble_is_asked_again_until_it_answers() -> None:
    world = World()
    assert world.limiter.trouble == ""
    world.ledger.failing = StorageError("The disk is full; free some space.")
    world.ask([(CALLS, "")])
    assert world.limiter.trouble == "The disk is full; free some space."
    world.clock.advance(3 * SECOND)
    assert world.limiter.trouble
    world.ledger.failing = None
    world.clock.advance(SECOND)
    assert world.limiter.trouble == ""


def test_more_accounts_than_memory_should_hold_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.execution.limiter.MOST_ACCOUNTS", 50)
    world = World()
    heard: list[Outcome] = []
    for at in range(80):
        world.limiter.reserve([(USD, str(at))], exactly(1), heard.append)
    world.settle_down()
    assert (served(heard), world.limiter.accounts) == (50, 50)
    assert sum(isinstance(outcome, LedgerUnavailable) for outcome in heard) == 30


def test_tokens_are_counted_and_shrink_apart_from_money() -> None:
    world = World()
    tokens = Limit(scope="agent", unit="tokens", amount=1_000)
    ask = Ask(usd_least=10, usd_most=50, tokens_least=100, tokens_most=800)
    first = world.reserve([(USD, "a"), (tokens, "a")], ask)
    second = world.reserve([(USD, "a"), (tokens, "a")], ask)
    assert (first.amounts, second.amounts) == ((50, 1, 800), (50, 1, 200))
    first.settle(20, 300)
    reached = world.refuse([(USD, "a"), (tokens, "a")], Ask(usd_least=1, usd_most=1, tokens_least=501, tokens_most=501))
    assert (reached.limit, reached.spent, reached.reserved, reached.asked) == (tokens, 300, 200, 501)


def test_slices_of_a_clean_end_go_back_and_what_is_reserved_stays_spent() -> None:
    world = World()
    world.reserve([(USD, "a")], exactly(100)).settle(40, 0)
    world.reserve([(USD, "a")], exactly(100))
    world.ledger.delay_ns = SECOND
    answers: list[object] = []
    world.limiter.reserve([(USD, "a"), (CALLS, "")], exactly(500), answers.append)
    world.limiter.close(answers.append)
    world.settle_down()
    assert len(answers) == 2
    assert isinstance(answers[0], LedgerUnavailable)
    assert answers[1] is None
    assert (world.ledger.spent(USD.account("a")), world.ledger.spent(CALLS.account(""))) == (140, 0)


def test_a_lease_that_arrives_after_the_end_goes_back_too() -> None:
    world = World()
    world.ledger.delay_ns = SECOND
    world.limiter.reserve([(CALLS, "")], NOTHING, lambda _: None)
    world.clock.advance(0)
    answers: list[object] = []
    world.limiter.close(answers.append)
    assert world.ledger.spent(CALLS.account("")) > 0
    world.settle_down()
    assert answers == [None]
    assert world.ledger.spent(CALLS.account("")) == 0


def test_after_the_end_every_call_is_refused() -> None:
    world = World()
    world.reserve([(USD, "a")], exactly(1))
    world.limiter.close(lambda _: None)
    (outcome,) = world.ask([(USD, "a")], exactly(1))
    assert isinstance(outcome, LedgerUnavailable)


def test_accounts_at_rest_are_returned_and_forgotten() -> None:
    world = World()
    user = Limit(scope="user", unit="usd", amount=1_000, per_ns=HOUR)
    run = Limit(scope="run", unit="usd", amount=1_000)
    heard: list[Outcome] = []
    for at in range(2_000):
        world.limiter.reserve([(user, str(at)), (run, str(at))], exactly(10), heard.append)
    world.settle_down()
    assert (served(heard), world.limiter.accounts) == (2_000, 4_000)
    for outcome in heard:
        assert isinstance(outcome, Reservation)
        outcome.settle(3, 0)
    for _ in range(6 * 60):
        world.clock.advance(SECOND)
    assert world.limiter.accounts == 0
    assert sum(world.ledger.spent(account) for account in world.ledger.rows) == 2 * 2_000 * 3
    world.clock.advance(HOUR)
    assert world.clock.pending == 0


def test_a_hundred_thousand_users_leave_no_accounts_behind() -> None:
    world = World()
    user = Limit(scope="user", unit="usd", amount=1_000, per_ns=60 * SECOND)
    heard: list[Outcome] = []
    for at in range(100_000):
        world.limiter.reserve([(user, str(at))], exactly(10), heard.append)
    world.settle_down()
    assert (served(heard), world.limiter.accounts) == (100_000, 100_000)
    for outcome in heard:
        assert isinstance(outcome, Reservation)
        outcome.settle(3, 0)
    for _ in range(10):
        world.clock.advance(SECOND)
    assert (world.limiter.accounts, world.clock.pending) == (0, 0)
    assert sum(world.ledger.spent(account) for account in world.ledger.rows) == 300_000
