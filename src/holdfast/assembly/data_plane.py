"""Puts a gateway together: ledger, limiter, journal, upstream client, HTTP server."""

import os
import random
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct

from holdfast.assembly.kill_watch import KillWatch
from holdfast.assembly.limits import Limits, open_limits
from holdfast.clock import SECOND
from holdfast.config.ledger import LedgerOptions
from holdfast.errors import StorageError
from holdfast.execution.recording import Recorder
from holdfast.gateway.application import Gateway
from holdfast.gateway.gate import Gate
from holdfast.gateway.options import GatewayOptions
from holdfast.gateway.parts import Parts
from holdfast.gateway.routing import Routing
from holdfast.http.client import Client, ClientOptions
from holdfast.http.server import Server, ServerOptions, serve
from holdfast.policy.history import Conversations
from holdfast.policy.kill import Kills
from holdfast.policy.limit import LimitReached
from holdfast.shared import presence
from holdfast.store.journal import Journal
from holdfast.system_clock import SystemClock

DRAIN_NS = 10 * SECOND
"""How long calls in progress may go on after a stop was asked for."""


class Listen(Struct, frozen=True, kw_only=True):
    """Where the gateway listens. reuse_port: several processes share the address. sock: an open socket to take over instead."""

    host: str = "127.0.0.1"
    port: int = 0
    reuse_port: bool = False
    sock: socket.socket | None = None


class Hooks(Struct, frozen=True, kw_only=True):
    """What a caller wants to hear of. limit_refused: every refusal by a limit. kills_changed: what is killed, at first and at every
    change, after it was carried out for the calls in progress. recorder: wraps the journal that events go to."""

    limit_refused: Callable[[LimitReached], None] = lambda reached: None
    kills_changed: Callable[[Kills], None] = lambda kills: None
    recorder: Callable[[Recorder], Recorder] = lambda journal: journal


class DataPlane(Struct, frozen=True, kw_only=True):
    """A gateway that answers."""

    server: Server
    recorder: Recorder
    _watch: KillWatch
    _client: Client
    _limits: Limits
    _journal: Journal
    _executor: ThreadPoolExecutor

    async def close(self, drain_ns: int = DRAIN_NS) -> None:
        """Let calls in progress end, give back what was leased, write everything down."""
        await self.server.close(drain_ns)
        await self._client.close()
        self._watch.close()
        await self._limits.close()
        self._journal.close()
        self._executor.shutdown()


async def open_data_plane(
    options: GatewayOptions,
    data_dir: Path,
    listen: Listen,
    hooks: Hooks = Hooks(),  # noqa: B008 - frozen
    ledger: LedgerOptions = LedgerOptions(),  # noqa: B008 - frozen
) -> DataPlane:
    """Start a gateway; raises StorageError, ConfigError, or OSError when the address cannot be had."""
    _make_private_folder(data_dir)
    clock = SystemClock()
    async with AsyncExitStack() as undo:
        watch = KillWatch(data_dir, _serving(options, listen, clock), clock)
        undo.callback(watch.close)
        holder = secrets.token_hex(6)
        executor = ThreadPoolExecutor(1, "holdfast-journal")
        undo.callback(executor.shutdown)
        journal = Journal(data_dir, holder, clock, executor)
        recorder = hooks.recorder(journal)
        limits = open_limits(ledger, data_dir, holder, clock, recorder)
        undo.push_async_callback(limits.close)
        client = Client(ClientOptions(), clock)
        gate = Gate(limits.limiter, options.limits, watch.switch, allow_unchecked=ledger.allow_unchecked)
        gateway = Gateway(_parts(options, clock, client, gate, recorder, hooks))
        server = await serve(gateway, listen.host, listen.port, ServerOptions(), clock, reuse_port=listen.reuse_port, sock=listen.sock)
        undo.push_async_callback(server.close, 0)

        def carry_out(kills: Kills) -> None:
            gateway.kills_changed()
            hooks.kills_changed(kills)

        watch.start(carry_out)
        undo.pop_all()
    return DataPlane(
        server=server,
        recorder=recorder,
        _watch=watch,
        _client=client,
        _limits=limits,
        _journal=journal,
        _executor=executor,
    )


def _parts(options: GatewayOptions, clock: SystemClock, client: Client, gate: Gate, recorder: Recorder, hooks: Hooks) -> Parts:
    for provider in options.providers:  # price lists load on first use; the first call must not wait for them
        provider.prices.rates("", clock.wall_ns())
    source = random.Random(secrets.randbits(128))  # noqa: S311 - spreads retries and numbers events, guards nothing
    return Parts(
        options=options,
        clock=clock,
        upstream=client,
        gate=gate,
        recorder=recorder,
        conversations=Conversations(),
        routing=Routing(options.providers),
        in_progress=set(),
        uniform=source.random,
        bits=source.getrandbits,
        limit_refused=hooks.limit_refused,
    )


def _serving(options: GatewayOptions, listen: Listen, clock: SystemClock) -> presence.Gateway:
    """This process, as commands about the data directory see it."""
    return presence.Gateway(
        pid=os.getpid(),
        kind="run" if options.run else "worker",
        address=f"{listen.host}:{listen.port}" if listen.port else "",
        agents=tuple(agent.name for agent in options.agents),
        releases=tuple(sorted({agent.release for agent in options.agents})),
        started=clock.wall_ns(),
        run=options.run,
    )


def _make_private_folder(path: Path) -> None:
    """What lies there (prompts, what was spent) is this user's alone."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the data directory {path} cannot be made: {error.strerror}; name another with --data-dir") from error
