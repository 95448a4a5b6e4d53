"""The tables that hold rates across processes: one contract for the file that all map and for the memory of one process."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from holdfast.clock import SECOND
from holdfast.execution.turn import Bucket, Pool
from holdfast.policy.rate import PERIODS, Rate
from holdfast.shared import pools, rates
from holdfast.shared.memory import SharedMemory
from holdfast.shared.pools import PoolTable
from holdfast.shared.private_memory import Memory, PrivateMemory
from holdfast.shared.rates import RateTable
from holdfast.system_clock import SystemClock
from holdfast.wire.quota import Quota

HOUR = PERIODS["hour"]
ONE = (1, 100, 60, 40)


def bucket(amount: int = 60, burst: int = 5, on_excess: Literal["wait", "refuse"] = "wait", value: str = "") -> Bucket:
    return Bucket(Rate(scope="user", unit="requests", amount=amount, per_ns=HOUR, burst=burst, on_excess=on_excess), value)


@pytest.fixture(params=["private", "shared"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[int], Memory]]:
    def made(size: int) -> Memory:
        return PrivateMemory(size) if request.param == "private" else SharedMemory(tmp_path / f"table {size}", size, "test 1")

    yield made


@pytest.fixture
def table(memory: Callable[[int], Memory]) -> Iterator[RateTable]:
    opened = RateTable(memory(rates.SIZE))
    yield opened
    opened.release()


@pytest.fixture
def pool_table(memory: Callable[[int], Memory]) -> Iterator[PoolTable]:
    opened = PoolTable(memory(pools.SIZE))
    yield opened
    opened.release()


def test_a_burst_passes_and_then_one_per_interval(table: RateTable) -> None:
    one = bucket()
    assert [table.take([(one, 1)], 10) for _ in range(5)] == [None] * 5
    assert table.take([(one, 1)], 10) == (one, 60 * SECOND)
    assert table.take([(one, 1)], 10 + 60 * SECOND) is None
    assert table.take([(one, 1)], 10 + 60 * SECOND) == (one, 60 * SECOND)


def test_all_buckets_are_taken_from_or_none(table: RateTable) -> None:
    wide, narrow = bucket(burst=3, value="wide"), bucket(burst=1, value="narrow")
    assert table.take([(wide, 1), (narrow, 1)], 5) is None
    for _ in range(3):
        assert table.take([(wide, 1), (narrow, 1)], 5) == (narrow, 60 * SECOND)
    assert [table.take([(wide, 1)], 5) for _ in range(2)] == [None, None]
    assert table.take([(wide, 1)], 5) == (wide, 60 * SECOND)


def test_what_refuses_is_named_before_what_lets_wait_and_the_longest_wait_first(table: RateTable) -> None:
    slow, slower, refusing = bucket(60, 1, value="slow"), bucket(30, 1, value="slower"), bucket(3600, 1, "refuse", "refusing")
    all_of_them = [(slow, 1), (slower, 1), (refusing, 1)]
    assert table.take(all_of_them, 5) is None
    assert table.take(all_of_them, 5) == (refusing, SECOND)
    assert table.take(all_of_them, 5 + 2 * SECOND) == (slower, 118 * SECOND)


def test_what_was_too_much_comes_back_and_what_was_too_little_is_taken_later(table: RateTable) -> None:
    one = bucket()
    assert table.take([(one, 5)], 7) is None
    table.correct(one, -2, 7)
    assert table.take([(one, 2)], 7) is None
    table.correct(one, 3, 7)
    assert table.take([(one, 1)], 7) == (one, 240 * SECOND)


def test_values_are_counted_apart_and_one_bucket_by_any_object_of_its_name(table: RateTable) -> None:
    assert table.take([(bucket(burst=1, value="ann"), 1)], 7) is None
    assert table.take([(bucket(burst=1, value="bob"), 1)], 7) is None
    again = bucket(burst=1, value="ann")
    assert table.take([(again, 1)], 7) == (again, 60 * SECOND)


def test_places_of_whole_buckets_are_used_again_and_a_full_table_lets_wait(table: RateTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "PLACES", 1)
    many = [bucket(burst=1, value=str(number)) for number in range(rates.PROBED)]
    assert [table.take([(each, 1)], SECOND) for each in many] == [None] * rates.PROBED
    late = bucket(burst=1, value="late")
    assert table.take([(late, 1)], SECOND) == (late, 60 * SECOND + 1)
    assert table.take([(late, 1)], 61 * SECOND + 1) is None
    assert table.take([(many[3], 1), (many[4], 1)], 61 * SECOND + 1) is None
    assert table.take([(late, 1)], 61 * SECOND + 1) == (late, 60 * SECOND)


def test_two_new_buckets_of_one_call_do_not_end_in_one_place(table: RateTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "PLACES", 1)
    one, other = bucket(burst=1, value="one"), bucket(burst=2, value="other")
    assert table.take([(one, 1), (other, 1)], SECOND) is None
    assert table.take([(other, 1)], SECOND) is None
    assert [table.take([(each, 1)], SECOND) for each in (one, other)] == [(one, 60 * SECOND), (other, 60 * SECOND)]


HAMMER = """
import os, sys, time
from pathlib import Path
from holdfast.execution.turn import Bucket
from holdfast.policy.rate import PERIODS, Rate
from holdfast.shared import rates
from holdfast.shared.memory import SharedMemory
table = rates.RateTable(SharedMemory(Path(sys.argv[1]), rates.SIZE, rates.KIND))
both = [(Bucket(Rate(scope=scope, unit="requests", amount=1, per_ns=PERIODS["hour"], burst=20_000), ""), 1) for scope in ("all", "agent")]
os.write(1, b"ready\\n")
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    if table.take(both, time.monotonic_ns()) is None:
        os.write(1, b".")
