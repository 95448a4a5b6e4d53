"""Puts the jobs of a worker together: their files, the threads that wait for the disk, the door, the one who works them off."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from holdfast.clock import SECOND
from holdfast.config.jobs import JobsConfig
from holdfast.errors import StorageError
from holdfast.events import ApiCall, Decision, Error
from holdfast.events.ids import wall_ns_of
from holdfast.gateway.jobs import Jobs
from holdfast.gateway.parts import Parts
from holdfast.store.jobs import JobFiles
from holdfast.store.reader import JournalReader

_THREADS = 4
"""Each waits for a disk, not for the processor."""

_T = TypeVar("_T")
_log = logging.getLogger("holdfast.jobs")


class JobService(Struct, frozen=True, kw_only=True):
    """The jobs of this process."""

    jobs: Jobs
    _executor: ThreadPoolExecutor

    async def idle(self) -> None:
        """Take no more jobs; returns once none is in hand."""
        idle = asyncio.Event()
        self.jobs.worker.stop(idle.set)
        await idle.wait()

    async def close(self, drain_ns: int) -> None:
        """Let tries in progress end, break off those that do not; others will begin them anew."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.idle(), drain_ns / SECOND)
        self.jobs.worker.interrupt()

    def release(self) -> None:
        """Let what is being written end; nobody asks for anything any more."""
        self._executor.shutdown()


def open_jobs(config: JobsConfig, parts: Parts, data_dir: Path) -> JobService:
    """Jobs that are worked off from now on; raises StorageError."""
    files = JobFiles(data_dir)
    executor = ThreadPoolExecutor(_THREADS, "holdfast-jobs")
    loop = asyncio.get_running_loop()

    def background(work: Callable[[], _T], done: Callable[[_T | StorageError], None]) -> None:
        def run() -> None:
            outcome: _T | StorageError
            try:
                outcome = work()
            except StorageError as error:
                outcome = error
            except Exception as defect:  # noqa: BLE001 - nobody awaits this thread: whoever asked must hear of it
                _log.exception("work on jobs broke")
                outcome = StorageError(f"a defect of Holdfast: {defect!r}")
            with suppress(RuntimeError):  # the loop is gone, and with it whoever asked
                loop.call_soon_threadsafe(done, outcome)

        with suppress(RuntimeError):  # this process is ending
            executor.submit(run)

    def in_journal(decision: str) -> bool:
        kinds, holding = (ApiCall, Decision, Error), [b'"decision_id":"%s"' % decision.encode()]
        return bool(decision) and any(JournalReader(data_dir).events(kinds, holding=holding, since_ns=wall_ns_of(decision)))

    webhooks = {webhook.name: webhook for webhook in config.webhooks}
    jobs = Jobs(parts, files, background, config.options, webhooks, in_journal)
    jobs.start()
    return JobService(jobs=jobs, _executor=executor)
