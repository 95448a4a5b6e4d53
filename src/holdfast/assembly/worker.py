"""One gateway process of `holdfast up`, started by the supervisor as `python -m holdfast.assembly.worker`; `order` says how they talk."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import msgspec

from holdfast.assembly.data_plane import DRAIN_NS, DataPlane, Hooks, Listen, open_data_plane
from holdfast.assembly.order import LastWords, Report, Status, WorkerOrder
from holdfast.clock import MILLISECOND, SECOND
from holdfast.config import Config, load
from holdfast.errors import HoldfastError
from holdfast.http.server import ServerOptions
from holdfast.runner.shield import shield_process
from holdfast.shared.conversations import SharedPlaces
from holdfast.system_clock import SystemClock

_YOUNG_OBJECTS = 50_000
"""Allocations between looks for cyclic garbage; calls make none that live long, so looking every 700 would be work for nothing."""

_REPORT_NS = 200 * MILLISECOND
"""How late the supervisor may know what this process is doing."""

_IDLE_NS = 15 * SECOND
"""How long a connection that is kept idle may still bring one more request after a successor took over. Most clients give up theirs
sooner (the official SDKs after 5 s); the others notice that it was closed before they use it again."""


def main() -> int:
    """Serve until standard input ends; exit code 0 after an orderly stop, else 1 and why."""
    for interruption in (signal.SIGINT, signal.SIGHUP):  # these reach the whole process group; the supervisor decides
        signal.signal(interruption, signal.SIG_IGN)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerOrder)
    try:
        _allow_many_descriptors()
        with _runner() as runner:
            runner.run(_serve(order))
    except (HoldfastError, OSError) as error:
        os.set_blocking(sys.stdout.fileno(), True)
        _say(LastWords(str(error)))
        return 1
    return 0


async def _serve(order: WorkerOrder) -> None:
    config = load(None if order.config is None else Path(order.config), os.environ, order.text)
    shield_process()
    listen = Listen(sock=socket.socket(fileno=order.listener))
    data_dir = Path(order.data_dir)
    places = SharedPlaces(data_dir / "conversations")
    plane = await open_data_plane(config.gateway, data_dir, listen, Hooks(places=places), ledger=config.ledger, jobs=config.jobs)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)
    await _Service(plane, config).run()


class _Service:
    """A data plane under orders."""

    def __init__(self, plane: DataPlane, config: Config) -> None:
        self._plane = plane
        self._drain_ns = _longest_call_ns(config)
        self._clock = SystemClock()
        self._stop = asyncio.Event()
        self._retire = asyncio.Event()
        self._leaving = False
        self._said: Status | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._leave)
        loop.add_reader(sys.stdin.fileno(), self._hear)
        os.set_blocking(sys.stdout.fileno(), False)  # a supervisor that stands still must not hold up calls
        self._report()
        stopped = asyncio.create_task(self._stop.wait())
        told = asyncio.create_task(self._retire.wait())
        await asyncio.wait((stopped, told), return_when=asyncio.FIRST_COMPLETED)
        if not stopped.done():
            gone = asyncio.create_task(self._plane.retire(_IDLE_NS))
            await asyncio.wait((stopped, gone), timeout=self._drain_ns / SECOND, return_when=asyncio.FIRST_COMPLETED)
        loop.remove_reader(sys.stdin.fileno())
        await self._plane.close(DRAIN_NS if stopped.done() else 0)

    def _hear(self) -> None:
        if os.read(sys.stdin.fileno(), 1024):
            self._retire.set()
        else:
            self._stop.set()

    def _leave(self) -> None:
        self._leaving = True

    def _report(self) -> None:
        """Say what has changed."""
        plane = self._plane
        plane.look_after()
        status = Status(trouble=plane.trouble, connections=plane.server.connections, calls=plane.server.answering, leaving=self._leaving)
        if status != self._said and _say(status):
            self._said = status
        self._clock.call_later(_REPORT_NS, self._report)


def _say(report: Report) -> bool:
    """Tell the supervisor; False when it does not listen now."""
    try:
        os.write(sys.stdout.fileno(), msgspec.json.encode(report) + b"\n")
    except OSError:  # its pipe is full, or it is gone, which the end of standard input says too
        return False
    return True


def _longest_call_ns(config: Config) -> int:
    """How long a call may go on that was about to be sent: so much time is given before anything is cut for a successor."""
    reading = ServerOptions()
    calls = max((agent.timeouts.total_ns for agent in config.gateway.agents), default=0)
    return calls + reading.header_timeout_ns + reading.body_timeout_ns + _IDLE_NS


def _allow_many_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says "unlimited" and allows less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _runner() -> asyncio.Runner:
    """On uvloop where it is installed (`holdfast[fast]`): a quarter less work to relay a call or a streamed piece."""
    with contextlib.suppress(ImportError):
        import uvloop

        return asyncio.Runner(loop_factory=uvloop.new_event_loop)
    return asyncio.Runner()


if __name__ == "__main__":
    sys.exit(main())
