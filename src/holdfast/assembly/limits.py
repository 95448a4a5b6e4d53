"""Puts the limits of a process together: ledger, slate, limiter; settles what dead processes left."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from holdfast import plugins
from holdfast.clock import Clock
from holdfast.config.ledger import LedgerOptions
from holdfast.errors import HoldfastError, StorageError
from holdfast.events import LimitForecast, LimitMark
from holdfast.execution.limiter import Limiter
from holdfast.execution.recording import Recorder
from holdfast.execution.watch import Notice
from holdfast.ledger.database import DatabaseLedger, Post
from holdfast.ledger.sqlite import SqliteLedger
from holdfast.shared.slate import Dead, FileSlate, the_dead


class Limits(Struct, frozen=True, kw_only=True):
    """The limiter and what it stands on."""

    limiter: Limiter
    _ledger: DatabaseLedger
    _slate: FileSlate

    async def close(self) -> None:
        """Give back what was leased; the calls have ended."""
        returned: asyncio.Future[StorageError | None] = asyncio.get_running_loop().create_future()
        self.limiter.close(returned.set_result)
        error = await returned
        self._ledger.close()
        if error is None:  # else the next start gives back what could not be reported
            self._slate.end()


def open_limits(options: LedgerOptions, data_dir: Path, holder: str, clock: Clock, recorder: Recorder) -> Limits:
    """The limits of this process; raises StorageError, or ConfigError for a ledger that cannot be had in this way."""
    post = asyncio.get_running_loop().call_soon_threadsafe
    folder = data_dir / "slices"
    slate = FileSlate(folder, holder)
    try:
        ledger = _open_ledger(options, data_dir, holder, clock, post)
    except HoldfastError:
        slate.end()
        raise
    limiter = Limiter(ledger, clock, slate, _recorded(recorder, clock))
    dead = the_dead(folder)
    if dead:
        ledger.recover([each.remains for each in dead], lambda error: _recovered(dead, error))
    limiter.probe()
    return Limits(limiter=limiter, _ledger=ledger, _slate=slate)


def _open_ledger(options: LedgerOptions, data_dir: Path, holder: str, clock: Clock, post: Post) -> DatabaseLedger:
    if options.url:
        ledger: DatabaseLedger = plugins.load("ledger", "postgresql")(options.url, holder, clock, post)  # 20 ms that others need not pay
        return ledger
    return SqliteLedger(data_dir / "ledger.sqlite", holder, clock, post, lazy=options.allow_unchecked)


def _recovered(dead: list[Dead], error: StorageError | None) -> None:
    for each in dead:
        with contextlib.suppress(OSError):
            if error is None:
                each.forget()
            else:
                each.close()


def _recorded(recorder: Recorder, clock: Clock) -> Callable[[Notice], None]:
    def record(notice: Notice) -> None:
        recorder.append(_event(notice, clock.wall_ns()))
        with contextlib.suppress(StorageError):  # it stays in memory until it can be written
            recorder.flush()

    return record


def _event(notice: Notice, now_ns: int) -> LimitMark | LimitForecast:
    limit = notice.limit
    if notice.mark is not None:
        return LimitMark(
            timestamp=now_ns,
            limit=limit.describe(notice.value),
            scope=limit.scope,
            unit=limit.unit,
            mark=notice.mark,
            amount=limit.amount,
            spent=notice.spent,
            reaches_at=notice.reaches_at_ns,
        )
    assert notice.reaches_at_ns is not None
    return LimitForecast(
        timestamp=now_ns,
        limit=limit.describe(notice.value),
        scope=limit.scope,
        unit=limit.unit,
        amount=limit.amount,
        spent=notice.spent,
        reaches_at=notice.reaches_at_ns,
    )