"""
BOTH = [
    Bucket(Rate(scope="all", unit="requests", amount=1, per_ns=HOUR, burst=20_000), ""),
    Bucket(Rate(scope="agent", unit="requests", amount=1, per_ns=HOUR, burst=20_000), ""),
]


def hammers(path: Path, tries: int, count: int) -> list[subprocess.Popen[bytes]]:
    """Processes that take from `BOTH` and write a dot each time that they may, all at once."""
    command = [sys.executable, "-c", HAMMER, str(path), str(tries)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) for _ in range(count)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
    return started


def taken(table: RateTable, one: Bucket) -> int:
    """How much is missing of a bucket of `BOTH`."""
    now = SystemClock().monotonic_ns()
    blocked = table.take([(one, 20_000)], now)
    assert blocked is not None
    return -(-blocked[1] // HOUR)


def test_processes_that_hammer_one_bucket_get_its_burst_together_and_not_one_more(tmp_path: Path) -> None:
    passed = [len(process.communicate()[0]) for process in hammers(tmp_path / "rates", 15_000, 2)]
    assert sum(passed) == 20_000
    assert max(passed) <= 15_000


def test_a_process_killed_in_the_middle_blocks_nobody_and_what_it_was_given_stays_taken(tmp_path: Path) -> None:
    """Twenty kills at moments of the scheduler's choosing, most of them inside the lock."""
    path = tmp_path / "rates"
    here = RateTable(SharedMemory(path, rates.SIZE, rates.KIND))
    given = 0
    for kills in range(1, 21):
        (victim,) = hammers(path, 10**9, 1)
        assert victim.stdout is not None
        given += len(victim.stdout.read(50 + 7 * kills))
        victim.kill()
        given += len(victim.communicate()[0])
        first, second = (taken(here, one) for one in BOTH)
        assert given <= second <= first <= given + kills
    here.release()


class Provider:
    """A pool whose provider has said this much."""

    def __init__(self, table: PoolTable, *quotas: Quota, key: str = "k") -> None:
        self.table, self.pool = table, Pool("openai/gpt", key)
        _, mark = table.send(self.pool, ONE, SECOND)
        table.learn(self.pool, mark, quotas, SECOND)

    def send(self, now_ns: int = SECOND) -> int:
        return self.table.send(self.pool, ONE, now_ns)[0]


def test_a_pool_of_which_nothing_is_known_is_open(pool_table: PoolTable) -> None:
    assert pool_table.send(Pool("openai/gpt", "k"), ONE, 5) == (0, None)


