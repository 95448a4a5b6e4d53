"""The table of circuit breakers across processes: exact counts, one change told once, probes that die, a table that is full."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import SECOND
from holdfast.execution.circuit import PROBE_LEASE_NS, SUCCESS, Blocked, Breaker, Guards, Instants, Report
from holdfast.policy.circuit_breaker import SLOTS, BreakerOptions, Counts, Outcome, Ticket, why_open
from holdfast.shared import breakers
from holdfast.shared.breakers import BreakerTable
from holdfast.shared.memory import SharedMemory
from holdfast.shared.private_memory import PrivateMemory
from holdfast.system_clock import SystemClock

OPTIONS = BreakerOptions(minimum_calls=4, window_ns=10 * SECOND, cooldown_ns=15 * SECOND, probes=2, slow_call_ns=SECOND)
START = 1_000 * SECOND
FAILURE = Report("failure")


@pytest.fixture(params=["private", "shared"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BreakerTable]:
    private = request.param == "private"
    opened = BreakerTable(PrivateMemory(breakers.SIZE) if private else SharedMemory(tmp_path / "breakers", breakers.SIZE, breakers.KIND))
    yield opened
    opened.release()


def guards(*names: str, options: BreakerOptions = OPTIONS) -> Guards:
    return Guards([Breaker("provider" if "/" not in name else "model", name, options) for name in names or ("openai/gpt",)])


def at(now_ns: int = START) -> Instants:
    return Instants(now_ns, now_ns + 5, 0.0)


def enter(table: BreakerTable, wanted: Guards, now_ns: int = START) -> tuple[Ticket, ...]:
    entered = table.enter(wanted, now_ns, now_ns)
    assert not isinstance(entered, Blocked)
    return entered


def blocked(table: BreakerTable, wanted: Guards, now_ns: int = START) -> Blocked:
    found = table.enter(wanted, now_ns, now_ns)
    assert isinstance(found, Blocked)
    return found


def succeed(table: BreakerTable, wanted: Guards, tickets: tuple[Ticket, ...], now_ns: int = START) -> None:
    table.succeed(wanted, tickets, now_ns, lambda: at(now_ns))


def fail(table: BreakerTable, wanted: Guards, times: int, now_ns: int = START, asked_ns: int | None = None) -> None:
    for _ in range(times):
        table.report(wanted, enter(table, wanted, now_ns), [FAILURE] * len(wanted.breakers), at(now_ns), asked_ns)


def test_it_opens_at_the_minimum_and_names_itself(table: BreakerTable) -> None:
    one = guards()
    fail(table, one, 3)
    assert table.changes() == [] and table.look(one, START) is None
    fail(table, one, 1)
    (change,) = table.changes()
    assert (change.name, change.kind, change.before, change.after) == ("openai/gpt", "model", "closed", "open")
    assert (change.reason, change.counts.failures) == ("4 of 4 calls failed within 10 s", 4)
    found = blocked(table, one, START + SECOND)
    assert found.wait_ns == 14 * SECOND and table.look(one, START + SECOND) == found
    assert table.look(one, START + 15 * SECOND) is None
    assert (found.standing.name, found.standing.state, found.standing.reason) == ("openai/gpt", "open", change.reason)
    assert found.standing.since == START + 5 and table.changes() == []


def test_any_object_of_its_name_sees_it_open(table: BreakerTable) -> None:
    seen = guards()
    succeed(table, seen, enter(table, seen))
    enter(table, seen)  # remembers that all were closed
    fail(table, guards(), 3)
    blocked(table, seen)
    blocked(table, guards())


def test_one_that_is_open_keeps_a_call_away_and_takes_no_probe_of_another(table: BreakerTable) -> None:
    early, late = guards("early"), guards("late")
    fail(table, early, 4)
    fail(table, late, 4, START + 10 * SECOND)
    both = guards("early", "late")
    found = blocked(table, both, START + 16 * SECOND)
    assert (found.standing.name, found.wait_ns) == ("late", 9 * SECOND)
    assert [standing.state for standing in table.standings(START + 16 * SECOND)] == ["open", "open"]
    assert all(ticket.number for ticket in enter(table, both, START + 25 * SECOND))


def test_an_upstream_that_asks_to_be_left_alone_is_and_another_breaker_of_the_call_is_not_bound_by_it(table: BreakerTable) -> None:
    both = guards("openai", "openai/gpt")
    for _ in range(4):
        table.report(both, enter(table, both), [SUCCESS, FAILURE], at(), 90 * SECOND)
    assert blocked(table, guards("openai/gpt"), START + 89 * SECOND).wait_ns == SECOND
    enter(table, guards("openai"))
    assert enter(table, guards("openai/gpt"), START + 90 * SECOND)[0].number


def test_probes_are_few_and_as_many_successes_close_it(table: BreakerTable) -> None:
    one, later = guards(), START + 15 * SECOND
    fail(table, one, 4)
    table.changes()
    first, second = enter(table, one, later), enter(table, one, later)
    assert blocked(table, one, later).standing.probes == 2
    (half_opened,) = table.changes()
    assert (half_opened.before, half_opened.after) == ("open", "half_open")
    succeed(table, one, first, later)
    third = enter(table, one, later)
    assert third[0].number not in (first[0].number, second[0].number)
    succeed(table, one, second, later)
    (closed,) = table.changes()
    assert (closed.before, closed.after, closed.reason) == ("half_open", "closed", "its probes succeeded")
    fail(table, one, 3, later)
    assert table.changes() == []  # what was counted before it opened is forgotten
    table.report(one, third, [FAILURE], at(later), None)
    assert table.changes() == []  # a probe of before says nothing any more
    fail(table, one, 1, later)
    assert [change.after for change in table.changes()] == ["open"]


def test_what_was_sent_before_it_opened_neither_closes_nor_opens_it_later(table: BreakerTable) -> None:
    one, later = guards(), START + 15 * SECOND
    early = [enter(table, one) for _ in range(10)]
    fail(table, one, 4)
    table.changes()
    for ticket in early[:5]:
        succeed(table, one, ticket, later)
    probes = [enter(table, one, later) for _ in range(2)]
    for ticket in early[5:7]:
        table.report(one, ticket, [FAILURE], at(later), None)
    for ticket in probes:
        succeed(table, one, ticket, later)
    for ticket in early[7:]:
        table.report(one, ticket, [FAILURE], at(later), None)
    assert [change.after for change in table.changes()] == ["half_open", "closed"]
    (standing,) = table.standings(later)
    assert standing.counts == Counts()


def test_a_probe_that_says_nothing_gives_its_place_back_and_one_that_is_silent_loses_it(table: BreakerTable) -> None:
    one, later = guards(), START + 15 * SECOND
    fail(table, one, 4)
    left, silent = enter(table, one, later), enter(table, one, later)
    table.report(one, left, [Report()], at(later), None)
    alive = enter(table, one, later)
    assert table.renew(one, alive, later + PROBE_LEASE_NS - 1)
    blocked(table, one, later + PROBE_LEASE_NS - 1)
    enter(table, one, later + PROBE_LEASE_NS)
    assert not table.renew(one, silent, later + PROBE_LEASE_NS)
    blocked(table, one, later + PROBE_LEASE_NS)
    table.report(one, silent, [FAILURE], at(later + PROBE_LEASE_NS), None)
    assert [change.after for change in table.changes()] == ["open", "half_open"]


def test_reset_closes_it_and_forgets_what_was_counted(table: BreakerTable) -> None:
    one = guards()
    fail(table, one, 4)
    change = table.reset("openai/gpt", START, START)
    assert change is not None
    assert (change.before, change.after, change.counts.failures) == ("open", "closed", 4)
    fail(table, one, 3)
    assert table.reset("openai/gpt", START, START) is None
    assert table.reset("nobody/knows", START, START) is None
    fail(table, one, 3)
    assert enter(table, one)


steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, SECOND // 2, SECOND, 3 * SECOND, 9 * SECOND, 10 * SECOND]),
        st.sampled_from(["success", "success", "success", "failure", "suspicion", None, None]),
        st.booleans(),
        st.integers(0, 3),
    ),
    max_size=80,
)


@given(steps, st.integers(1, 12), st.integers(1, 100), st.integers(1, 100), st.sampled_from(["provider", "model"]))
def test_counts_and_rates_are_those_of_a_list_of_all_calls(
    calls: list[tuple[int, Outcome | None, bool, int]], minimum: int, failure_rate: int, slow_rate: int, name: str
) -> None:
    wanted = BreakerOptions(
        minimum_calls=minimum, failure_rate=failure_rate, slow_rate=slow_rate, window_ns=10 * SECOND, slow_call_ns=SECOND
    )
    table = BreakerTable(PrivateMemory(breakers.SIZE))
    one = guards("openai" if name == "provider" else "openai/gpt", options=wanted)
    (breaker,) = one.breakers
    seen: list[tuple[int, Outcome, bool, int]] = []
    now = START
    for pause, outcome, slow, source in calls:
        now += pause
        entered = enter(table, one, now)
        if outcome == "success" and not slow:
            succeed(table, one, entered, now)
        else:
            table.report(one, entered, [Report(outcome, slow, 1 << source)], at(now), None)
        if outcome is not None:
            seen.append((now // SECOND, outcome, slow, source))
        within = [each for each in seen if each[0] > now // SECOND - SLOTS]
        counts = Counts(
            len(within),
            sum(each[1] == "failure" for each in within),
            sum(each[1] == "suspicion" for each in within),
            sum(each[2] for each in within),
            sum({1 << each[3] for each in within if each[1] == "suspicion"}),
        )
        expected = why_open(wanted, breaker.kind, counts) if outcome is not None else ""
        changes = table.changes()
        assert [(change.reason, change.counts) for change in changes] == ([(expected, counts)] if expected else [])
        if expected:
            break
        assert [standing.counts for standing in table.standings(now)] == ([counts] if seen else [])


def test_the_closed_one_that_was_used_the_longest_ago_gives_way_and_open_ones_stay(
    table: BreakerTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakers, "PLACES", 1)
    held = [guards(f"p/{number}") for number in range(breakers.PROBED)]
    for number, each in enumerate(held):
        succeed(table, each, enter(table, each, START + number * SECOND), START + number * SECOND)
    now = START + 20 * SECOND
    fail(table, held[0], 4, now)
    remembered = enter(table, held[1], now)
    late = guards("p/late")
    succeed(table, late, enter(table, late, now), now)
    names = [standing.name for standing in table.standings(now)]
    assert "p/late" in names and "p/0" in names and "p/1" not in names
    succeed(table, held[1], remembered, now)
    assert [standing.counts.calls for standing in table.standings(now) if standing.name == "p/late"] == [1]
    assert "p/2" not in [standing.name for standing in table.standings(now)]
    blocked(table, held[0], now)


def test_a_table_full_of_open_ones_lets_calls_of_others_pass_uncounted(table: BreakerTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakers, "PLACES", 1)
    for number in range(breakers.PROBED):
        fail(table, guards(f"p/{number}"), 4)
    late = guards("p/late")
    fail(table, late, 20)
    enter(table, late)
    assert table.uncounted == 20
    assert len(table.standings(START)) == breakers.PROBED


def test_long_and_strange_names_are_kept_apart_and_cut_between_characters(table: BreakerTable) -> None:
    long = "openai/" + "ü" * 300
    for name in (long + "a", long + "b", "openai/\ud800"):
        one = guards(name)
        succeed(table, one, enter(table, one))
    names = [standing.name for standing in table.standings(START)]
    assert len(names) == 3 and names.count("openai/" + "ü" * 92) == 2


WORKER = """
import os, sys, time
from pathlib import Path
from holdfast.execution.circuit import Breaker, Guards, Instants, Report, SUCCESS
from holdfast.policy.circuit_breaker import BreakerOptions
from holdfast.shared import breakers
from holdfast.shared.memory import SharedMemory
table = breakers.BreakerTable(SharedMemory(Path(sys.argv[1]), breakers.SIZE, breakers.KIND))
options = BreakerOptions(minimum_calls=10**6, window_ns=3600 * 10**9, cooldown_ns=1)
one = Guards([Breaker("provider", "openai", options), Breaker("model", "openai/gpt", options)])
os.write(1, b"ready\\n")
for line in sys.stdin:
    word, count = line.split()
    for number in range(int(count)):
        now = time.monotonic_ns()
        entered = table.enter(one, now, now)
        at = Instants(now, now, 0.5)
        if not isinstance(entered, tuple):
            os.write(1, b"b")
        elif word == "probe":
            os.write(1, b"%d" % entered[0].number)
        elif word == "mixed" and number % 4 == 0:
            table.report(one, entered, [SUCCESS, Report("failure")], at, None)
            os.write(1, b"f")
        else:
            table.succeed(one, entered, now, lambda: at)
            os.write(1, b".")
    os.write(1, b"\\n")
