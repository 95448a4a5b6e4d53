"""The interface to the ledger: what each limit has left, kept across processes, restarts and crashes.

`holdfast.ledger.sqlite` implements it on a file, `holdfast.testing.ledger` in memory.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from holdfast.errors import StorageError
from holdfast.policy.allowance import Rows


class LeaseRequest(Struct, frozen=True, kw_only=True):
    """Grant up to need + ahead of `account` by the rule of `policy.allowance.granted`.

    first, last: count the slots from `first - 60` on, charge the grant to `last`. leaves_ns: wall time when `last` stops to count.
    """

    account: str
    first: int
    last: int
    leaves_ns: int
    limit: int
    need: int
    least: int
    ahead: int


class Lease(Struct, frozen=True):
    """amount: granted, and durable as spent before anybody hears of it. rows: what the account held before it."""

    amount: int
    rows: Rows


class Use(Struct, frozen=True, kw_only=True):
    """Change the holder's row of (account, slot) by `change`: below zero gives back what was not used, above zero adds an overrun."""

    account: str
    slot: int
    leaves_ns: int
    change: int


class Ledger(Protocol):
    """Requests are carried out in the order in which they came; each `done` is called later, on the caller's own thread."""

    def lease(self, requests: Sequence[LeaseRequest], done: Callable[[Sequence[Lease] | StorageError], None]) -> None:
        """Grant all requests in one durable transaction; answers in the same order. After an error whatever was granted counts as spent."""

    def report(self, uses: Sequence[Use], done: Callable[[StorageError | None], None]) -> None:
        """Write what was used. After an error additions are repeated by the ledger; what was given back stays counted as spent."""

    def close(self) -> None:
        """Carry out what was asked, then let go of the storage; may block. No `done` is called any more."""
