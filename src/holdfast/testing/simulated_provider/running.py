"""Runs a simulated provider on a free loopback port: in the caller's event loop, or in a thread of its own for blocking clients."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager

from msgspec import Struct

from holdfast.http.message import Application
from holdfast.http.server import ServerOptions, serve
from holdfast.system_clock import SystemClock


class Address(Struct, frozen=True):
    """Where a provider listens, as the SDKs of both families want to be told."""

    host: str
    port: int

    @property
    def anthropic(self) -> str:
        """For ANTHROPIC_BASE_URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def openai(self) -> str:
        """For OPENAI_BASE_URL."""
        return f"{self.anthropic}/v1"


@asynccontextmanager
async def running(application: Application, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Address]:
    """Serves while the block runs, in the same event loop; what is still open at its end is cut. Raises OSError."""
    server = await serve(application, host, port, ServerOptions(), SystemClock())
    try:
        yield Address(server.host, server.port)
    finally:
        await server.close(0)


async def running_until_signalled(application: Application, host: str, port: int, begun: Callable[[Address], None]) -> None:
    """Serves until SIGINT or SIGTERM; `begun` hears where. Raises OSError."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(application, host, port) as address:
        begun(address)
        await stop.wait()


@contextmanager
def running_in_thread(application: Application) -> Iterator[Address]:
    """Serves while the block runs, in another thread; what is still open at its end is cut."""
    begun: Future[tuple[Address, asyncio.AbstractEventLoop]] = Future()
    stop = asyncio.Event()

    async def serve_until_stopped() -> None:
        async with running(application) as address:
            begun.set_result((address, asyncio.get_running_loop()))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve_until_stopped(),), daemon=True)
    thread.start()
    address, loop = begun.result()
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
