"""The ledger on a SQLite file: one thread, one queue, one durable transaction for whatever was asked meanwhile."""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    case,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from holdfast.clock import MILLISECOND, SECOND, Clock
from holdfast.errors import StorageError
from holdfast.execution.ledger import Lease, LeaseRequest, Use
from holdfast.policy.allowance import SLOTS, Rows, granted

VERSION = 1
PRUNE_NS = 600 * SECOND
KEEP_NS = 3600 * SECOND
"""How long a slot is kept after it has left its window: a wall clock that steps back by less still finds all that counts."""
MOST_ADDED = 1 << 53
"""What one overrun counts for at most, nine million dollars: a provider that reports nonsense must not overflow SQLite's integers."""

Post = Callable[[Callable[[], None]], object]

_tables = MetaData()
_version = Table("ledger_version", _tables, Column("version", Integer, primary_key=True, autoincrement=False))
_spent = Table(
    "spent",
    _tables,
    Column("account", String, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("holder", String, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("leaves_ns", BigInteger, nullable=False),
    Index("spent_leaves_ns", "leaves_ns"),
    sqlite_with_rowid=False,
)
_of_others = case((_spent.c.holder == bindparam("holder"), 0), else_=_spent.c.amount)
_COUNTED = (
    select(_spent.c.slot, func.sum(_spent.c.amount), func.sum(_of_others))
    .where(_spent.c.account == bindparam("account"), _spent.c.slot >= bindparam("from_slot"), _spent.c.amount > 0)
    .group_by(_spent.c.slot)
    .order_by(_spent.c.slot)
)
_row = upsert(_spent)
_ADD = _row.on_conflict_do_update(index_elements=_spent.primary_key.columns, set_={"amount": _spent.c.amount + _row.excluded.amount})
_rest = _spent.c.amount - bindparam("back")
_GIVE_BACK = (
    update(_spent)
    .where(_spent.c.account == bindparam("of"), _spent.c.slot == bindparam("in_slot"), _spent.c.holder == bindparam("by"))
    .values(amount=case((_rest > 0, _rest), else_=0))
)
_PRUNE = delete(_spent).where(_spent.c.leaves_ns < bindparam("before_ns"))


class SqliteLedger:
    """A `holdfast.execution.ledger.Ledger` on the file `path`, created on first use.

    holder: unique per process start: nobody gives back what another has spent. post: brings a call to the caller's thread
    (`loop.call_soon_threadsafe`). busy_ns: how long to wait for the transactions of other processes.
    Raises StorageError when the file cannot be opened, read or written.
    """

    def __init__(self, path: Path, holder: str, clock: Clock, post: Post, *, busy_ns: int = 10 * SECOND) -> None:
        self._path = path
        self._holder = holder
        self._clock = clock
        self._post = post
        self._engine = _engine(path, busy_ns)
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._unwritten: list[Use] = []
        self._pruned_ns = 0
        self._closed = False
        with suppress(OSError):  # SQLite says better what is wrong with the place
            path.touch(mode=0o600)  # who spent what is nobody else's; the files beside it get the same mode
        with _opened_by_one(path.parent), _translated(path), self._engine.begin() as connection:
            _create(connection, path)
        self._thread = Thread(target=self._work, name="holdfast-ledger", daemon=True)
        self._thread.start()

    def lease(self, requests: Sequence[LeaseRequest], done: Callable[[Sequence[Lease] | StorageError], None]) -> None:
        self._queue.put(_Job(requests=requests, done=done))

    def report(self, uses: Sequence[Use], done: Callable[[StorageError | None], None]) -> None:
        self._queue.put(_Job(uses=uses, done=lambda answer: done(answer if isinstance(answer, StorageError) else None)))

    def close(self) -> None:
        """Carry out what was asked, then close the file; blocks for it. No `done` is called any more."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        connection: Connection | None = None
        open_for_more = True
        while open_for_more:
            jobs = self._gather()
            open_for_more = None not in jobs
            batch = [job for job in jobs if job is not None]
            answers: Sequence[Sequence[Lease] | StorageError]
            try:
                with _translated(self._path):
                    connection = connection or self._engine.connect()
                    answers = self._carry_out(connection, batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, this thread goes on, and those who wait hear of it
                failure = error if isinstance(error, StorageError) else StorageError(_explain(self._path, repr(error)))
                answers = [failure] * len(batch)
                if connection is not None:
                    connection.invalidate()
                    connection.close()
                    connection = None
            for job, answer in zip(batch, answers, strict=True):
                self._tell(job, answer)
        if connection is not None:
            connection.close()

    def _gather(self) -> "list[_Job | None]":
        """Wait for a job and take along all that queued up behind it."""
        jobs = [self._queue.get()]
        with suppress(Empty):
            while jobs[-1] is not None:
                jobs.append(self._queue.get_nowait())
        return jobs

    def _carry_out(self, connection: Connection, jobs: "list[_Job]") -> Sequence[Sequence[Lease]]:
        """One transaction. What it may not have written is kept: additions after any failure, for to count twice is the safe side;
        what is given back only when the transaction never began."""
        late = self._unwritten
        self._unwritten = late + [use for job in jobs for use in job.uses]
        with connection.begin():
            self._unwritten = [use for use in self._unwritten if use.change > 0]
            self._prune(connection)
            self._write(connection, late)
            answers = [self._answer(connection, job) for job in jobs]
        self._unwritten = []
        return answers

    def _answer(self, connection: Connection, job: "_Job") -> list[Lease]:
        self._write(connection, job.uses)
        return [self._grant(connection, request) for request in job.requests]

    def _grant(self, connection: Connection, request: LeaseRequest) -> Lease:
        of = {"account": request.account, "from_slot": request.first - SLOTS, "holder": self._holder}
        counted = connection.execute(_COUNTED, of).all()
        rows = Rows(tuple((slot, amount) for slot, amount, _ in counted), sum(of_others for _, _, of_others in counted))
        amount = granted(request.limit, rows.used, request.need, request.least, request.ahead)
        if amount:
            connection.execute(_ADD, self._row(request.account, request.last, amount, request.leaves_ns))
        return Lease(amount, rows)

    def _write(self, connection: Connection, uses: Sequence[Use]) -> None:
        added = [self._row(use.account, use.slot, min(use.change, MOST_ADDED), use.leaves_ns) for use in uses if use.change > 0]
        if added:
            connection.execute(_ADD, added)
        back = [{"of": use.account, "in_slot": use.slot, "by": self._holder, "back": -use.change} for use in uses if use.change < 0]
        if back:
            connection.execute(_GIVE_BACK, back)

    def _row(self, account: str, slot: int, amount: int, leaves_ns: int) -> dict[str, Any]:
        return {"account": account, "slot": slot, "holder": self._holder, "amount": amount, "leaves_ns": leaves_ns}

    def _prune(self, connection: Connection) -> None:
        now = self._clock.wall_ns()
        if abs(now - self._pruned_ns) >= PRUNE_NS:
            self._pruned_ns = now
            connection.execute(_PRUNE, {"before_ns": now - KEEP_NS})

    def _tell(self, job: "_Job", answer: Sequence[Lease] | StorageError) -> None:
        with suppress(RuntimeError):  # the loop is gone, and with it whoever asked
            self._post(partial(self._told, job, answer))

    def _told(self, job: "_Job", answer: Sequence[Lease] | StorageError) -> None:
        if not self._closed:
            job.done(answer)


def read_spent(path: Path, wall_ns: int) -> dict[str, int]:
    """What every account holds in the window that ends at `wall_ns`, leased slices included; {} when there is no ledger yet.

    Raises StorageError when the file cannot be read.
    """
    if not path.exists():
        return {}
    in_window = select(_spent.c.account, func.sum(_spent.c.amount)).where(_spent.c.leaves_ns > wall_ns).group_by(_spent.c.account)
    with _translated(path), _engine(path, SECOND).connect() as connection:
        return {account: amount for account, amount in connection.execute(in_window) if amount}


class _Job(Struct, frozen=True, kw_only=True):
    """What one call asked: its uses are written before its requests are granted."""

    requests: Sequence[LeaseRequest] = ()
    uses: Sequence[Use] = ()
    done: Callable[[Sequence[Lease] | StorageError], None]


def _engine(path: Path, busy_ns: int) -> Engine:
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would be a deferred one
        for pragma in (f"busy_timeout={busy_ns // MILLISECOND}", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def _opened_by_one(folder: Path) -> Iterator[None]:
    """Lets one process after the other open its ledger: SQLite does not wait, whatever its busy_timeout, for a switch to WAL by another."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # SQLite says better what is wrong with the place
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create(connection: Connection, path: Path) -> None:
    _tables.create_all(connection)
    version = connection.execute(select(func.max(_version.c.version))).scalar()
    if version is None:
        connection.execute(insert(_version), {"version": VERSION})
    elif version > VERSION:
        raise StorageError(f"The ledger {path} was written by a newer Holdfast (its version {version}); update this one.")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The driver's errors as ours, each with its way out."""
    try:
        yield
    except DBAPIError as error:
        raise StorageError(_explain(path, str(error.orig))) from error


def _explain(path: Path, cause: str) -> str:
    if "locked" in cause or "busy" in cause:
        return f"The ledger {path} stayed locked by another program; close what holds it open (a backup, a database shell)."
    if "not a database" in cause or "malformed" in cause:
        return f"The ledger {path} is damaged ({cause}); restore it from a backup, or move it away to start with nothing spent."
    if "full" in cause:
        return f"The ledger {path} cannot be written because the disk is full; free some space."
    if "readonly" in cause or "unable to open" in cause:
        return f"The ledger {path} cannot be written ({cause}); check that its folder exists and belongs to this user."
    return f"The ledger {path} failed ({cause}); check the disk that it lies on."
