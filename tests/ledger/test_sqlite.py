import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.errors import StorageError
from holdfast.execution.ledger import LeaseRequest, Use
from holdfast.ledger.database import KEEP_NS, PRUNE_NS
from holdfast.ledger.sqlite import SqliteLedger, read_spent
from holdfast.policy.allowance import Window
from holdfast.testing import FakeClock

WINDOW = Window.of(3600 * SECOND)
OpenSqlite = Callable[..., Any]

# A process that makes calls against a limit of 1,000 (200 at once, some settled, never in a hurry to end) and says how many it was granted.
CALLER = """
import asyncio, sys
from pathlib import Path
from holdfast.system_clock import SystemClock
from holdfast.execution.limiter import Ask, Limiter, Reservation
from holdfast.ledger.sqlite import SqliteLedger
from holdfast.policy.limit import Limit
from holdfast.testing.ledger import MemorySlate

async def main():
    path, holder, calls = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    loop = asyncio.get_running_loop()
    ledger = SqliteLedger(path, holder, SystemClock(), loop.call_soon_threadsafe)
    limiter = Limiter(ledger, SystemClock(), MemorySlate())
    limit = Limit(scope="all", unit="calls", amount=1000)
    granted = 0
    for _ in range(calls // 20):
        batch = [loop.create_future() for _ in range(20)]
        for future in batch:
            limiter.reserve([(limit, "")], Ask(usd_least=0, usd_most=0), future.set_result)
        granted += sum(isinstance(outcome, Reservation) for outcome in await asyncio.gather(*batch))
    print(granted, flush=True)
    if "wait" in sys.argv:
        await asyncio.sleep(3600)
    closed = loop.create_future()
    limiter.close(closed.set_result)
    await closed
    ledger.close()

asyncio.run(main())
"""
LIMIT_ACCOUNT = "|all=|calls|total"


def request(need: int, slot: int, account: str = "x", limit: int = 100) -> LeaseRequest:
    return LeaseRequest(account=account, first=slot, last=slot, leaves_ns=WINDOW.leaves_ns(slot), limit=limit, need=need, least=1, ahead=0)


