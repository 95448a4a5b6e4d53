"""`holdfast up`: starts the workers, answers for them on the control address, replaces those that die, and ends them together."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast import __version__
from holdfast.assembly.order import READY, WorkerOrder
from holdfast.clock import SECOND
from holdfast.config import load
from holdfast.errors import CannotListen, HoldfastError
from holdfast.http.message import Request, Response
from holdfast.http.server import ServerOptions, serve
from holdfast.runner.shield import shield_process
from holdfast.system_clock import SystemClock

_STOP_S = 15
_RESTART_S = 1
_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
_JSON = ((b"content-type", b"application/json"),)


class UpRequest(Struct, frozen=True, kw_only=True):
    """What was asked of `holdfast up`. gateway, control: host and port, port 0 for a free one."""

    config: Path | None
    data_dir: Path
    gateway: tuple[str, int]
    control: tuple[str, int]
    workers: int


def up(request: UpRequest, announce: Callable[[str], None]) -> None:
    """Gateway and control plane until INT or TERM; announces both addresses in one line once both answer.

    Raises HoldfastError: what is wrong with the configuration, the addresses or the data directory.
    """
    config = load(request.config, os.environ)  # wrong configurations end here, not in every worker
    shield_process()
    for warning in config.warnings:
        sys.stderr.write(f"holdfast: {warning}\n")
    asyncio.run(_Supervisor(request, announce).run())


class _Supervisor:
    def __init__(self, request: UpRequest, announce: Callable[[str], None]) -> None:
        self._request = request
        self._announce = announce
        self._workers: list[_Worker] = []
        self._stop = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for stopping in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(stopping, self._stop.set)
        request = self._request
        holding = _reserve_address(*request.gateway)
        host, port = holding.getsockname()[:2]
        order = WorkerOrder(
            config=None if request.config is None else str(request.config.absolute()),
            data_dir=str(request.data_dir.absolute()),
            host=host,
            port=port,
            listener=None if _shares_ports() else holding.fileno(),
            shared=request.workers > 1,
        )
        try:
            control = await serve(self._control, *request.control, ServerOptions(), SystemClock())
        except OSError as error:
            holding.close()
            raise _cannot_listen(*request.control, error) from error
        self._workers = [_Worker(order) for _ in range(request.workers)]
        tending = [asyncio.create_task(worker.tend()) for worker in self._workers]
        stopped, ready = asyncio.create_task(self._stop.wait()), asyncio.create_task(self._all_ready())
        try:
            await asyncio.wait([*tending, stopped, ready], return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and not stopped.done():
                self._announce(f"Holdfast {__version__}: gateway {_url(host, port)}, control {_url(control.host, control.port)}")
                await asyncio.wait([*tending, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            failure = await self._end(tending, [stopped, ready])
            holding.close()
            await control.close(SECOND)
        if failure is not None:
            raise failure

    async def _all_ready(self) -> None:
        for worker in self._workers:
            await worker.ready.wait()

    async def _end(self, tending: list[asyncio.Task[None]], waiting: list[asyncio.Task[object]]) -> BaseException | None:
        """Stop all workers; the first reason why one of them could not start."""
        for task in waiting:
            task.cancel()
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        ends = await asyncio.gather(*tending, return_exceptions=True)
        return next((end for end in ends if end is not None), None)

    def _control(self, request: Request, response: Response) -> None:
        ready = bool(self._workers) and all(worker.ready.is_set() for worker in self._workers)
        if request.path == b"/healthz":
            response.send(200, _TEXT, b"ok\n")
        elif request.path == b"/readyz":
            response.send(200 if ready else 503, _TEXT, b"ready\n" if ready else b"not ready\n")
        elif request.path == b"/":
            state = {"version": __version__, "ready": ready, "workers": [worker.pid for worker in self._workers]}
            response.send(200, _JSON, msgspec.json.encode(state) + b"\n")
        else:
            response.send(404, _TEXT, b"not found\n")


class _Worker:
    """Keeps one worker process running: started again a second after it died; gives up only when it never became ready."""

    def __init__(self, order: WorkerOrder) -> None:
        self._order = order
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._served = False
        self.ready = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def tend(self) -> None:
        """Until `stop`; raises HoldfastError with the worker's own words when it cannot start."""
        while not self._stopping.is_set():
            process = await self._start()
            if self._stopping.is_set():  # asked for while it was being started
                process.terminate()
            last_words = await self._hear(process)
            self.ready.clear()
            code = await process.wait()
            if not self._served and (last_words or not self._stopping.is_set()):
                raise HoldfastError(last_words or f"a worker could not start: it ended with {code}")
            if last_words:
                sys.stderr.write(f"holdfast: {last_words}\n")
            if not self._stopping.is_set():
                sys.stderr.write(f"holdfast: worker {process.pid} ended with {code}; starting another\n")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _RESTART_S)

    async def stop(self) -> None:
        """TERM, so that calls in progress end; KILL for what is left after that."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        listener = self._order.listener
        command = (sys.executable, "-m", "holdfast.assembly.worker")
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, pass_fds=() if listener is None else (listener,)
            )
        except OSError as error:
            raise HoldfastError(f"a worker could not start: {command[0]}: {error.strerror}") from error
        self._process = process
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it died at once: its end is heard
            process.stdin.write(msgspec.json.encode(self._order) + b"\n")
            await process.stdin.drain()
        return process

    async def _hear(self, process: asyncio.subprocess.Process) -> str:
        """Until the worker's standard output ends, which is its end; why it ended, in its own words."""
        assert process.stdout is not None
        words = b""
        async for line in process.stdout:
            if line == READY:
                self._served = True
                self.ready.set()
            else:
                words += line
        return words.decode("utf-8", "replace").rstrip()


def _shares_ports() -> bool:
    """Linux spreads connections over the sockets of one port; elsewhere the workers accept from one inherited socket."""
    return os.uname().sysname == "Linux"


def _reserve_address(host: str, port: int) -> socket.socket:
    """Hold the gateway's address. A first socket without SO_REUSEPORT finds out whether anybody else listens there, even another
    Holdfast; on Linux it is then bound again so that workers can share the port, and never listens itself."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        probe = socket.socket(family, kind, protocol)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1024)
        if not _shares_ports():
            return probe
        address = probe.getsockname()
        probe.close()
        holding = socket.socket(family, kind, protocol)
        holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holding.bind(address)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    return holding


def _cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror  # asyncio puts a sentence of its own there
    advice = "is another Holdfast running? Choose another address." if error.errno == errno.EADDRINUSE else "choose another address."
    return CannotListen(f"cannot listen on {_url(host, port)}: {reason}; {advice}")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