"""


class Worker:
    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", WORKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        assert self.stdout.readline() == b"ready\n"

    def begin(self, order: str) -> None:
        self.stdin.write(order.encode() + b"\n")

    def end(self) -> bytes:
        return self.process.communicate()[0]

    def kill(self) -> bytes:
        self.process.kill()
        return self.process.communicate()[0]


def shared(path: Path) -> BreakerTable:
    return BreakerTable(SharedMemory(path, breakers.SIZE, breakers.KIND))


def counts_of(table: BreakerTable) -> dict[str, Counts]:
    return {standing.name: standing.counts for standing in table.standings(SystemClock().monotonic_ns())}


def test_not_one_call_of_two_processes_that_count_at_once_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "breakers"
    both = [Worker(path) for _ in range(2)]
    for each in both:
        each.begin("mixed 8000")
    failures = sum(each.end().count(b"f") for each in both)
    table = shared(path)
    counted = counts_of(table)
    assert counted["openai"] == Counts(16_000) and counted["openai/gpt"] == Counts(16_000, failures)
    table.release()


def test_a_process_killed_in_the_middle_blocks_nobody_and_spoils_at_most_its_last_call(tmp_path: Path) -> None:
    """Fifteen kills at moments of the scheduler's choosing, most of them inside the lock."""
    path, said = tmp_path / "breakers", 0
    table = shared(path)
    for kills in range(1, 16):
        victim = Worker(path)
        victim.begin("mixed 1000000000")
        said += len(victim.stdout.read(50 + 7 * kills))
        said += len(victim.kill())
        assert all(said <= counts.calls <= said + kills for counts in counts_of(table).values())
    table.release()


