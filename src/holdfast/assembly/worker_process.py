"""A worker as its supervisor sees it: a process that is told to end one way or the other, and reports until it is gone."""

import asyncio
import contextlib
import sys
from collections.abc import Callable

import msgspec

from holdfast.assembly.order import RETIRE, LastWords, Report, Status, WorkerOrder
from holdfast.clock import Clock
from holdfast.errors import HoldfastError

_START_S = 60
_STOP_S = 15
_LONGEST_LINE = 1 << 20

_read_report = msgspec.json.Decoder(Report).decode


class WorkerProcess:
    """Made by `start`. status: what it said last. ready: it answers, or did. gone: it has ended, with `code` and `last_words`.
    excused: somebody is seeing to it that another takes over."""

    def __init__(self, process: asyncio.subprocess.Process, clock: Clock, heard: Callable[["WorkerProcess"], None]) -> None:
        self.pid = process.pid
        self.status = Status()
        self.last_words = ""
        self.code = 0
        self.excused = False
        self._process = process
        self._clock = clock
        self._heard = heard
        self._ready_ns = 0
        self._lived_ns = 0
        self._settled = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, order: WorkerOrder, clock: Clock, heard: Callable[["WorkerProcess"], None]) -> "WorkerProcess":
        """Begin a process; raises HoldfastError when there cannot be one. heard: told of every report, and of its end."""
        command = (sys.executable, "-m", "holdfast.assembly.worker")
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, pass_fds=(order.listener,), limit=_LONGEST_LINE
            )
        except OSError as error:
            raise HoldfastError(f"a worker could not start: {command[0]}: {error.strerror}") from error
        worker = cls(process, clock, heard)
        worker._write(msgspec.json.encode(order) + b"\n")
        return worker

    @property
    def ready(self) -> bool:
        return self._ready_ns > 0

    @property
    def gone(self) -> bool:
        return self._listening.done()

    @property
    def lived_ns(self) -> int:
        """From being ready to its end."""
        return self._lived_ns

    async def settled(self) -> None:
        """Returns once it is ready or gone; one that is neither for a minute is killed."""
        try:
            await asyncio.wait_for(self._settled.wait(), _START_S)
        except TimeoutError:
            self.last_words = f"a worker could not start: it did not answer within {_START_S} s"
            self._kill()
            await self.ended()

    async def ended(self) -> None:
        await asyncio.wait((self._listening,))

    def retire(self) -> None:
        """End once the last call is over; a successor listens already."""
        self._write(RETIRE)

    async def stop(self) -> None:
        """End within seconds, calls in progress first; returns when it is gone."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait((self._listening,), timeout=_STOP_S)
        if not self._listening.done():
            self._kill()
            await self.ended()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(data)

    async def _listen(self) -> None:
        """Until its standard output ends, which is its end."""
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # a line without end: no worker of ours says that
            async for line in self._process.stdout:
                self._read(line)
        self.code = await self._process.wait()
        self._lived_ns = self._clock.monotonic_ns() - self._ready_ns if self._ready_ns else 0
        self._settled.set()
        asyncio.get_running_loop().call_soon(self._heard, self)

    def _read(self, line: bytes) -> None:
        try:
            report = _read_report(line)
        except msgspec.DecodeError:  # printed by some library on its way
            report = LastWords(line.decode("utf-8", "replace").rstrip())
        if isinstance(report, LastWords):
            self.last_words = f"{self.last_words}\n{report.text}".lstrip()
            return
        self.status = report
        self._ready_ns = self._ready_ns or self._clock.monotonic_ns()
        self._settled.set()
        self._heard(self)
