"""Real processes for the runner's tests: small Python programs that say through a pipe what they see."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator

import pytest

from holdfast.runner.child import ChildOptions, Ended, StopReason, run_child
from holdfast.system_clock import SystemClock
from holdfast.testing import FakeClock

PATIENCE_S = 30
"""Only ever waited for by a test that fails."""

PRELUDE = """
import os, signal, sys, time
def say(text): os.write(int(os.environ["EAR"]), text.encode() + b"\\n")
"""


class Ear:
    """A pipe to hear a program and everything that it starts: each of them holds its other end until it has ended."""

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()
        os.set_inheritable(self.fd, True)
        self._heard = b""

    async def line(self) -> str:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_S):
            while b"\n" not in self._heard:
                readable = asyncio.Event()
                loop.add_reader(self._read, readable.set)
                await readable.wait()
                loop.remove_reader(self._read)
                self._heard += os.read(self._read, 4096)
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def rest(self) -> list[str] | None:
        """What is left to hear once every program has ended; None as long as one still lives. Ends this process's own part."""
        self._hang_up()
        os.set_blocking(self._read, False)
        try:
            while piece := os.read(self._read, 4096):
                self._heard += piece
        except BlockingIOError:
            return None
        return self._heard.decode().splitlines()

    def _hang_up(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        self._hang_up()
        os.close(self._read)


class Guarded:
    """One program under `run_child`; the time stands still unless the test moves it or asks for the machine's own."""

    def __init__(self, ear: Ear) -> None:
        self.ear = ear
        self.clock = FakeClock()
        self.stop: asyncio.Future[StopReason]

    def run(
        self,
        program: str | list[str],
        meanwhile: Callable[[], Awaitable[object]] | None = None,
        *,
        options: ChildOptions | None = None,
        real_time: bool = False,
    ) -> Ended:
        """Run Python source, or a command, to its end, and `meanwhile` beside it."""
        command = program if isinstance(program, list) else [sys.executable, "-ISc", PRELUDE + program]

        async def both() -> Ended:
            self.stop = asyncio.get_running_loop().create_future()
            environment = {**os.environ, "EAR": str(self.ear.fd)}
            clock = SystemClock() if real_time else self.clock
            async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
                running = group.create_task(run_child(command, environment, options or ChildOptions(), clock, self.stop))
                if meanwhile is not None:
                    await meanwhile()
                return await running

        return asyncio.run(both())


@pytest.fixture
def ear() -> Iterator[Ear]:
    pipe = Ear()
    yield pipe
    pipe.close()


@pytest.fixture
def guarded(ear: Ear) -> Guarded:
    return Guarded(ear)
