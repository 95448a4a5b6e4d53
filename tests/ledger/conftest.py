"""Ledgers to test: asked from the test's thread, answered before the question returns."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.errors import StorageError
from holdfast.execution.ledger import Lease, LeaseRequest, Ledger, Remains, Use
from holdfast.ledger.postgresql import PostgresqlLedger
from holdfast.ledger.sqlite import SqliteLedger
from holdfast.policy.allowance import Window
from holdfast.testing import FakeClock
from holdfast.testing.ledger import AccountRows, MemoryLedger, Told


class Asked:
    """A ledger and the way to hear from it at once."""

    def __init__(self, ledger: Ledger, hear: Callable[[], None]) -> None:
        self.ledger = ledger
        self._hear = hear

    def try_lease(self, requests: Sequence[LeaseRequest]) -> Sequence[Lease] | StorageError:
        return self._answer(partial(self.ledger.lease, requests))

    def lease(self, *requests: LeaseRequest) -> Sequence[Lease]:
        answer = self.try_lease(requests)
        assert not isinstance(answer, StorageError), answer
        return answer

    def report(self, *uses: Use) -> StorageError | None:
        return self._answer(partial(self.ledger.report, uses))

    def recover(self, *remains: Remains) -> StorageError | None:
        return self._answer(partial(self.ledger.recover, remains))

    def tell(self, account: str, mark: int, slot: int) -> bool | StorageError:
        return self._answer(partial(self.ledger.tell, account, mark, slot, Window.of(3600 * SECOND).leaves_ns(slot)))

    def probe(self) -> StorageError | None:
        return self._answer(self.ledger.probe)

    def _answer(self, ask: Callable[[Callable[[Any], None]], None]) -> Any:
        answers: list[Any] = []
        ask(answers.append)
        while not answers:
            self._hear()
        return answers[0]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def open_sqlite(tmp_path: Path, clock: FakeClock) -> Iterator[Callable[..., Asked]]:
    opened: list[SqliteLedger] = []

    def open_one(holder: str = "a", **options: Any) -> Asked:
        calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        ledger = SqliteLedger(tmp_path / "ledger.sqlite", holder, clock, calls.put, **options)
        opened.append(ledger)
        return Asked(ledger, lambda: calls.get(timeout=30)())  # noqa: PLW0108 - the inner call waits, so it must be made anew

    yield open_one
    for ledger in opened:
        ledger.close()


@pytest.fixture
def open_postgresql(clock: FakeClock, postgresql: Any) -> Iterator[Callable[..., Asked]]:
    opened: list[PostgresqlLedger] = []
    url = postgresql.new_database()

    def open_one(holder: str = "a", **options: Any) -> Asked:
        calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        ledger = PostgresqlLedger(url, holder, clock, calls.put, **options)
        opened.append(ledger)
        return Asked(ledger, lambda: calls.get(timeout=30)())  # noqa: PLW0108 - the inner call waits, so it must be made anew

    yield open_one
    for ledger in opened:
        ledger.close()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def open_ledger(request: pytest.FixtureRequest, clock: FakeClock) -> Callable[[str], Asked]:
    """Opens a ledger for a holder; all of one test share their storage."""
    if request.param != "memory":
        opener: Callable[[str], Asked] = request.getfixturevalue(f"open_{request.param}")
        return opener
    rows: AccountRows = {}
    told: Told = {}
    return lambda holder: Asked(MemoryLedger(clock, holder, rows=rows, told=told), lambda: clock.advance(0))
