"""One gateway process of `holdfast up`, started by the supervisor as `python -m holdfast.assembly.worker`.

The order comes as one JSON document on standard input, which then stays open: its end is the supervisor's end, and the worker's.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec

from holdfast.assembly.data_plane import Listen, open_data_plane
from holdfast.assembly.order import READY, WorkerOrder
from holdfast.config import load
from holdfast.errors import HoldfastError
from holdfast.runner.shield import shield_process

_YOUNG_OBJECTS = 50_000
"""Allocations between looks for cyclic garbage; calls make none that live long, so looking every 700 would be work for nothing."""


def main() -> int:
    """Serve until standard input ends or TERM comes; exit code 0 after an orderly stop, else 1 and why, on standard output."""
    for interruption in (signal.SIGINT, signal.SIGHUP):  # these reach the whole process group; the supervisor decides
        signal.signal(interruption, signal.SIG_IGN)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerOrder)
    try:
        with _runner() as runner:
            runner.run(_serve(order))
    except (HoldfastError, OSError) as error:
        sys.stdout.write(f"{error}\n")
        return 1
    return 0


async def _serve(order: WorkerOrder) -> None:
    config = load(None if order.config is None else Path(order.config), os.environ)
    shield_process()
    sock = None if order.listener is None else socket.socket(fileno=order.listener)
    listen = Listen(host=order.host, port=order.port, reuse_port=sock is None, sock=sock)
    plane = await open_data_plane(config.gateway, Path(order.data_dir), listen, ledger=config.ledger)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop.set)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    await stop.wait()
    loop.remove_reader(sys.stdin.fileno())
    await plane.close()


def _runner() -> asyncio.Runner:
    """On uvloop where it is installed (`holdfast[fast]`): a quarter less work to relay a call or a streamed piece."""
    with contextlib.suppress(ImportError):
        import uvloop

        return asyncio.Runner(loop_factory=uvloop.new_event_loop)
    return asyncio.Runner()


if __name__ == "__main__":
    sys.exit(main())
