"""Processes with their limits, all in one thread under one clock."""

from collections.abc import Sequence

import pytest

from holdfast.execution.limiter import Ask, Limiter, Outcome, Reservation
from holdfast.execution.watch import Notice
from holdfast.policy.limit import Limit, LimitReached
from holdfast.testing import FakeClock
from holdfast.testing.ledger import MemoryLedger, MemorySlate

NOTHING = Ask(usd_least=0, usd_most=0)


class World:
    """Processes under one clock, on one ledger."""

    def __init__(self, processes: int = 1) -> None:
        self.clock = FakeClock()
        self.marks: list[tuple[str, int, int]] = []
        self.forecasts: list[Notice] = []
        self.ledgers = [MemoryLedger(self.clock, "process 0")]
        first = self.ledgers[0]
        self.ledgers += [MemoryLedger(self.clock, f"process {at}", rows=first.rows, told=first.told) for at in range(1, processes)]
        self.slates = [MemorySlate() for _ in self.ledgers]
        self.limiters = [Limiter(ledger, self.clock, slate, self._noticed) for ledger, slate in zip(self.ledgers, self.slates, strict=True)]
        self.limiter, self.ledger = self.limiters[0], self.ledgers[0]

    def _noticed(self, notice: Notice) -> None:
        if notice.mark is None:
            self.forecasts.append(notice)
        else:
            self.marks.append((notice.value, notice.mark, notice.spent))

    def ask(self, charges: Sequence[tuple[Limit, str]], ask: Ask = NOTHING, times: int = 1, process: int = 0) -> list[Outcome]:
        """What `times` concurrent calls hear, once the ledger has answered."""
        heard: list[Outcome] = []
        for _ in range(times):
            self.limiters[process].reserve(charges, ask, heard.append)
        self.settle_down()
        return heard

    def settle_down(self) -> None:
        for _ in range(4):
            self.clock.advance(self.ledger.delay_ns)

    def reserve(self, charges: Sequence[tuple[Limit, str]], ask: Ask = NOTHING) -> Reservation:
        (outcome,) = self.ask(charges, ask)
        assert isinstance(outcome, Reservation)
        return outcome

    def refuse(self, charges: Sequence[tuple[Limit, str]], ask: Ask = NOTHING) -> LimitReached:
        (outcome,) = self.ask(charges, ask)
        assert isinstance(outcome, LimitReached)
        return outcome


@pytest.fixture(scope="session")
def new_world() -> type[World]:
    """Builds one: `new_world(processes=2)`."""
    return World
