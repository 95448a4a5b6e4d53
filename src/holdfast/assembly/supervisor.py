"""`holdfast up`: starts the workers, answers for them on the control address, replaces those that die or are to run another
configuration, and ends them together."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from holdfast import __version__
from holdfast.assembly.address import cannot_listen, listeners, url
from holdfast.assembly.order import WorkerOrder
from holdfast.assembly.running import Claim, UpState
from holdfast.assembly.slot import Slot, tell
from holdfast.assembly.worker_process import WorkerProcess
from holdfast.clock import SECOND
from holdfast.config import Config, load
from holdfast.config.document import read_text
from holdfast.errors import HoldfastError
from holdfast.http.message import Request, Response
from holdfast.http.server import Server, ServerOptions, serve
from holdfast.runner.shield import shield_process
from holdfast.system_clock import SystemClock

_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
_JSON = ((b"content-type", b"application/json"),)


class UpRequest(Struct, frozen=True, kw_only=True):
    """What was asked of `holdfast up`. gateway, control: host and port, port 0 for a free one."""

    config: Path | None
    data_dir: Path
    gateway: tuple[str, int]
    control: tuple[str, int]
    workers: int


class WorkerView(Struct, frozen=True, kw_only=True):
    """One worker, as `GET /` of the control address shows it. connections, calls: open now, at most a fifth of a second ago."""

    pid: int
    ready: bool
    trouble: str
    connections: int
    calls: int


class View(Struct, frozen=True, kw_only=True):
    """What `GET /` shows. retiring: workers before a reload or a replacement that finish their calls. reloads: done since the start."""

    version: str
    ready: bool
    trouble: str
    reloads: int
    workers: list[WorkerView]
    retiring: list[WorkerView]


def up(request: UpRequest, announce: Callable[[str], None]) -> None:
    """Gateway and control plane until INT or TERM; announces both addresses in one line once both answer. HUP asks for a reload.

    Raises HoldfastError: what is wrong with the configuration, the addresses or the data directory.
    """
    text, config = _read(request.config)  # wrong configurations end here, not in every worker
    shield_process()
    for warning in config.warnings:
        tell(warning)
    claim = Claim(request.data_dir)
    try:
        asyncio.run(_Supervisor(request, announce, claim).run(text))
    finally:
        claim.release()


class _Supervisor:
    def __init__(self, request: UpRequest, announce: Callable[[str], None], claim: Claim) -> None:
        self._request = request
        self._announce = announce
        self._claim = claim
        self._slots: list[Slot] = []
        self._state: UpState
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._news = asyncio.Event()
        self._had_terminal = _has_terminal()

    async def run(self, text: str | None) -> None:
        loop = asyncio.get_running_loop()
        for stopping in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(stopping, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        request, clock = self._request, SystemClock()
        sockets = listeners(*request.gateway, request.workers)
        try:
            control = await serve(self._control, *request.control, ServerOptions(), clock)
        except OSError as error:
            raise cannot_listen(*request.control, error) from error
        host, port = sockets[0].getsockname()[:2]
        self._state = UpState(
            pid=os.getpid(),
            gateway=url(host, port),
            control=url(control.host, control.port),
            config="" if request.config is None else str(request.config.absolute()),
        )
        self._slots = [Slot(self._order(text, sock.fileno()), clock, self._news.set) for sock in sockets]
        tending = [asyncio.create_task(slot.tend()) for slot in self._slots]
        serving = asyncio.create_task(self._serve())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([*tending, serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for sock in sockets:
                sock.close()
            failure = await self._end(tending, [serving, stopped], control)
        if failure is not None:
            raise failure

    async def _serve(self) -> None:
        """Announce, once every worker answers; then reload as often as it is asked for."""
        while any(slot.trouble and not (slot.current and slot.current.ready) for slot in self._slots):
            self._news.clear()
            await self._news.wait()
        self._claim.publish(self._state)
        self._announce(f"Holdfast {__version__}: gateway {self._state.gateway}, control {self._state.control}")
        while True:
            await self._reload.wait()
            self._reload.clear()
            await self._reload_once()

    async def _reload_once(self) -> None:
        self._say(begun=self._state.begun + 1)
        failure = ""
        notes: tuple[str, ...] = ()
        try:
            notes = await self._take_over()
        except HoldfastError as error:
            failure = str(error)
            tell(f"not reloaded, the configuration before stays in force:\n{failure}")
        else:
            tell("reloaded; the workers before finish their calls")
            for note in notes:
                tell(note)
        self._say(ended=self._state.begun, failure=failure, notes=notes)

    async def _take_over(self) -> tuple[str, ...]:
        """Workers with the configuration as it is now take over from those before, all or none; returns what to warn of."""
        file = self._request.config
        text, config = _read(None if file is None else file.absolute())  # whoever asks may stand in another folder
        for slot in self._slots:
            await slot.room()
        async with AsyncExitStack() as changing:
            for slot in self._slots:
                await changing.enter_async_context(slot.changing)
            orders = [structs.replace(slot.order, text=text) for slot in self._slots]
            starting = (slot.start(order) for slot, order in zip(self._slots, orders, strict=True))
            started = await asyncio.gather(*starting, return_exceptions=True)
            workers = [worker for worker in started if isinstance(worker, WorkerProcess) and worker.ready and not worker.gone]
            if len(workers) < len(started):
                await asyncio.gather(*(worker.stop() for worker in workers))
                raise HoldfastError(next(_why(worker) for worker in started if worker not in workers))
            for slot, worker, order in zip(self._slots, workers, orders, strict=True):
                slot.take_over(worker, order)
        return config.warnings

    async def _end(self, tending: list[asyncio.Task[None]], others: list[asyncio.Task[object]], control: Server) -> BaseException | None:
        """Stop all workers; the first reason why one of them could not start."""
        for task in others:
            task.cancel()
        ends = await asyncio.gather(*others, return_exceptions=True)
        await asyncio.gather(*(slot.stop() for slot in self._slots))
        ends = [*await asyncio.gather(*tending, return_exceptions=True), *ends]
        await control.close(SECOND)
        return next((end for end in ends if isinstance(end, Exception)), None)

    def _hang_up(self) -> None:
        """SIGHUP asks for a reload, save where it tells that the terminal is gone, as it does to every program."""
        (self._stop if self._had_terminal and not _has_terminal() else self._reload).set()

    def _order(self, text: str | None, listener: int) -> WorkerOrder:
        request = self._request
        config = None if request.config is None else str(request.config.absolute())
        return WorkerOrder(config=config, text=text, data_dir=str(request.data_dir.absolute()), listener=listener)

    def _say(self, **changes: object) -> None:
        self._state = structs.replace(self._state, **changes)
        self._claim.publish(self._state)

    def _control(self, request: Request, response: Response) -> None:
        if request.path == b"/healthz":
            response.send(200, _TEXT, b"ok\n")
        elif request.path == b"/readyz":
            why = self._trouble()
            response.send(503 if why else 200, _TEXT, f"not ready: {why}\n".encode() if why else b"ready\n")
        elif request.path == b"/":
            response.send(200, _JSON, msgspec.json.encode(self._view()) + b"\n")
        else:
            response.send(404, _TEXT, b"not found\n")

    def _trouble(self) -> str:
        if not self._slots:
            return "the workers are starting"
        return "; ".join(dict.fromkeys(slot.trouble for slot in self._slots if slot.trouble))

    def _view(self) -> View:
        def views(workers: list[WorkerProcess]) -> list[WorkerView]:
            return [
                WorkerView(
                    pid=worker.pid,
                    ready=worker.ready and not worker.gone and not worker.status.trouble,
                    trouble=worker.status.trouble,
                    connections=worker.status.connections,
                    calls=worker.status.calls,
                )
                for worker in workers
            ]

        trouble = self._trouble()
        return View(
            version=__version__,
            ready=not trouble,
            trouble=trouble,
            reloads=self._state.ended if self._slots else 0,
            workers=views([slot.current for slot in self._slots if slot.current is not None]),
            retiring=views([worker for slot in self._slots for worker in slot.retiring]),
        )


def _read(path: Path | None) -> tuple[str | None, Config]:
    """The configuration's text, which the workers are to read and no later one, and what it says."""
    text = None if path is None else read_text(path)
    return text, load(path, os.environ, text)


def _why(started: WorkerProcess | BaseException) -> str:
    if isinstance(started, BaseException):
        return str(started)
    return started.last_words or f"a worker could not start: it ended with {started.code}"


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