@pytest.mark.parametrize(
    ("quota", "passing", "wait"),
    [
        (Quota("requests", 60, 3, 57 * SECOND), 3, SECOND),
        (Quota("tokens", 60_000, 300, 59_700_000_000), 3, SECOND // 10),
        (Quota("input_tokens", 60_000, 299, 59_701_000_000), 4, SECOND // 1000),
        (Quota("output_tokens", 60, 5, 55 * SECOND), 0, 35 * SECOND),
        (Quota("requests", 60, 3, 57 * SECOND, False), 3, 57 * SECOND),
    ],
)
def test_what_a_provider_said_is_left_passes_and_no_more(pool_table: PoolTable, quota: Quota, passing: int, wait: int) -> None:
    told = Provider(pool_table, quota)
    assert [told.send() for _ in range(passing)] == [0] * passing
    assert told.send() == wait
    assert told.send(SECOND + wait - 1) > 0
    assert told.send(SECOND + wait) == 0


def test_calls_sent_since_the_answers_request_are_taken_off_what_it_says_is_left(pool_table: PoolTable) -> None:
    told = Provider(pool_table, Quota("requests", 60, 50, 10 * SECOND))
    _, mark = pool_table.send(told.pool, ONE, SECOND)
    for _ in range(4):
        told.send()
    pool_table.learn(told.pool, mark, [Quota("requests", 60, 6, 54 * SECOND)], SECOND)
    assert [told.send(), told.send(), told.send()] == [0, 0, SECOND]


def test_an_answer_that_a_later_ones_overtook_is_not_heeded(pool_table: PoolTable) -> None:
    told = Provider(pool_table, Quota("requests", 60, 50, 10 * SECOND))
    _, early = pool_table.send(told.pool, ONE, SECOND)
    _, late = pool_table.send(told.pool, ONE, SECOND)
    pool_table.learn(told.pool, late, [Quota("requests", 60, 0, 60 * SECOND)], SECOND)
    pool_table.learn(told.pool, early, [Quota("requests", 60, 40, 20 * SECOND)], SECOND)
    assert told.send() == SECOND


def test_what_was_not_sent_after_all_is_there_again(pool_table: PoolTable) -> None:
    told = Provider(pool_table, Quota("requests", 60, 1, 59 * SECOND))
    assert (told.send(), told.send()) == (0, SECOND)
    pool_table.unsend(told.pool, ONE, SECOND)
    assert told.send() == 0


def test_a_provider_that_asked_to_be_left_alone_is_and_the_latest_instant_counts(pool_table: PoolTable) -> None:
    pool = Pool("openai/gpt", "k")
    assert pool_table.send(pool, ONE, 5) == (0, None)
    pool_table.close(pool, 100)
    pool_table.close(pool, 50)
    assert pool_table.send(pool, ONE, 60)[0] == 40
    assert pool_table.send(pool, ONE, 100)[0] == 0


def test_keys_and_models_are_pools_of_their_own(pool_table: PoolTable) -> None:
    pool_table.close(Pool("openai/gpt", "k"), 100)
    assert pool_table.send(Pool("openai/gpt", "other"), ONE, 5)[0] == 0
    assert pool_table.send(Pool("openai/other", "k"), ONE, 5)[0] == 0
    assert pool_table.send(Pool("openai/gpt", "k"), ONE, 5)[0] == 95


def test_the_pool_used_the_longest_ago_gives_way(pool_table: PoolTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "PLACES", 1)
    many = [Pool(f"openai/{number}", "k") for number in range(pools.PROBED + 1)]
    for number, pool in enumerate(many):
        pool_table.close(pool, 1000 + number)
    assert [pool_table.send(pool, ONE, 5)[0] > 0 for pool in many] == [False] + [True] * pools.PROBED


@pytest.mark.parametrize(
    "absurd", [Quota("requests", 10**15 - 1, 0, 86_400 * SECOND), Quota("tokens", 10**15 - 1, 1, 1), Quota("tokens", 1, 0, 10**17)]
)
def test_absurd_figures_break_nothing(pool_table: PoolTable, absurd: Quota) -> None:
    told = Provider(pool_table, absurd)
    for now in (SECOND, 2 * SECOND, 10**17):
        assert 0 <= told.send(now) <= 2 * 86_400 * SECOND
    assert told.table.send(told.pool, (10**12, 10**12, 10**12, 10**12), 10**17)[0] >= 0
