"""What is told of a limit before it refuses: marks and forecasts, once each."""

from collections.abc import Callable
from typing import Any

from holdfast.clock import SECOND
from holdfast.errors import StorageError
from holdfast.execution.limiter import Ask, Outcome, Reservation
from holdfast.policy.limit import WATCH_ONLY, Limit

HOUR = 3600 * SECOND
CALLS = Limit(scope="all", unit="calls", amount=10, per_ns=HOUR)
USD = Limit(scope="agent", unit="usd", amount=1_000)
NOTHING = Ask(usd_least=0, usd_most=0)


NewWorld = Callable[..., Any]


def exactly(usd: int) -> Ask:
    return Ask(usd_least=usd, usd_most=usd)


def served(outcomes: list[Outcome]) -> int:
    return sum(isinstance(outcome, Reservation) for outcome in outcomes)


def test_a_mark_is_told_once_per_window_and_by_what_was_spent_not_by_what_is_reserved(new_world: NewWorld) -> None:
    world = new_world()
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


def test_what_other_processes_hold_ahead_of_need_reaches_no_mark(new_world: NewWorld) -> None:
    world = new_world(processes=2)
    limit = Limit(scope="all", unit="usd", amount=WATCH_ONLY, marks=(500,))
    assert served(world.ask([(limit, "")], exactly(1))) == 1
    assert served(world.ask([(limit, "")], exactly(1), process=1)) == 1
    assert world.marks == []


def test_a_mark_is_told_by_one_of_the_processes_that_come_upon_it(new_world: NewWorld) -> None:
    world = new_world(processes=2)
    limit = Limit(scope="all", unit="usd", amount=1_000, per_ns=HOUR, marks=(500,))
    for process in (0, 1, 0, 1):
        (outcome,) = world.ask([(limit, "")], exactly(200), process=process)
        assert isinstance(outcome, Reservation)
        outcome.settle(200, 0)
        world.settle_down()
    assert [mark for _, mark, _ in world.marks] == [500]


def test_a_ledger_that_cannot_say_whether_a_mark_was_told_has_it_told(new_world: NewWorld) -> None:
    world = new_world()
    limit = Limit(scope="all", unit="usd", amount=1_000, per_ns=HOUR, marks=(500,))
    first = world.reserve([(limit, "")], exactly(900))
    world.ledger.failing = StorageError("The disk is full; free some space.")
    first.settle(600, 0)
    world.settle_down()
    assert world.marks == [("", 500, 600)]


def test_a_limit_that_refuses_has_reached_its_last_mark(new_world: NewWorld) -> None:
    world = new_world()
    limit = Limit(scope="all", unit="usd", amount=1_000, per_ns=HOUR, marks=(500, 1_000))
    world.reserve([(limit, "")], exactly(960)).settle(960, 0)
    world.refuse([(limit, "")], exactly(100))
    world.refuse([(limit, "")], exactly(100))
    assert [mark for _, mark, _ in world.marks] == [500, 1_000]


def test_a_call_that_is_larger_than_what_is_left_of_a_half_used_limit_reaches_no_mark(new_world: NewWorld) -> None:
    world = new_world()
    limit = Limit(scope="all", unit="usd", amount=1_000, per_ns=HOUR, marks=(600, 1_000))
    world.reserve([(limit, "")], exactly(500)).settle(500, 0)
    world.refuse([(limit, "")], exactly(700))
    assert world.marks == []


def test_a_pace_that_will_reach_the_limit_is_told_once_per_window(new_world: NewWorld) -> None:
    world = new_world()
    limit = Limit(scope="all", unit="usd", amount=100_000, per_ns=HOUR)
    for _ in range(20):
        world.reserve([(limit, "")], exactly(3_000)).settle(3_000, 0)
        world.clock.advance(60 * SECOND)
    (forecast,) = world.forecasts
    assert (forecast.limit, forecast.mark) == (limit, None)
    assert forecast.reaches_at_ns is not None
    assert world.clock.wall_ns() - HOUR < forecast.reaches_at_ns < world.clock.wall_ns() + HOUR


def test_a_pace_that_the_limit_allows_is_not_worth_a_word(new_world: NewWorld) -> None:
    world = new_world()
    limit = Limit(scope="all", unit="usd", amount=100_000, per_ns=HOUR)
    for _ in range(90):
        world.reserve([(limit, "")], exactly(1_500)).settle(1_500, 0)
        world.clock.advance(60 * SECOND)
    assert world.forecasts == []
