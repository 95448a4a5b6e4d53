"""One place for a worker: keeps a process on its listening socket, whatever becomes of the one before."""

import asyncio
import contextlib
import sys
from collections.abc import Callable

from holdfast.assembly.order import WorkerOrder
from holdfast.assembly.worker_process import WorkerProcess
from holdfast.clock import MILLISECOND, SECOND, Clock
from holdfast.errors import HoldfastError

MAX_RETIRING = 4
"""Workers of one place that may be finishing their calls at once; the next replacement waits until there are fewer."""

_STABLE_NS = 10 * SECOND
_FIRST_PAUSE_NS = 250 * MILLISECOND
_LONGEST_PAUSE_NS = 5 * SECOND


class Slot:
    """order: what the next worker here is told. current: the worker that serves, or served last. retiring: those before it that finish
    their calls. Whoever starts a worker here holds `changing`. changed: told whenever any of this, or a worker's status, is another."""

    def __init__(self, order: WorkerOrder, clock: Clock, changed: Callable[[], None]) -> None:
        self.order = order
        self.current: WorkerProcess | None = None
        self.retiring: list[WorkerProcess] = []
        self.changing = asyncio.Lock()
        self._clock = clock
        self._changed = changed
        self._alive: set[WorkerProcess] = set()
        self._news = asyncio.Event()
        self._stopped = asyncio.Event()
        self._served = False
        self._mourned: WorkerProcess | None = None
        self._deaths = 0

    @property
    def trouble(self) -> str:
        """Why this place serves no calls now, "" when it does."""
        worker = self.current
        if worker is None or worker.gone or not worker.ready:
            return "a worker is starting"
        return worker.status.trouble and f"worker {worker.pid}: {worker.status.trouble}"

    async def tend(self) -> None:
        """Keep a worker running until `stop`; raises HoldfastError, with the worker's own words when the first cannot start."""
        while not self._stopped.is_set():
            self._news.clear()
            worker = self.current
            if worker is None or worker.gone:
                await self._start_again(worker)
            elif worker.status.leaving and not worker.excused and len(self.retiring) < MAX_RETIRING:
                worker.excused = True
                await self._replace(worker)
            else:
                await self._news.wait()

    async def room(self) -> None:
        """Returns when few enough workers are retiring here that another may join them; await it before `changing` is held."""
        while len(self.retiring) >= MAX_RETIRING:
            await self.retiring[0].ended()
            await asyncio.sleep(0)  # its end is heard of

    async def start(self, order: WorkerOrder) -> WorkerProcess:
        """A worker beside the one that serves, as `order` has it; returns once it is ready, or gone."""
        worker = await WorkerProcess.start(order, self._clock, self._heard)
        self._alive.add(worker)
        if self._stopped.is_set():  # asked for while it was being started
            await worker.stop()
        await worker.settled()
        return worker

    def take_over(self, worker: WorkerProcess, order: WorkerOrder) -> None:
        """From now on `worker` serves here; the one before ends without failing a call."""
        before, self.current, self.order = self.current, worker, order
        if before is not None and not before.gone:
            self.retiring.append(before)
            before.retire()
        self._tell_change()

    async def stop(self) -> None:
        """End every worker, calls in progress first."""
        self._stopped.set()
        self._news.set()
        await asyncio.gather(*(worker.stop() for worker in self._alive))

    async def _start_again(self, before: WorkerProcess | None) -> None:
        """At once, save when workers here die again and again."""
        if before is not self._mourned:
            self._mourn(before)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), pause_ns(self._deaths) / SECOND)
        async with self.changing:
            if self.current is not before or self._stopped.is_set():
                return
            try:
                worker = await self.start(self.order)
            except HoldfastError as error:  # no process could be had
                if not self._served:
                    raise
                tell(str(error))
                self._deaths += 1
                return
            self.current = worker
        self._tell_change()
        self._served = self._served or worker.ready
        if not self._served and (worker.last_words or not self._stopped.is_set()):
            raise HoldfastError(worker.last_words or f"a worker could not start: it ended with {worker.code}")

    def _mourn(self, worker: WorkerProcess | None) -> None:
        self._mourned = worker
        if worker is not None:
            if self._served:
                tell(f"worker {worker.pid} ended with {worker.code}; starting another")
            self._deaths = 1 if worker.lived_ns >= _STABLE_NS else self._deaths + 1

    async def _replace(self, before: WorkerProcess) -> None:
        """Somebody sent TERM to a worker: another takes over first."""
        async with self.changing:
            if self.current is not before or self._stopped.is_set():
                return
            worker = None
            with contextlib.suppress(HoldfastError):  # no process could be had
                worker = await self.start(self.order)
            if worker is not None and worker.ready:
                self.take_over(worker, self.order)
                tell(f"worker {before.pid} was told to end; worker {worker.pid} has taken over")
            elif not self._stopped.is_set():
                tell(f"worker {before.pid} was told to end and goes on, since no other can start")

    def _heard(self, worker: WorkerProcess) -> None:
        if worker.gone:
            self._alive.discard(worker)
            if worker in self.retiring:
                self.retiring.remove(worker)
            if worker.last_words and (worker.ready or self._served):
                tell(worker.last_words)
        self._tell_change()

    def _tell_change(self) -> None:
        self._news.set()
        self._changed()


def pause_ns(deaths: int) -> int:
    """How long to wait before a worker is started again after so many in a row died soon after their start."""
    return 0 if deaths < 2 else min(_FIRST_PAUSE_NS << min(deaths - 2, 16), _LONGEST_PAUSE_NS)


def tell(sentence: str) -> None:
    """To standard error, for whoever reads it; that nobody can does not end anything."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"holdfast: {sentence}\n")
        sys.stderr.flush()
