"""The kill drill: gateways of its own under load and with open streams, before a simulated provider; then the real command."""

import asyncio
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast.clock import MILLISECOND, SECOND
from holdfast.drill.load import MARK, Load, OpenStream
from holdfast.errors import HoldfastError
from holdfast.events import ApiCall
from holdfast.execution.upstream import Origin
from holdfast.http.client import Client, ClientOptions
from holdfast.http.message import Request, Response
from holdfast.store.reader import JournalReader
from holdfast.system_clock import SystemClock
from holdfast.testing.simulated_provider import SimulatedProvider, running

_GAP_MS = 500
_PATIENCE_S = 20
_POLL_S = 0.005
_ENVIRONMENT_LIMITS = ("API_CALL_BUDGET_PER_HOUR", "COST_THRESHOLD_ALERT")


class DrillOptions(Struct, frozen=True, kw_only=True):
    """workers: gateway processes. rate: calls a second. streams: open at the time of the kill. seconds: under load, half of it before."""

    workers: int = 2
    rate: int = 100
    streams: int = 50
    seconds: float = 6


class Measured(Struct, frozen=True, kw_only=True):
    """What came out; times in milliseconds.

    served_before, refused_after: calls. command_ms: the whole command as a user runs it, start of Python included. confirmed_ms: the
    part of it from the change to the last worker's word. admitted_after_return: by the record of the gateways and by what arrived at the
    provider, whichever is more. last_admitted_ms: from the last admitted call to the command's return. streams_well_formed: that ended
    with the error event; streams_ended_ms: the last of them after the command's start. resume_ms: the whole command; first_call_ms:
    from its return to the first call served.
    """

    workers: int
    rate: int
    served_before: int
    command_ms: float
    confirmed_ms: float
    admitted_after_return: int
    refused_after: int
    last_admitted_ms: float
    streams: int
    streams_well_formed: int
    streams_ended_ms: float
    resume_ms: float
    first_call_ms: float

    @property
    def failures(self) -> list[str]:
        """What was promised and is not so."""
        found = []
        if not self.served_before or not self.refused_after:
            found.append("there was no load: nothing is proven")
        if self.admitted_after_return:
            found.append(f"{self.admitted_after_return} calls were admitted after the command had returned")
        if self.streams_well_formed < self.streams:
            found.append(f"{self.streams - self.streams_well_formed} of {self.streams} streams did not end with the error event")
        return found


def kill_drill(options: DrillOptions, folder: Path) -> Measured:
    """Run the drill with all of its files in `folder`; raises HoldfastError when it cannot be carried out."""
    return asyncio.run(_KillDrill(options, folder).run())


