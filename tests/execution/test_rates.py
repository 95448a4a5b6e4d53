"""Who passes when, and who waits for whom, under a clock that stands still between two steps."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import SECOND
from holdfast.execution import rates as execution_rates
from holdfast.execution.rates import LONGEST_CLOSED_NS, MOST_WAITING, Rates
from holdfast.execution.turn import Costs, Excess, Pool, Turn
from holdfast.policy.rate import PERIODS, Rate
from holdfast.shared import pools, rates
from holdfast.shared.pools import PoolTable
from holdfast.shared.private_memory import PrivateMemory
from holdfast.shared.rates import RateTable
from holdfast.testing import FakeClock
from holdfast.wire.quota import Quota

VALUES: Any = {"all": "", "user": "ann", "agent": "support"}


def rate(amount: int = 60, burst: int = 1, **more: Any) -> Rate:
    return Rate(**{"scope": "all", "unit": "requests", "amount": amount, "per_ns": PERIODS["minute"], "burst": burst} | more)


class World:
    """Rates of one or several processes over the same memory, and what became of the calls that asked."""

    def __init__(self, processes: int = 1) -> None:
        self.clock = FakeClock(monotonic_ns=SECOND)
        self.table, self.pool_table = RateTable(PrivateMemory(rates.SIZE)), PoolTable(PrivateMemory(pools.SIZE))
        self.processes = [Rates(self.table, self.pool_table, self.clock) for _ in range(processes)]
        self.log: list[tuple[str, int, str]] = []

    def ask(
        self, name: str, *wanted: Rate, process: int = 0, costs: Costs = (1, 10, 6, 4), room_ns: int = 600 * SECOND, pool: str = ""
    ) -> Turn:
        """One call; its end is logged with the second in which it came."""
        here = self.processes[process]
        until = self.clock.monotonic_ns() + room_ns
        turn = Turn(here.draws(wanted, VALUES, costs), here.pool(pool, "key") if pool else None, costs, until, until)

        def done(outcome: Turn | Excess) -> None:
            self.log.append((name, self.now, "passed" if outcome is turn else outcome.why))  # type: ignore[union-attr]

        here.ask(turn, done)
        return turn

    @property
    def now(self) -> int:
        return self.clock.monotonic_ns() // SECOND - 1

    def after(self, seconds: int) -> list[tuple[str, int, str]]:
        self.clock.advance(seconds * SECOND)
        log, self.log = self.log, []
        return log


def known(turn: Turn) -> Pool:
    assert turn.pool is not None
    return turn.pool


def test_what_conforms_passes_before_ask_returns_and_sets_no_timer() -> None:
    world = World()
    world.ask("a", rate())
    assert world.log == [("a", 0, "passed")]
    assert world.clock.pending == 0


def test_calls_beyond_the_rate_wait_and_pass_in_their_order_one_timer_a_line() -> None:
    world = World()
    for name in "abcd":
        world.ask(name, rate())
    assert world.clock.pending == 1 + 3  # one for the line, and the end of each call's patience
    assert world.after(10) == [(name, second, "passed") for second, name in enumerate("abcd")]
    assert (world.clock.pending, world.processes[0].waiting) == (0, 0)


def test_nobody_passes_those_that_wait_already() -> None:
    world = World()
    big, small = rate(60, 10, unit="tokens"), rate(60, 10, unit="tokens")
    world.ask("first", big, costs=(1, 5, 3, 2))
    world.ask("large", big, costs=(1, 10, 6, 4))
    world.ask("small", small, costs=(1, 1, 1, 0))
    assert world.after(10) == [("first", 0, "passed"), ("large", 5, "passed"), ("small", 6, "passed")]


def test_a_rate_that_refuses_says_when_to_come_again() -> None:
    world = World()
    answers: list[Turn | Excess] = []
    refusing = rate(on_excess="refuse")
    for _ in range(2):
        here = world.processes[0]
        here.ask(Turn(here.draws([refusing], VALUES, (1, 0, 0, 0)), None, (1, 0, 0, 0), 10**18, 10**18), answers.append)
    excess = answers[1]
    assert isinstance(excess, Excess)
    assert (excess.why, excess.retry_after_ns, excess.line.describe()) == (
        "refuse",
        SECOND,
        "everything: 60 requests per minute, 1 at once",
    )


def test_who_would_wait_longer_than_it_may_is_told_at_once() -> None:
    world = World()
    for name in "abcdef":
        world.ask(name, rate(), room_ns=4 * SECOND)
    assert world.log == [("a", 0, "passed"), ("e", 0, "no_room"), ("f", 0, "no_room")]
    assert world.after(5) == [
        ("a", 0, "passed"),
        ("e", 0, "no_room"),
        ("f", 0, "no_room"),
        ("b", 1, "passed"),
        ("c", 2, "passed"),
        ("d", 3, "passed"),
    ]


def test_the_longest_wait_is_the_rates_own() -> None:
    world = World()
    for name in "abc":
        world.ask(name, rate(max_wait_ns=2 * SECOND))
    assert world.log == [("a", 0, "passed"), ("c", 0, "no_room")]


def test_who_leaves_is_out_of_the_queue_at_once_and_the_others_move_up() -> None:
    world = World()
    turns = [world.ask(name, rate()) for name in "abcd"]
    turns[1].cancel()
    turns[1].cancel()
    assert world.processes[0].waiting == 2
    assert world.after(10) == [("a", 0, "passed"), ("c", 1, "passed"), ("d", 2, "passed")]
    assert world.clock.pending == 0


def test_what_was_not_sent_after_all_is_given_to_the_next() -> None:
    world = World()
    first = world.ask("a", rate(2))
    world.ask("b", rate(2))
    first.cancel()
    assert world.after(1) == [("a", 0, "passed"), ("b", 0, "passed")]
    first.settle((1, 1))
    world.ask("c", rate(2), room_ns=20 * SECOND)
    assert world.log == [("c", 1, "no_room")]


def test_tokens_are_corrected_by_what_was_used() -> None:
    world = World()
    tokens = rate(60, 100, unit="tokens", max_wait_ns=200 * SECOND)
    turn = world.ask("a", tokens, costs=(1, 100, 60, 40))
    world.ask("b", tokens, costs=(1, 20, 10, 10))
    turn.settle((10, 10))
    turn.settle((10, 10))
    assert world.after(1) == [("a", 0, "passed"), ("b", 0, "passed")]
    world.ask("c", tokens, costs=(1, 61, 1, 60)).settle((100, 61))
    world.ask("d", tokens, costs=(1, 1, 1, 0))
    assert world.after(200) == [("c", 1, "passed"), ("d", 102, "passed")]


def test_a_call_waits_for_all_of_its_rates_and_holds_none_meanwhile() -> None:
    world = World()
    slow, fast = rate(6, scope="user"), rate(60)
    world.ask("a", slow, fast)
    world.ask("b", slow, fast)
    assert [world.ask(name, fast, room_ns=2 * SECOND).passed for name in "cd"] == [False, False]
    assert world.after(9) == [("a", 0, "passed"), ("d", 0, "no_room"), ("c", 1, "passed")]
    world.ask("e", fast)
    assert world.after(3) == [("e", 9, "passed"), ("b", 10, "passed")]


def test_who_comes_from_another_line_takes_the_place_that_its_age_gives_it() -> None:
    world = World()
    slow, fast = rate(20, scope="user"), rate(60)
    world.ask("a", slow)
    world.ask("old", slow, fast)  # waits for the slow one until 3
    world.clock.advance(2 * SECOND + SECOND // 2)
    for name in ("x", "y", "z"):
        world.ask(name, fast)
    assert world.after(10) == [("a", 0, "passed"), ("x", 2, "passed"), ("old", 3, "passed"), ("y", 4, "passed"), ("z", 5, "passed")]


def test_processes_share_a_rate_and_both_get_on() -> None:
    world = World(processes=2)
    for number in range(10):
        world.ask(f"{number}", rate(), process=number % 2)
    log = world.after(20)
    assert [second for _, second, _ in log] == list(range(10))
    for process in (0, 1):
        mine = [int(name) for name, _, _ in log if int(name) % 2 == process]
        assert mine == sorted(mine)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=60),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_no_interleaving_passes_more_than_burst_and_rate(steps: list[tuple[int, int, int, bool]], burst: int, amount: int) -> None:
    world = World(processes=2)
    wanted, other = rate(amount, burst, per_ns=SECOND * 3), rate(30, 2, scope="user")
    turns: list[Turn] = []
    passed: list[int] = []
    for process, pause, what, both in steps:
        world.clock.advance(pause * SECOND // 3)
        if what == 0 and turns:
            turn = turns.pop(0)
            if not turn.passed:  # it leaves the queue; what has passed was sent
                turn.cancel()
        here = world.processes[process]
        draws = here.draws([wanted, other] if both else [wanted], VALUES, (1, 0, 0, 0))
        turns.append(Turn(draws, None, (1, 0, 0, 0), 10**18, 10**18))
        here.ask(turns[-1], lambda outcome: passed.append(world.clock.monotonic_ns()) if isinstance(outcome, Turn) else None)
    world.clock.advance(600 * SECOND)
    assert world.processes[0].waiting == world.processes[1].waiting == 0
    for begin in range(len(passed)):
        for end in range(begin, len(passed)):
            assert (end - begin + 1 - burst) * 3 * SECOND <= amount * (passed[end] - passed[begin])


def test_the_queue_is_bounded() -> None:
    world = World()
    for number in range(MOST_WAITING + 3):
        world.ask(str(number), rate(6000))
    assert world.processes[0].waiting == MOST_WAITING
    assert [why for _, _, why in world.log] == ["passed", "crowded", "crowded"]
    assert [why for _, _, why in world.after(60)][3:] == ["passed"] * MOST_WAITING


def test_what_a_process_remembers_is_bounded_and_forgetting_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution_rates, "MOST_LINES", 3)
    here = World().processes[0]
    each: Any = rate(scope="user", on_excess="refuse")
    outcomes: list[Turn | Excess] = []
    for user in "abcdefabcdef":
        here.ask(Turn(here.draws([each], {"user": user}, (1, 0, 0, 0)), None, (1, 0, 0, 0), 10**18, 10**18), outcomes.append)
        here.pool(user, "key")
    assert [isinstance(outcome, Turn) for outcome in outcomes] == [True] * 6 + [False] * 6
    assert len(here._buckets) <= 3 and len(here._pools) <= 3


def test_a_provider_that_asked_to_be_left_alone_is_not_asked_by_any_process_until_then() -> None:
    world = World(processes=2)
    first = world.ask("a", pool="openai/gpt")
    world.processes[0].heard(known(first), first.mark, [], 5 * SECOND)
    world.ask("b", pool="openai/gpt", process=1)
    world.ask("c", pool="openai/other", process=1)
    world.ask("d", pool="openai/gpt", process=1, room_ns=SECOND)
    assert world.after(10) == [("a", 0, "passed"), ("c", 0, "passed"), ("d", 0, "no_room"), ("b", 5, "passed")]


def test_those_that_waited_for_a_provider_do_not_storm_it() -> None:
    world = World()
    first = world.ask("a", pool="openai/gpt")
    world.processes[0].heard(known(first), first.mark, [], 5 * SECOND)
    turns = [world.ask(str(number), pool="openai/gpt") for number in range(20)]
    world.clock.advance(5 * SECOND)
    passed = []
    for _ in range(4):
        passed.append(sum(turn.passed for turn in turns))
        world.clock.advance(50_000_000)
    assert passed == [1, 3, 7, 15]
    world.processes[0].heard(known(turns[0]), turns[0].mark, [], 7 * SECOND)
    assert {second for _, second, _ in world.after(20)[-5:]} <= {5, 12}


def test_who_cannot_wait_as_long_as_the_provider_asks_is_told_at_once() -> None:
    world = World()
    first = world.ask("a", pool="openai/gpt")
    world.processes[0].heard(known(first), first.mark, [], SECOND)
    world.ask("b", pool="openai/gpt", room_ns=20 * SECOND)
    world.processes[0].heard(known(first), first.mark, [], 3600 * SECOND)
    assert world.after(1)[-1] == ("b", 0, "no_room")


def test_a_wish_to_be_left_alone_for_days_is_tried_again_within_the_hour() -> None:
    world = World()
    first = world.ask("a", pool="openai/gpt")
    world.processes[0].heard(known(first), first.mark, [], 10**17)
    world.ask("b", pool="openai/gpt", room_ns=2 * LONGEST_CLOSED_NS)
    assert world.after(3600)[-1] == ("b", 3600, "passed")


def test_what_the_providers_headers_leave_is_spread_over_time() -> None:
    world = World(processes=2)
    first = world.ask("a", pool="openai/gpt")
    world.processes[0].heard(known(first), first.mark, [Quota("requests", 60, 2, 58 * SECOND)], None)
    for number in range(4):
        world.ask(str(number), pool="openai/gpt", process=number % 2)
    assert [second for _, second, _ in world.after(10)] == [0, 0, 0, 1, 2]


def test_a_call_that_its_own_rate_holds_back_is_not_counted_as_sent_to_the_provider() -> None:
    world = World()
    first = world.ask("a", rate(1), pool="openai/gpt")
    world.processes[0].heard(known(first), first.mark, [Quota("requests", 60, 1, 59 * SECOND)], None)
    world.ask("b", rate(1), pool="openai/gpt")
    world.ask("c", pool="openai/gpt")
    assert world.log[-1] == ("c", 0, "passed")
