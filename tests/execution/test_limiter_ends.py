"""What becomes of slices when they are idle, when their process ends, and when it crashes."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.errors import StorageError
from holdfast.execution.limiter import Ask, LedgerUnavailable, Outcome, Reservation
from holdfast.policy.limit import Limit

HOUR = 3600 * SECOND
CALLS = Limit(scope="all", unit="calls", amount=10, per_ns=HOUR)
USD = Limit(scope="agent", unit="usd", amount=1_000)
NOTHING = Ask(usd_least=0, usd_most=0)


NewWorld = Callable[..., Any]


def exactly(usd: int) -> Ask:
    return Ask(usd_least=usd, usd_most=usd)


def served(outcomes: list[Outcome]) -> int:
    return sum(isinstance(outcome, Reservation) for outcome in outcomes)


def test_after_a_crash_only_what_was_settled_or_still_open_is_spent(new_world: NewWorld) -> None:
    world = new_world(processes=2)
    limit = Limit(scope="user", unit="usd", amount=1_000, per_ns=HOUR)
    world.reserve([(USD, "a"), (limit, "u")], exactly(100)).settle(40, 0)
    world.reserve([(USD, "a"), (limit, "u")], exactly(100))
    world.clock.advance(2 * 60 * SECOND)  # the open call's slot is over, and its slice returned
    world.reserve([(USD, "a"), (limit, "u")], exactly(100)).settle(70, 0)
    world.ledger.crash()
    world.ledgers[1].recover([world.slates[0].remains("process 0")], lambda error: None)
    assert [world.ledger.spent(each.account(value)) for each, value in ((USD, "a"), (limit, "u"))] == [210, 210]


def test_what_was_granted_and_never_heard_of_is_given_back_after_a_crash(new_world: NewWorld) -> None:
    world = new_world(processes=2)
    world.ledger.delay_ns = SECOND
    world.limiter.reserve([(CALLS, ""), (USD, "a")], exactly(1_000), lambda _: None)
    world.clock.advance(0)
    assert world.ledger.spent(USD.account("a")) == 1_000
    world.ledger.crash()
    world.ledgers[1].recover([world.slates[0].remains("process 0")], lambda error: None)
    assert (world.ledger.spent(USD.account("a")), world.ledger.spent(CALLS.account(""))) == (0, 0)


def test_an_idle_slice_returns_so_that_another_process_can_use_it(new_world: NewWorld) -> None:
    world = new_world(processes=2)
    wide = Limit(scope="all", unit="calls", amount=100, per_ns=24 * HOUR)
    world.ask([(wide, "")], process=1)
    world.ask([(wide, "")], times=200)
    assert world.ledger.spent(wide.account("")) == 100
    for _ in range(20):
        world.clock.advance(SECOND)
    (outcome,) = world.ask([(wide, "")])
    assert isinstance(outcome, Reservation)


def test_a_ledger_in_trouble_is_asked_again_until_it_answers(new_world: NewWorld) -> None:
    world = new_world()
    assert world.limiter.trouble == ""
    world.ledger.failing = StorageError("The disk is full; free some space.")
    world.ask([(CALLS, "")])
    assert world.limiter.trouble == "The disk is full; free some space."
    world.clock.advance(3 * SECOND)
    assert world.limiter.trouble
    world.ledger.failing = None
    world.clock.advance(SECOND)
    assert world.limiter.trouble == ""


def test_more_accounts_than_memory_should_hold_are_not_opened(new_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.execution.limiter.MOST_ACCOUNTS", 50)
    world = new_world()
    heard: list[Outcome] = []
    for at in range(80):
        world.limiter.reserve([(USD, str(at))], exactly(1), heard.append)
    world.settle_down()
    assert (served(heard), world.limiter.accounts) == (50, 50)
    assert sum(isinstance(outcome, LedgerUnavailable) for outcome in heard) == 30


def test_slices_of_a_clean_end_go_back_and_what_is_reserved_stays_spent(new_world: NewWorld) -> None:
    world = new_world()
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


def test_a_lease_that_arrives_after_the_end_goes_back_too(new_world: NewWorld) -> None:
    world = new_world()
    world.ledger.delay_ns = SECOND
    world.limiter.reserve([(CALLS, "")], NOTHING, lambda _: None)
    world.clock.advance(0)
    answers: list[object] = []
    world.limiter.close(answers.append)
    assert world.ledger.spent(CALLS.account("")) > 0
    world.settle_down()
    assert answers == [None]
    assert world.ledger.spent(CALLS.account("")) == 0


def test_after_the_end_every_call_is_refused(new_world: NewWorld) -> None:
    world = new_world()
    world.reserve([(USD, "a")], exactly(1))
    world.limiter.close(lambda _: None)
    (outcome,) = world.ask([(USD, "a")], exactly(1))
    assert isinstance(outcome, LedgerUnavailable)


def test_accounts_at_rest_are_returned_and_forgotten(new_world: NewWorld) -> None:
    world = new_world()
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


def test_a_hundred_thousand_users_leave_no_accounts_behind(new_world: NewWorld) -> None:
    world = new_world()
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