def start(path: Path, holder: str, calls: int, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", CALLER, str(path), holder, str(calls), *more], stdout=subprocess.PIPE, text=True)


def granted(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_processes_that_share_a_file_are_granted_the_limit_together_and_no_call_more(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    processes = [start(path, f"holder {at}", 800) for at in range(3)]
    total = 0
    for process in processes:
        with process:
            total += granted(process)
            assert process.wait() == 0
    assert 950 <= total <= 1_000
    assert read_spent(path, 0) == {LIMIT_ACCOUNT: total}


def test_after_kill_9_what_the_process_held_stays_spent(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with start(path, "first", 600, "wait") as killed:
        before = granted(killed)
        os.kill(killed.pid, signal.SIGKILL)
    assert before == 600
    held = read_spent(path, 0)[LIMIT_ACCOUNT]
    assert held >= before
    with start(path, "second", 600) as process:
        after = granted(process)
    assert after == 1_000 - held
    assert before + after <= 1_000


def test_a_grant_is_in_the_file_when_it_is_heard_of(tmp_path: Path, open_sqlite: OpenSqlite, clock: FakeClock) -> None:
    slot = WINDOW.slot(clock.wall_ns())
    open_sqlite().lease(request(7, slot))
    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        assert other.execute("SELECT account, slot, holder, amount FROM spent").fetchall() == [("x", slot, "a", 7)]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def test_spending_is_read_without_a_ledger_open(tmp_path: Path, open_sqlite: OpenSqlite, clock: FakeClock) -> None:
    assert read_spent(tmp_path / "none.sqlite", 0) == {}
    slot = WINDOW.slot(clock.wall_ns())
    ledger = open_sqlite()
    ledger.lease(request(7, slot), request(5, slot - 10), request(3, slot, "y"))
    ledger.ledger.close()
    path = tmp_path / "ledger.sqlite"
    assert read_spent(path, clock.wall_ns()) == {"x": 12, "y": 3}
    assert read_spent(path, WINDOW.leaves_ns(slot - 10)) == {"x": 7, "y": 3}


def test_slots_are_pruned_an_hour_after_they_left_their_window(tmp_path: Path, open_sqlite: OpenSqlite, clock: FakeClock) -> None:
    slot = WINDOW.slot(clock.wall_ns())
    ledger = open_sqlite()
    ledger.lease(request(7, slot))
    path = tmp_path / "ledger.sqlite"
    clock.advance(WINDOW.leaves_ns(slot) - clock.wall_ns() + KEEP_NS)
    ledger.lease(request(1, slot, "y"))
    assert set(read_spent(path, 0)) == {"x", "y"}
    clock.advance(PRUNE_NS)
    ledger.lease(request(1, WINDOW.slot(clock.wall_ns()), "z"))
    assert set(read_spent(path, 0)) == {"z"}


def test_a_ledger_locked_by_another_program_says_so_and_works_again_afterwards(
    tmp_path: Path, open_sqlite: OpenSqlite, clock: FakeClock
) -> None:
    slot = WINDOW.slot(clock.wall_ns())
    ledger = open_sqlite(busy_ns=0)
    ledger.lease(request(50, slot))
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused = ledger.try_lease([request(10, slot)])
    assert isinstance(refused, StorageError)
    assert "locked by another program" in str(refused)
    assert isinstance(ledger.report(Use(account="x", slot=slot, leaves_ns=WINDOW.leaves_ns(slot), change=-20)), StorageError)
    assert isinstance(ledger.report(Use(account="x", slot=slot, leaves_ns=WINDOW.leaves_ns(slot), change=+5)), StorageError)
    other.execute("ROLLBACK")
    other.close()
    assert ledger.lease(request(0, slot))[0].rows.used == 35  # nothing was begun, so what was reported is written late, and once


def test_after_a_failure_midway_additions_are_written_late_and_what_was_given_back_stays_spent(
    tmp_path: Path, open_sqlite: OpenSqlite, clock: FakeClock
) -> None:
    slot = WINDOW.slot(clock.wall_ns())
    ledger = open_sqlite()
    ledger.lease(request(50, slot))
    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        other.execute("CREATE TRIGGER fail BEFORE UPDATE ON spent BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END")
    for change in (-20, +5):
        error = ledger.report(Use(account="x", slot=slot, leaves_ns=WINDOW.leaves_ns(slot), change=change))
        assert isinstance(error, StorageError)
        assert "disk I/O error" in str(error)
    with other:
        other.execute("DROP TRIGGER fail")
    other.close()
    assert ledger.lease(request(0, slot))[0].rows.used == 55


def test_a_file_that_is_no_ledger_is_said_to_be_damaged(tmp_path: Path, open_sqlite: OpenSqlite) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"these are not the pages you are looking for" * 100)
    with pytest.raises(StorageError, match=r"ledger\.sqlite is damaged .*; restore it from a backup"):
        open_sqlite()


def test_the_file_lies_where_its_path_says_whatever_stands_in_it_and_is_its_owners_alone(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "which?way #1 %20é" / "ledger.sqlite"
    path.parent.mkdir()
    ledger = SqliteLedger(path, "a", clock, lambda call: call())
    modes = {file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    ledger.close()
    assert path.exists() and modes == {0o600}
    assert list(tmp_path.iterdir()) == [path.parent]


def test_a_folder_that_does_not_exist_is_said_to_be_so(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(StorageError, match=r"cannot be written .*; check that its folder exists"):
        SqliteLedger(tmp_path / "none" / "ledger.sqlite", "a", clock, lambda call: call())


def test_a_newer_ledger_is_left_alone(tmp_path: Path, open_sqlite: OpenSqlite) -> None:
    open_sqlite().ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        other.execute("UPDATE ledger_version SET version = 99")
    other.close()
    with pytest.raises(StorageError, match="newer Holdfast"):
        open_sqlite("b")


def test_what_was_asked_before_the_end_is_written_and_nobody_is_called_after_it(tmp_path: Path, clock: FakeClock) -> None:
    calls: list[Callable[[], None]] = []
    ledger = SqliteLedger(tmp_path / "ledger.sqlite", "a", clock, calls.append)
    heard: list[object] = []
    ledger.lease([request(9, WINDOW.slot(clock.wall_ns()))], heard.append)
    ledger.close()
    ledger.close()
    for call in calls:
        call()
    assert heard == []
    assert read_spent(tmp_path / "ledger.sqlite", 0) == {"x": 9}


def test_an_overrun_beyond_all_measure_fills_the_limit_and_harms_nothing_else(open_sqlite: OpenSqlite, clock: FakeClock) -> None:
    slot = WINDOW.slot(clock.wall_ns())
    ledger = open_sqlite()
    assert ledger.report(*[Use(account="x", slot=slot, leaves_ns=WINDOW.leaves_ns(slot), change=2**64)] * 3) is None
    assert [lease.amount for lease in ledger.lease(request(1, slot), request(1, slot, "y"))] == [0, 1]


def test_what_the_driver_cannot_take_fails_its_own_question_only(open_sqlite: OpenSqlite, clock: FakeClock) -> None:
    slot = WINDOW.slot(clock.wall_ns())
    ledger = open_sqlite()
    assert isinstance(ledger.try_lease([request(1, slot, "user=\ud800")]), StorageError)
    assert ledger.lease(request(1, slot))[0].amount == 1


def test_many_may_create_one_ledger_in_the_same_instant(tmp_path: Path, clock: FakeClock) -> None:
    """Workers that start together do; SQLite alone then answers "locked" at once, about one time in forty."""
    for round_number in range(20):
        folder = tmp_path / str(round_number)
        folder.mkdir()
        together = Barrier(6)

        def open_one(holder: int, folder: Path = folder, together: Barrier = together) -> None:
            together.wait()
            SqliteLedger(folder / "ledger.sqlite", f"h{holder}", clock, lambda call: call()).close()

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(open_one, range(6)))