def test_a_process_killed_with_a_probe_in_flight_leaves_its_place_to_the_others(tmp_path: Path) -> None:
    path = tmp_path / "breakers"
    table, clock = shared(path), SystemClock()
    quick = BreakerOptions(minimum_calls=1, cooldown_ns=1, probes=1)
    here = Guards([Breaker("provider", "openai", quick), Breaker("model", "openai/gpt", quick)])
    now = clock.monotonic_ns()
    table.report(here, enter(table, here, now), [FAILURE, FAILURE], at(now), None)
    victim = Worker(path)
    victim.begin("probe 1")
    assert victim.stdout.readline() == b"1\n"
    victim.kill()
    now = clock.monotonic_ns()
    assert blocked(table, here, now).standing.probes == 1
    assert enter(table, here, now + PROBE_LEASE_NS)[0].number == 2
    table.release()


def test_a_breaker_that_one_process_opens_is_open_to_the_next_look_of_another(tmp_path: Path) -> None:
    path = tmp_path / "breakers"
    here, other = shared(path), Worker(path)
    other.begin("calls 1")
    assert other.stdout.readline() == b".\n"
    fail(here, guards("openai/gpt"), 4, SystemClock().monotonic_ns())
    other.begin("calls 1")
    assert other.end() == b"b\n"
    here.release()
