"""The ledger in PostgreSQL, for gateways on several machines that share their limits (`pip install holdfast[postgres]`)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b

from sqlalchemy import BigInteger, Connection, Table, bindparam, cast, create_engine, delete, func, make_url, select, text
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from holdfast.clock import MILLISECOND, SECOND, Clock
from holdfast.errors import ConfigError
from holdfast.ledger import database
from holdfast.ledger.database import DatabaseLedger, Post

_CREATION = 0x686F6C6466617374
"""The advisory lock under which tables are created: "holdfast" in ASCII."""

_LOCKS = 1024
"""Accounts share so many advisory locks: a server has room for some thousands only, which all sessions share."""


class PostgresqlLedger(DatabaseLedger):
    """A `holdfast.execution.ledger.Ledger` in the database at `url` (`postgresql://user:password@host/database`).

    holder, post, lazy: see `DatabaseLedger`. wait_ns: how long to wait for a connection, a lock, a statement. Raises ConfigError for what
    is no such URL.
    """

    def __init__(self, url: str, holder: str, clock: Clock, post: Post, *, wait_ns: int = 10 * SECOND, lazy: bool = True) -> None:
        super().__init__(_Postgresql(url, wait_ns), holder, clock, post, lazy=lazy)


def read_spent(url: str, wall_ns: int) -> dict[str, int]:
    """What every account holds in the window that ends at `wall_ns`, leased slices included; raises StorageError, ConfigError."""
    return database.read_spent(_Postgresql(url, 3 * SECOND), wall_ns)


class _Postgresql:
    """The `Dialect`. Every wait has an end, and a server that is gone without a word is noticed."""

    insert = staticmethod(insert)

    def __init__(self, url: str, wait_ns: int) -> None:
        try:
            parsed = make_url(url).set(drivername="postgresql+psycopg")
            wait_ms = wait_ns // MILLISECOND
            settings = {"statement_timeout": wait_ms, "lock_timeout": wait_ms, "idle_in_transaction_session_timeout": 2 * wait_ms}
            self.engine = create_engine(
                parsed,
                poolclass=NullPool,
                isolation_level="READ COMMITTED",  # what is granted is read after its lock was had, so every statement must see anew
                connect_args={
                    "connect_timeout": max(2, wait_ns // SECOND),
                    "tcp_user_timeout": wait_ms,
                    "application_name": "holdfast",
                    "options": " ".join(f"-c {name}={value}" for name, value in settings.items()) + " -c synchronous_commit=on",
                },
            )
        except (ArgumentError, NoSuchModuleError, ValueError):
            raise ConfigError("the ledger's URL is not one: expected postgresql://user:password@host/database") from None
        except ImportError:
            raise ConfigError("a ledger in PostgreSQL needs its driver: pip install 'holdfast[postgres]'") from None
        self.where = f"The ledger {parsed.render_as_string(hide_password=True).replace('postgresql+psycopg', 'postgresql')}"

    @contextmanager
    def opening(self) -> Iterator[None]:
        """CREATE TABLE IF NOT EXISTS of two sessions at once fails in one of them."""
        with database.translated(self), self.engine.begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(_CREATION)))
            yield

    def connected(self, connection: Connection) -> bool:
        """One round trip: a server that was restarted must cost no call an error."""
        try:
            connection.execute(text("SELECT 1"))
            connection.rollback()
        except DBAPIError:
            return False
        return True

    def lock(self, connection: Connection, accounts: Sequence[str]) -> None:
        """In the order of their numbers, so that no two transactions wait for each other."""
        if accounts:
            keys = sorted({int.from_bytes(blake2b(account.encode(), digest_size=8).digest()) % _LOCKS for account in accounts})
            each = func.unnest(cast(bindparam("keys"), ARRAY(BigInteger))).column_valued("key")
            connection.execute(select(func.pg_advisory_xact_lock(each)), {"keys": keys})

    def prune(self, connection: Connection, table: Table, before_ns: int) -> None:
        """Rows that another transaction is changing are left for the next time: to wait for them could be to wait for each other."""
        old = select(*table.primary_key.columns).where(table.c.leaves_ns < before_ns).limit(10_000).with_for_update(skip_locked=True)
        rows = [row._asdict() for row in connection.execute(old)]
        if rows:
            these = delete(table).where(*[column == bindparam(column.name) for column in table.primary_key.columns])
            connection.execute(these, rows)

    def explain(self, cause: str) -> str:
        where, first = self.where, " ".join(cause.split())[:300]
        if "timeout" in cause and ("lock" in cause or "statement" in cause):
            return f"{where} stayed locked by another session; find it in pg_stat_activity, and end it."
        if "authentication" in cause or "permission denied" in cause or "does not exist" in cause:
            return f"{where} refuses this user ({first}); check user, password, database and its rights."
        if "No space left" in cause or "disk full" in cause:
            return f"{where} cannot be written because the server's disk is full; free some space there."
        return f"{where} cannot be reached ({first}); check that the server runs and that its address is right."


PLUGIN = PostgresqlLedger
