import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.errors import ConfigError, StorageError
from holdfast.execution.ledger import Lease, LeaseRequest
from holdfast.ledger.postgresql import PostgresqlLedger, _Postgresql, read_spent
from holdfast.policy.allowance import FOREVER_NS, Rows
from holdfast.testing import FakeClock

# A process that makes calls against a limit of 1,000, twenty at once, and says how many it was granted.
CALLER = """
import asyncio, sys
from holdfast.system_clock import SystemClock
from holdfast.execution.limiter import Ask, Limiter, Reservation
from holdfast.ledger.postgresql import PostgresqlLedger
from holdfast.policy.limit import Limit
from holdfast.testing.ledger import MemorySlate

async def main():
    ledger = PostgresqlLedger(sys.argv[1], sys.argv[2], SystemClock(), asyncio.get_running_loop().call_soon_threadsafe)
    limiter = Limiter(ledger, SystemClock(), MemorySlate())
    limit = Limit(scope="all", unit="calls", amount=1000)
    granted = 0
    for _ in range(40):
        batch = [asyncio.get_running_loop().create_future() for _ in range(20)]
        for future in batch:
            limiter.reserve([(limit, "")], Ask(usd_least=0, usd_most=0), future.set_result)
        granted += sum(isinstance(outcome, Reservation) for outcome in await asyncio.gather(*batch))
    print(granted)
    closed = asyncio.get_running_loop().create_future()
    limiter.close(closed.set_result)
    await closed
    ledger.close()

asyncio.run(main())
"""


def request(need: int, account: str = "x") -> LeaseRequest:
    return LeaseRequest(account=account, first=0, last=0, leaves_ns=FOREVER_NS, limit=100, need=need, least=1, ahead=0)


def test_processes_that_share_a_database_are_granted_the_limit_together_and_no_call_more(postgresql: Any) -> None:
    url = postgresql.new_database()
    command = [sys.executable, "-c", CALLER, url]
    processes = [subprocess.Popen([*command, f"holder {at}"], stdout=subprocess.PIPE, text=True) for at in range(3)]
    total = 0
    for process in processes:
        out, _ = process.communicate()
        assert process.returncode == 0
        total += int(out)
    assert 950 <= total <= 1_000
    assert read_spent(url, 0) == {"|all=|calls|total": total}


def test_a_burst_of_more_accounts_than_a_server_has_locks_for_is_locked_all_the_same(postgresql: Any) -> None:
    dialect = _Postgresql(postgresql.new_database(), 10 * SECOND)
    with dialect.engine.begin() as connection:
        dialect.lock(connection, [f"user {at}" for at in range(50_000)])
        dialect.lock(connection, ["user 7"])


def test_a_server_that_is_restarted_between_two_questions_costs_no_error(open_postgresql: Callable[..., Any], postgresql: Any) -> None:
    ledger = open_postgresql()
    assert ledger.lease(request(60)) == [Lease(60, Rows((), 0))]
    postgresql.stop()
    postgresql.start()
    assert ledger.lease(request(60)) == [Lease(40, Rows(((0, 60),), 0, 60))]


def test_a_server_that_is_away_is_an_error_of_each_question_until_it_is_back(open_postgresql: Callable[..., Any], postgresql: Any) -> None:
    postgresql.stop()
    ledger = open_postgresql()
    refused = ledger.try_lease([request(1)])
    assert isinstance(refused, StorageError)
    assert "cannot be reached" in str(refused)
    assert isinstance(ledger.probe(), StorageError)
    postgresql.start()
    assert ledger.probe() is None
    assert ledger.lease(request(1))[0].amount == 1


def test_a_password_stands_in_no_message(postgresql: Any, clock: FakeClock) -> None:
    url = postgresql.new_database().replace("holdfast@", "nobody:s3cret-word@")
    with pytest.raises(StorageError, match="refuses this user") as raised:
        PostgresqlLedger(url, "a", clock, lambda call: call(), lazy=False)
    assert "s3cret-word" not in str(raised.value)


@pytest.mark.parametrize("url", ["nonsense", "postgresql://a:b@host:port/x"])
def test_what_is_no_url_is_said_to_be_none_without_repeating_it(url: str, clock: FakeClock) -> None:
    with pytest.raises(ConfigError, match="expected postgresql://user:password@host/database") as raised:
        PostgresqlLedger(url, "a", clock, lambda call: call())
    assert url not in str(raised.value)
