"""The ledger in an SQL database: one thread, one queue, one durable transaction for whatever was asked meanwhile.

What differs from database to database (how to connect, to upsert, to lock, to say what is wrong) is a `Dialect`: one file each.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol

from msgspec import Struct
from sqlalchemy import (
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
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from holdfast.clock import SECOND, Clock
from holdfast.errors import StorageError
from holdfast.execution.ledger import Lease, LeaseRequest, Remains, Use, row_digest
from holdfast.policy.allowance import SLOTS, Rows, granted

VERSION = 1
PRUNE_NS = 600 * SECOND
KEEP_NS = 3600 * SECOND
"""How long a slot is kept after it has left its window: a wall clock that steps back by less still finds all that counts."""
MOST_ADDED = 1 << 53
"""What one overrun counts for at most, nine million dollars: a provider that reports nonsense must not overflow a database's integers."""
NOBODY = ""
"""Holder of what nobody can give back any more: totals of holders that ended."""

Post = Callable[[Callable[[], None]], object]
Answer = Any
"""What the asked function of `Ledger` hands to its `done`, or a StorageError."""

tables = MetaData()
_version = Table("ledger_version", tables, Column("version", Integer, primary_key=True, autoincrement=False))
spent = Table(
    "spent",
    tables,
    Column("account", String, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("holder", String, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("leaves_ns", BigInteger, nullable=False),
    Index("spent_leaves_ns", "leaves_ns"),
    sqlite_with_rowid=False,
)
told = Table(
    "told",
    tables,
    Column("account", String, primary_key=True),
    Column("mark", BigInteger, primary_key=True),
    Column("slot", BigInteger, nullable=False),
    Column("leaves_ns", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
_of_others = case((spent.c.holder == bindparam("holder"), 0), else_=spent.c.amount)
_COUNTED = (
    select(spent.c.slot, func.sum(spent.c.amount), func.sum(_of_others))
    .where(spent.c.account == bindparam("account"), spent.c.slot >= bindparam("from_slot"), spent.c.amount > 0)
    .group_by(spent.c.slot)
    .order_by(spent.c.slot)
)
_this_row = (spent.c.account == bindparam("of"), spent.c.slot == bindparam("in_slot"), spent.c.holder == bindparam("by"))
_rest = spent.c.amount - bindparam("back")
_GIVE_BACK = update(spent).where(*_this_row).values(amount=case((_rest > 0, _rest), else_=0))
_SET = update(spent).where(*_this_row).values(amount=bindparam("used"))
_HELD = (
    select(spent.c.account, spent.c.slot, spent.c.amount, spent.c.leaves_ns)
    .where(spent.c.holder == bindparam("by"))
    .order_by(spent.c.account, spent.c.slot)
)
_DROP_TOTALS = delete(spent).where(spent.c.holder == bindparam("by"), spent.c.slot == 0)
_TOLD = select(told.c.slot).where(told.c.account == bindparam("account"), told.c.mark == bindparam("mark"))
_TOUCH = update(_version).values(version=_version.c.version)


class Dialect(Protocol):
    """One database. where: the ledger for people, without secrets. insert: the dialect's INSERT with `on_conflict_do_update`."""

    where: str
    engine: Engine
    insert: Callable[..., Any]

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Around the creation of the tables: lets one process after the other do it."""

    def connected(self, connection: Connection) -> bool:
        """Whether a connection that was used before still stands."""

    def lock(self, connection: Connection, accounts: Sequence[str]) -> None:
        """Keep others from granting of these accounts until the transaction's end."""

    def prune(self, connection: Connection, table: Table, before_ns: int) -> None:
        """Delete what left its window before, without waiting for anybody."""

    def explain(self, cause: str) -> str:
        """One sentence: what is wrong, and the way out."""


class DatabaseLedger:
    """A `holdfast.execution.ledger.Ledger` in a database; its tables are created on first use.

    holder: unique per process start: nobody gives back what another has spent. post: brings a call to the caller's thread
    (`loop.call_soon_threadsafe`). lazy: a database that cannot be reached is no error at the start, but of every question until it can.
    Raises StorageError when the database cannot be opened, read or written.
    """

    def __init__(self, dialect: Dialect, holder: str, clock: Clock, post: Post, *, lazy: bool = False) -> None:
        self._dialect = dialect
        self._holder = holder
        self._clock = clock
        self._post = post
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._unwritten: list[Use] = []
        self._pruned_ns = 0
        self._closed = False
        self._created = False
        self._connection: Connection | None = None
        row = dialect.insert(spent)
        keys = spent.primary_key.columns
        changed = {"amount": spent.c.amount + row.excluded.amount, "leaves_ns": row.excluded.leaves_ns}
        self._add = row.on_conflict_do_update(index_elements=keys, set_=changed)
        mark = dialect.insert(told)
        self._tell = mark.on_conflict_do_update(
            index_elements=told.primary_key.columns, set_={"slot": mark.excluded.slot, "leaves_ns": mark.excluded.leaves_ns}
        )
        if not lazy:
            self._create()
        self._thread = Thread(target=self._work, name="holdfast-ledger", daemon=True)
        self._thread.start()

    def lease(self, requests: Sequence[LeaseRequest], done: Callable[[Sequence[Lease] | StorageError], None]) -> None:
        accounts = [request.account for request in requests]
        self._queue.put(_Job(lambda connection: [self._grant(connection, request) for request in requests], done, accounts=accounts))

    def report(self, uses: Sequence[Use], done: Callable[[StorageError | None], None]) -> None:
        self._queue.put(_Job(lambda connection: None, done, uses=uses))

    def probe(self, done: Callable[[StorageError | None], None]) -> None:
        def touch(connection: Connection) -> None:
            connection.execute(_TOUCH)

        self._queue.put(_Job(touch, done))

    def tell(self, account: str, mark: int, slot: int, leaves_ns: int, done: Callable[[bool | StorageError], None]) -> None:
        def claim(connection: Connection) -> bool:
            told_in = connection.execute(_TOLD, {"account": account, "mark": mark}).scalar()
            if told_in is not None and slot <= told_in + SLOTS:
                return False
            connection.execute(self._tell, {"account": account, "mark": mark, "slot": slot, "leaves_ns": leaves_ns})
            return True

        self._queue.put(_Job(claim, done, accounts=[account]))

    def recover(self, remains: Sequence[Remains], done: Callable[[StorageError | None], None]) -> None:
        def settle(connection: Connection) -> None:
            for each in remains:
                self._settle_dead(connection, each)
            self._fold_totals(connection, [each.holder for each in remains])

        self._queue.put(_Job(settle, done))

    def close(self) -> None:
        """Carry out what was asked, then close the database; blocks for it. No `done` is called any more."""
        if not self._closed:
            self._closed = True
            self._queue.put(_Job(lambda connection: self._fold_totals(connection, [self._holder]), lambda answer: None))
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        open_for_more = True
        while open_for_more:
            jobs = self._gather()
            open_for_more = None not in jobs
            batch = [job for job in jobs if job is not None]
            answers: Sequence[Answer]
            try:
                with translated(self._dialect):
                    answers = self._carry_out(self._connected(), batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, this thread goes on, and those who wait hear of it
                failure = error if isinstance(error, StorageError) else StorageError(self._dialect.explain(repr(error)))
                answers = [failure] * len(batch)
                self._disconnect()
            for job, answer in zip(batch, answers, strict=True):
                self._answer(job, answer)
        self._disconnect()

    def _gather(self) -> "list[_Job | None]":
        """Wait for a job and take along all that queued up behind it."""
        jobs = [self._queue.get()]
        with suppress(Empty):
            while jobs[-1] is not None:
                jobs.append(self._queue.get_nowait())
        return jobs

    def _connected(self) -> Connection:
        if not self._created:
            self._create()
        if self._connection is not None and not self._dialect.connected(self._connection):
            self._disconnect()
        if self._connection is None:
            self._connection = self._dialect.engine.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(DBAPIError):
                connection.invalidate()
                connection.close()

    def _create(self) -> None:
        with self._dialect.opening(), translated(self._dialect), self._dialect.engine.begin() as connection:
            tables.create_all(connection)
            version = connection.execute(select(func.max(_version.c.version))).scalar()
            if version is None:
                connection.execute(insert(_version), {"version": VERSION})
            elif version > VERSION:
                raise StorageError(f"{self._dialect.where} was written by a newer Holdfast (its version {version}); update this one.")
        self._created = True

    def _carry_out(self, connection: Connection, jobs: "list[_Job]") -> Sequence[Answer]:
        """One transaction. What it may not have written is kept: additions after any failure, for to count twice is the safe side;
        what is given back only when the transaction never began."""
        late = self._unwritten
        self._unwritten = late + [use for job in jobs for use in job.uses]
        with connection.begin():
            self._dialect.lock(connection, sorted({account for job in jobs for account in job.accounts}))
            self._unwritten = [use for use in self._unwritten if use.change > 0]
            self._prune(connection)
            self._write(connection, late)
            answers = []
            for job in jobs:
                self._write(connection, job.uses)
                answers.append(job.work(connection))
        self._unwritten = []
        return answers

    def _grant(self, connection: Connection, request: LeaseRequest) -> Lease:
        of = {"account": request.account, "from_slot": request.first - SLOTS, "holder": self._holder}
        counted = [(slot, int(amount), int(of_others)) for slot, amount, of_others in connection.execute(_COUNTED, of)]
        rows = Rows(
            tuple((slot, amount) for slot, amount, _ in counted),
            sum(of_others for _, _, of_others in counted),
            sum(amount - of_others for slot, amount, of_others in counted if slot == request.last),
        )
        amount = granted(request.limit, rows.used, request.need, request.least, request.ahead)
        if amount:
            connection.execute(self._add, self._row(request.account, request.last, amount, request.leaves_ns))
        return Lease(amount, rows)

    def _write(self, connection: Connection, uses: Sequence[Use]) -> None:
        added = [self._row(use.account, use.slot, min(use.change, MOST_ADDED), use.leaves_ns) for use in uses if use.change > 0]
        if added:
            connection.execute(self._add, added)
        back = [{"of": use.account, "in_slot": use.slot, "by": self._holder, "back": -use.change} for use in uses if use.change < 0]
        if back:
            connection.execute(_GIVE_BACK, back)

    def _row(self, account: str, slot: int, amount: int, leaves_ns: int) -> dict[str, Any]:
        return {"account": account, "slot": slot, "holder": self._holder, "amount": amount, "leaves_ns": leaves_ns}

    def _settle_dead(self, connection: Connection, remains: Remains) -> None:
        used = remains.used or {}
        for account, slot, amount, _ in connection.execute(_HELD, {"by": remains.holder}).all():
            known = used.get(row_digest(account, slot), amount)
            if known != amount:
                connection.execute(_SET, {"of": account, "in_slot": slot, "by": remains.holder, "used": known})

    def _fold_totals(self, connection: Connection, holders: Sequence[str]) -> None:
        """What never leaves its window would otherwise keep one row for every process that ever ran.

        In the order of the accounts, over all holders: two processes that do it at once must not wait for each other.
        """
        held = sorted(row for holder in holders for row in connection.execute(_HELD, {"by": holder}).all())
        for account, slot, amount, leaves_ns in held:
            if slot == 0 and amount:
                connection.execute(self._add, self._row(account, slot, amount, leaves_ns) | {"holder": NOBODY})
        for holder in holders:
            connection.execute(_DROP_TOTALS, {"by": holder})

    def _prune(self, connection: Connection) -> None:
        now = self._clock.wall_ns()
        if abs(now - self._pruned_ns) >= PRUNE_NS:
            self._pruned_ns = now
            for table in (spent, told):
                self._dialect.prune(connection, table, now - KEEP_NS)

    def _answer(self, job: "_Job", answer: Answer) -> None:
        with suppress(RuntimeError):  # the loop is gone, and with it whoever asked
            self._post(partial(self._answered, job, answer))

    def _answered(self, job: "_Job", answer: Answer) -> None:
        if not self._closed:
            job.done(answer)


class _Job(Struct, frozen=True):
    """What one call asked: its uses are written before its work is done. accounts: those that it grants of."""

    work: Callable[[Connection], Answer]
    done: Callable[[Answer], None]
    uses: Sequence[Use] = ()
    accounts: Sequence[str] = ()


@contextmanager
def translated(dialect: Dialect) -> Iterator[None]:
    """The driver's errors as ours, each with its way out."""
    try:
        yield
    except DBAPIError as error:
        raise StorageError(dialect.explain(str(error.orig))) from error


def read_spent(dialect: Dialect, wall_ns: int) -> dict[str, int]:
    """What every account holds in the window that ends at `wall_ns`, leased slices included; raises StorageError."""
    in_window = select(spent.c.account, func.sum(spent.c.amount)).where(spent.c.leaves_ns > wall_ns).group_by(spent.c.account)
    with translated(dialect), dialect.engine.connect() as connection:
        return {account: int(amount) for account, amount in connection.execute(in_window) if amount}
