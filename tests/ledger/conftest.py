"""Ledgers to test: asked from the test's thread, answered before the question returns."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from holdfast.errors import StorageError
from holdfast.execution.ledger import Lease, LeaseRequest, Ledger, Use
from holdfast.ledger.sqlite import SqliteLedger
from holdfast.testing import FakeClock
from holdfast.testing.ledger import AccountRows, MemoryLedger


class Asked:
    """A ledger and the way to hear from it at once."""

    def __init__(self, ledger: Ledger, hear: Callable[[], None]) -> None:
        self.ledger = ledger
        self._hear = hear

    def try_lease(self, requests: Sequence[LeaseRequest]) -> Sequence[Lease] | StorageError:
        answers: list[Sequence[Lease] | StorageError] = []
        self.ledger.lease(requests, answers.append)
        while not answers:
            self._hear()
        return answers[0]

    def lease(self, *requests: LeaseRequest) -> Sequence[Lease]:
        answer = self.try_lease(requests)
        assert not isinstance(answer, StorageError)
        return answer

    def report(self, *uses: Use) -> StorageError | None:
        answers: list[StorageError | None] = []
        self.ledger.report(uses, answers.append)
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


@pytest.fixture(params=["memory", "sqlite"])
def open_ledger(request: pytest.FixtureRequest, clock: FakeClock, open_sqlite: Callable[..., Asked]) -> Callable[[str], Asked]:
    """Opens a ledger for a holder; all of one test share their storage."""
    rows: AccountRows = {}

    def open_memory(holder: str) -> Asked:
        return Asked(MemoryLedger(clock, holder, rows=rows), lambda: clock.advance(0))

    return open_memory if request.param == "memory" else open_sqlite
