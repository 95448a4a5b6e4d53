"""The contract of a ledger, held by all of them."""

from collections.abc import Callable
from typing import Any

from holdfast.clock import SECOND
from holdfast.execution.ledger import Lease, LeaseRequest, Remains, Use, row_digest
from holdfast.policy.allowance import FOREVER_NS, Rows, Window
from holdfast.testing.clock import NEW_YEAR_2026

WINDOW = Window.of(3600 * SECOND)
NOW = WINDOW.slot(NEW_YEAR_2026)
Open = Callable[[str], Any]


def request(account: str = "x", first: int = NOW, last: int | None = None, **amounts: int) -> LeaseRequest:
    last = first if last is None else last
    wanted = {"limit": 100, "need": 10, "least": 1, "ahead": 0} | amounts
    return LeaseRequest(account=account, first=first, last=last, leaves_ns=WINDOW.leaves_ns(last), **wanted)


def use(change: int, slot: int = NOW, account: str = "x") -> Use:
    return Use(account=account, slot=slot, leaves_ns=WINDOW.leaves_ns(slot), change=change)


def test_a_lease_is_granted_by_what_is_left_and_says_what_was_there(open_ledger: Open) -> None:
    a, b = open_ledger("a"), open_ledger("b")
    assert a.lease(request(need=60)) == [Lease(60, Rows((), 0))]
    assert b.lease(request(need=60)) == [Lease(40, Rows(((NOW, 60),), 60))]
    assert a.lease(request(need=1)) == [Lease(0, Rows(((NOW, 100),), 40, 60))]


def test_ahead_of_need_only_an_eighth_of_the_rest_is_granted(open_ledger: Open) -> None:
    assert open_ledger("a").lease(request(need=20, ahead=50))[0].amount == 30


def test_sixty_slots_before_the_first_count_and_later_ones_too(open_ledger: Open) -> None:
    ledger = open_ledger("a")
    ledger.lease(request(first=NOW - 61), request(first=NOW - 60, need=11), request(first=NOW), request(first=NOW + 4_000, need=12))
    assert ledger.lease(request(first=NOW, need=0))[0].rows.slots == ((NOW - 60, 11), (NOW, 10), (NOW + 4_000, 12))


def test_a_grant_is_charged_to_the_last_slot(open_ledger: Open) -> None:
    ledger = open_ledger("a")
    ledger.lease(request(first=NOW, last=NOW + 3))
    assert ledger.lease(request(need=0))[0].rows.slots == ((NOW + 3, 10),)


def test_requests_of_one_question_are_granted_in_their_order(open_ledger: Open) -> None:
    answer = open_ledger("a").lease(request(need=70), request(account="y", need=5), request(need=70))
    assert [lease.amount for lease in answer] == [70, 5, 30]


def test_what_is_given_back_can_be_granted_again(open_ledger: Open) -> None:
    a, b = open_ledger("a"), open_ledger("b")
    a.lease(request(need=100))
    assert a.report(use(-30)) is None
    assert b.lease(request(need=100))[0].amount == 30


def test_nobody_gives_back_what_another_holds_nor_more_than_it_holds(open_ledger: Open) -> None:
    a, b = open_ledger("a"), open_ledger("b")
    a.lease(request(need=50))
    b.lease(request(need=10))
    b.report(use(-40), use(-5, slot=NOW - 1), use(-5, account="y"))
    assert b.lease(request(need=10))[0].rows == Rows(((NOW, 50),), 50)
    assert b.lease(request(need=0))[0].rows == Rows(((NOW, 60),), 50, 10)


def test_an_overrun_counts_even_above_the_limit_and_in_a_slot_without_a_row(open_ledger: Open) -> None:
    ledger = open_ledger("a")
    ledger.lease(request(need=90))
    ledger.report(use(25), use(7, slot=NOW - 10))
    assert ledger.lease(request(need=1)) == [Lease(0, Rows(((NOW - 10, 7), (NOW, 115)), 0, 115))]


def test_what_the_holder_itself_has_in_the_slot_of_the_grant_is_said_apart(open_ledger: Open) -> None:
    a, b = open_ledger("a"), open_ledger("b")
    a.lease(request(need=3), request(first=NOW - 1, need=5))
    b.lease(request(need=7))
    assert a.lease(request(need=0))[0].rows == Rows(((NOW - 1, 5), (NOW, 10)), 7, 3)


def test_only_what_a_dead_holder_used_stays_spent(open_ledger: Open) -> None:
    dead, other = open_ledger("dead"), open_ledger("other")
    dead.lease(request(need=50), request(first=NOW - 1, need=20), request(account="y", need=9))
    other.lease(request(need=10))
    used = {row_digest("x", NOW): 30, row_digest("x", NOW - 1): 0}
    for _ in range(2):
        assert other.recover(Remains("dead", used)) is None
        assert other.lease(request(need=0), request(account="y", need=0)) == [
            Lease(0, Rows(((NOW, 40),), 30, 10)),
            Lease(0, Rows(((NOW, 9),), 9)),
        ]


def test_of_a_dead_holder_of_whom_nothing_is_known_everything_stays_spent(open_ledger: Open) -> None:
    dead, other = open_ledger("dead"), open_ledger("other")
    dead.lease(request(need=50))
    assert other.recover(Remains("dead", None)) is None
    assert other.lease(request(need=0))[0].rows.used == 50


def test_a_mark_is_told_by_the_first_that_asks_and_again_when_its_window_has_passed(open_ledger: Open) -> None:
    a, b = open_ledger("a"), open_ledger("b")
    assert a.tell("x", 500, NOW) is True
    assert b.tell("x", 500, NOW) is False
    assert b.tell("x", 800, NOW) is True
    assert b.tell("y", 500, NOW) is True
    assert b.tell("x", 500, NOW + 60) is False
    assert b.tell("x", 500, NOW + 61) is True
    assert a.tell("x", 500, NOW + 62) is False


def test_a_ledger_that_can_be_written_says_so(open_ledger: Open) -> None:
    assert open_ledger("a").probe() is None


def test_amounts_of_any_size_are_kept_exactly(open_ledger: Open) -> None:
    ledger = open_ledger("a")
    ledger.lease(request(limit=FOREVER_NS, need=FOREVER_NS - 1))
    assert ledger.lease(request(limit=FOREVER_NS, need=5))[0].amount == 1