class _KillDrill:
    def __init__(self, options: DrillOptions, folder: Path) -> None:
        self._options = options
        self._data = folder / "data"
        self._config = folder / "holdfast.yaml"
        self._environment = _environment(os.environ)
        self._clock = SystemClock()
        self._provider = SimulatedProvider()
        self._arrived_after = 0

    async def run(self) -> Measured:
        options, clock = self._options, self._clock
        async with AsyncExitStack() as stack:
            address = await stack.enter_async_context(running(self._application))
            self._config.write_text(f"providers:\n  drill: {{kind: simulated, base_url: '{address.openai}'}}\n", "utf-8")
            gateway = await self._up(stack)
            client = Client(ClientOptions(max_idle=1024), clock)
            stack.push_async_callback(client.close)
            streams = [OpenStream(clock) for _ in range(options.streams)]
            for stream in streams:
                stream.open(client, gateway, int(options.seconds * 1000 / _GAP_MS) + 1000, _GAP_MS)
            load = Load(client, gateway, options.rate, clock)
            load.start()
            stack.callback(load.stop)
            await _until(lambda: all(stream.flowing for stream in streams), "the streams did not begin")
            await asyncio.sleep(options.seconds / 2)
            served_before = load.count(200, marked=False)
            began_ns = clock.monotonic_ns()
            killed = await self._command("kill", "--all", "--cut", "--reason", "a drill", "--json")
            returned_ns, returned_wall_ns = clock.monotonic_ns(), clock.wall_ns()
            load.mark = True
            await asyncio.sleep(options.seconds / 2)
            refused_after = load.count(403, marked=True)
            resuming_ns, resuming_wall_ns = clock.monotonic_ns(), clock.wall_ns()
            arrived_after = self._arrived_after
            await self._command("resume", "--all", "--json")
            resumed_ns = clock.monotonic_ns()
            served_ns: list[int] = []
            load.served = lambda: served_ns.append(clock.monotonic_ns())
            await _until(lambda: served_ns, "no call was served after the switch was lifted")
        began_wall_ns = [
            call.timestamp
            for call in JournalReader(self._data).events((ApiCall,))
            if isinstance(call, ApiCall) and call.timestamp < resuming_wall_ns
        ]
        return Measured(
            workers=options.workers,
            rate=options.rate,
            served_before=served_before,
            command_ms=_ms(returned_ns - began_ns),
            confirmed_ms=killed.confirmed_ms,
            admitted_after_return=max(arrived_after, sum(began > returned_wall_ns for began in began_wall_ns)),
            refused_after=refused_after,
            last_admitted_ms=_ms(returned_wall_ns - max(began_wall_ns, default=returned_wall_ns)),
            streams=options.streams,
            streams_well_formed=sum(stream.well_formed and stream.ended_ns < resuming_ns for stream in streams),
            streams_ended_ms=_ms(max((stream.ended_ns for stream in streams), default=began_ns) - began_ns),
            resume_ms=_ms(resumed_ns - resuming_ns),
            first_call_ms=_ms(served_ns[0] - resumed_ns),
        )

    def _application(self, request: Request, response: Response) -> None:
        """The provider, who counts what should not have come."""
        if request.header(MARK) is not None:
            self._arrived_after += 1
        self._provider.application(request, response)

    async def _up(self, stack: AsyncExitStack) -> Origin:
        """Start `holdfast up`; where its gateway listens."""
        words = ("up", "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0", "--workers", str(self._options.workers))
        process = await self._start(*words)
        stack.push_async_callback(_end, process)
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = re.search(r"gateway http://([0-9.]+):([0-9]+)", line)
        if found is None:
            raise HoldfastError(f"the drill's `holdfast up` did not start: {line or await _said(process)}")
        return Origin(found[1], int(found[2]), tls=False)

    async def _command(self, *words: str) -> "_Said":
        process = await self._start(*words)
        out, err = await process.communicate()
        if process.returncode:
            raise HoldfastError(f"`holdfast {words[0]}` failed in the drill: {err.decode('utf-8', 'replace').strip()}")
        return msgspec.json.decode(out, type=_Said)

    async def _start(self, *words: str) -> asyncio.subprocess.Process:
        places = ("--config", str(self._config), "--data-dir", str(self._data))
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from holdfast.cli import main; main()", *words, *places),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )


class _Said(Struct):
    """Of a command's JSON, what the drill wants to know."""

    confirmed_ms: float


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the user's own settings and limits."""
    return {name: value for name, value in environment.items() if not name.startswith("HOLDFAST_") and name not in _ENVIRONMENT_LIMITS}


async def _until(condition: Callable[[], object], otherwise: str) -> None:
    clock = SystemClock()
    until_ns = clock.monotonic_ns() + _PATIENCE_S * SECOND
    while not condition():
        if clock.monotonic_ns() > until_ns:
            raise HoldfastError(f"the drill cannot be carried out: {otherwise} within {_PATIENCE_S} s; try a smaller --rate or --streams")
        await asyncio.sleep(_POLL_S)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.communicate()


async def _said(process: asyncio.subprocess.Process) -> str:
    _, err = await process.communicate()
    return err.decode("utf-8", "replace").strip()


def _ms(ns: int) -> float:
    return round(ns / MILLISECOND, 1)
