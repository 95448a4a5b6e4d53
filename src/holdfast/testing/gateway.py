"""Runs a real gateway inside a test: on a free loopback port, in a thread of its own, with its data in a directory of the test's."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from holdfast.assembly.data_plane import DataPlane, Hooks, Listen, open_data_plane
from holdfast.clock import SECOND
from holdfast.config import load
from holdfast.config.jobs import JobsConfig
from holdfast.gateway.options import GatewayOptions
from holdfast.testing.simulated_provider import Address


@contextmanager
def gateway_in_thread(
    options: GatewayOptions,
    data_dir: Path,
    hooks: Hooks = Hooks(),  # noqa: B008 - frozen
    jobs: JobsConfig | None = None,
) -> Iterator[Address]:
    """Serves while the block runs; its end waits for what is in progress (at most a second) and leaves journal and ledger complete."""
    begun: Future[tuple[Address, asyncio.AbstractEventLoop]] = Future()
    stop = asyncio.Event()

    async def serve_until_stopped() -> None:
        plane: DataPlane = await open_data_plane(options, data_dir, Listen(), hooks, jobs=jobs)
        begun.set_result((Address(plane.server.host, plane.server.port), asyncio.get_running_loop()))
        await stop.wait()
        await plane.close(SECOND)

    def run() -> None:
        try:
            asyncio.run(serve_until_stopped())
        except BaseException as error:  # whatever it is belongs to the thread that waits
            if begun.done():
                raise
            begun.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    address, loop = begun.result()
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def options_for(upstream: Address, yaml: str = "", folder: Path = Path()) -> GatewayOptions:
    """Gateway options from a piece of configuration, in which the providers `openai`, `anthropic` and `simulated` lead to `upstream`."""
    file = folder / "holdfast.yaml"
    file.write_text(
        "providers:\n"
        f"  openai: {{kind: openai, base_url: '{upstream.openai}', api_key: env:UPSTREAM_KEY}}\n"
        f"  anthropic: {{kind: anthropic, base_url: '{upstream.anthropic}', api_key: env:UPSTREAM_KEY}}\n"
        f"  simulated: {{kind: simulated, base_url: '{upstream.openai}'}}\n" + yaml,
        "utf-8",
    )
    return load(file, {"UPSTREAM_KEY": "sk-upstream"}).gateway
