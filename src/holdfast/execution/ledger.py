"""The interface to the ledger: what each limit has left, kept across processes, restarts and crashes.

`holdfast.ledger.sqlite` implements it on a file, `holdfast.testing.ledger` in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol

from msgspec import Struct

from holdfast.errors import StorageError
from holdfast.policy.allowance import Cells, Rows


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


class Remains(Struct, frozen=True):
    """What a dead holder left. used: by `row_digest`, all that its calls took of a slice less what they gave back; of a slice that is not
    in it the whole grant counts as spent. None: nothing is known, everything that it leased counts as spent."""

    holder: str
    used: Mapping[bytes, int] | None


def row_digest(account: str, slot: int) -> bytes:
    """16 bytes that name a slice."""
    return blake2b(f"{slot}|{account}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Slate(Protocol):
    """Where a process keeps what it has used of each slice, so that it can be read after its end, however it came."""

    def open(self, account: str, slot: int, used: int) -> tuple[Cells, int]:
        """A place for one slice: its number `at` in a sequence of integers. Never fails: what cannot be kept counts as spent later."""

    def close(self, account: str, slot: int, cells: Cells, at: int) -> None:
        """The ledger knows all of it; the place may be used for another slice."""


class Ledger(Protocol):
    """Requests are carried out in the order in which they came; each `done` is called later, on the caller's own thread."""

    def lease(self, requests: Sequence[LeaseRequest], done: Callable[[Sequence[Lease] | StorageError], None]) -> None:
        """Grant all requests in one durable transaction; answers in the same order. After an error whatever was granted counts as spent."""

    def report(self, uses: Sequence[Use], done: Callable[[StorageError | None], None]) -> None:
        """Write what was used. After an error additions are repeated by the ledger; what was given back stays counted as spent."""

    def probe(self, done: Callable[[StorageError | None], None]) -> None:
        """Find out whether it can be written, by a write."""

    def tell(self, account: str, mark: int, slot: int, leaves_ns: int, done: Callable[[bool | StorageError], None]) -> None:
        """Whether the mark is to be told: True for the first that asks while none of the 60 slots before `slot` was told of it."""

    def recover(self, remains: Sequence[Remains], done: Callable[[StorageError | None], None]) -> None:
        """Settle what dead holders left: only what they used stays spent."""

    def close(self) -> None:
        """Carry out what was asked, then let go of the storage; may block. No `done` is called any more."""
