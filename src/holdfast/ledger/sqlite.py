"""The ledger on a SQLite file: the default, for everything that runs on one machine."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, delete, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.pool import NullPool

from holdfast.clock import MILLISECOND, SECOND, Clock
from holdfast.ledger import database
from holdfast.ledger.database import DatabaseLedger, Post


class SqliteLedger(DatabaseLedger):
    """A `holdfast.execution.ledger.Ledger` on the file `path`, created on first use.

    holder, post, lazy: see `DatabaseLedger`. busy_ns: how long to wait for the transactions of other processes.
    """

    def __init__(self, path: Path, holder: str, clock: Clock, post: Post, *, busy_ns: int = 10 * SECOND, lazy: bool = False) -> None:
        super().__init__(_Sqlite(path, busy_ns), holder, clock, post, lazy=lazy)


def read_spent(path: Path, wall_ns: int) -> dict[str, int]:
    """What every account holds in the window that ends at `wall_ns`, leased slices included; {} when there is no ledger yet.

    Raises StorageError when the file cannot be read.
    """
    return database.read_spent(_Sqlite(path, SECOND), wall_ns) if path.exists() else {}


class _Sqlite:
    """The `Dialect`."""

    insert = staticmethod(insert)

    def __init__(self, path: Path, busy_ns: int) -> None:
        self._path = path
        self.where = f"The ledger {path}"
        self.engine = _engine(path, busy_ns)

    @contextmanager
    def opening(self) -> Iterator[None]:
        """SQLite does not wait, whatever its busy_timeout, for a switch to WAL by another process: so they queue up before it."""
        with suppress(OSError):  # SQLite says better what is wrong with the place
            self._path.touch(mode=0o600)  # who spent what is nobody else's; the files beside it get the same mode
        try:
            descriptor = os.open(self._path.parent, os.O_RDONLY)
        except OSError:
            yield
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def connected(self, connection: Connection) -> bool:
        """A file stays open."""
        return True

    def lock(self, connection: Connection, accounts: Sequence[str]) -> None:
        """BEGIN IMMEDIATE has locked all there is."""

    def prune(self, connection: Connection, table: Table, before_ns: int) -> None:
        connection.execute(delete(table).where(table.c.leaves_ns < before_ns))

    def explain(self, cause: str) -> str:
        where = self.where
        if "locked" in cause or "busy" in cause:
            return f"{where} stayed locked by another program; close what holds it open (a backup, a database shell)."
        if "not a database" in cause or "malformed" in cause:
            return f"{where} is damaged ({cause}); restore it from a backup, or move it away to start with nothing spent."
        if "full" in cause:
            return f"{where} cannot be written because the disk is full; free some space."
        if "readonly" in cause or "unable to open" in cause:
            return f"{where} cannot be written ({cause}); check that its folder exists and belongs to this user."
        return f"{where} failed ({cause}); check the disk that it lies on."


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
