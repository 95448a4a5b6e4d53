"""Puts a gateway together: ledger, limiter, journal, upstream client, HTTP server."""

import asyncio
import os
import random
import resource
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from msgspec import Struct, structs

from holdfast.assembly.jobs import JobService, open_jobs
from holdfast.assembly.kill_watch import KillWatch
from holdfast.assembly.limits import Limits, open_limits
from holdfast.clock import SECOND
from holdfast.config.jobs import JobsConfig
from holdfast.config.ledger import LedgerOptions
from holdfast.errors import StorageError
from holdfast.execution.admission_queue import AdmissionQueue
from holdfast.execution.breakers import Breakers
from holdfast.execution.rates import Rates
from holdfast.execution.recording import Recorder
from holdfast.gateway.application import Gateway
from holdfast.gateway.gate import Gate
from holdfast.gateway.options import GatewayOptions
from holdfast.gateway.parts import Parts
from holdfast.gateway.recovery import RetryAllowances
from holdfast.gateway.routing import Routing
from holdfast.gateway.turns import Turns
from holdfast.http.client import Client, ClientOptions
from holdfast.http.server import Server, ServerOptions, serve
from holdfast.policy.history import Conversations, Places
from holdfast.policy.kill import Kills
from holdfast.policy.limit import LimitReached
from holdfast.policy.loop_guard import LoopGuard
from holdfast.shared import presence
from holdfast.shared.breaker_state import BreakerState
from holdfast.shared.rate_tables import RateTables
from holdfast.store.journal import Journal
from holdfast.system_clock import SystemClock

DRAIN_NS = 10 * SECOND
"""How long calls in progress may go on after a stop was asked for."""

_OTHER_DESCRIPTORS = 128
"""Left for files, the ledger and connections that lie idle."""


class Listen(Struct, frozen=True, kw_only=True):
    """Where the gateway listens. sock: an open socket to take over instead."""

    host: str = "127.0.0.1"
    port: int = 0
    sock: socket.socket | None = None


class Hooks(Struct, frozen=True, kw_only=True):
    """What a caller wants to hear of. limit_refused: every refusal by a limit. kills_changed: what is killed, at first and at every
    change, after it was carried out for the calls in progress. recorder: wraps the journal that events go to. places: where conversations
    stand, when other processes continue them too."""

    limit_refused: Callable[[LimitReached], None] = lambda reached: None
    kills_changed: Callable[[Kills], None] = lambda kills: None
    recorder: Callable[[Recorder], Recorder] = lambda journal: journal
    places: Places | None = None


class DataPlane(Struct, frozen=True, kw_only=True):
    """A gateway that answers."""

    server: Server
    recorder: Recorder
    _trouble: Callable[[], str]
    _watch: KillWatch
    _client: Client
    _limits: Limits
    _journal: Journal
    _executor: ThreadPoolExecutor
    _tables: RateTables
    _queue: AdmissionQueue
    _jobs: JobService | None
    _breakers: BreakerState

    @property
    def trouble(self) -> str:
        """Why calls are refused now, for want of limits or of a record; "" when they are served."""
        return self._trouble()

    def look_after(self) -> None:
        """Say who waits, and find out whether trouble is over, where no call will: those that watch readiness send none meanwhile."""
        self._watch.tell(self._queue.by_agent())
        if self._journal.trouble:
            with suppress(StorageError):  # it is not; `trouble` goes on saying so
                self._journal.flush()

    async def retire(self, idle_ns: int) -> None:
        """Take no more connections and jobs; returns once none is left. idle_ns: see `Server.retire`."""
        ends = [self.server.retire(idle_ns)] if self._jobs is None else [self.server.retire(idle_ns), self._jobs.idle()]
        await asyncio.gather(*ends)

    async def close(self, drain_ns: int = DRAIN_NS) -> None:
        """Let calls and jobs in progress end, give back what was leased, write everything down."""
        self._queue.close()  # what waits would hardly be served in time, and another process may do so
        ends = [self.server.close(drain_ns)] if self._jobs is None else [self.server.close(drain_ns), self._jobs.close(drain_ns)]
        await asyncio.gather(*ends)
        if self._jobs is not None:
            self._jobs.release()
        await self._client.close()
        self._watch.close()
        await self._limits.close()
        self._journal.close()
        self._executor.shutdown()
        self._tables.release()
        self._breakers.release()


async def open_data_plane(
    options: GatewayOptions,
    data_dir: Path,
    listen: Listen,
    hooks: Hooks = Hooks(),  # noqa: B008 - frozen
    ledger: LedgerOptions = LedgerOptions(),  # noqa: B008 - frozen
    jobs: JobsConfig | None = None,
) -> DataPlane:
    """Start a gateway; raises StorageError, ConfigError, or OSError when the address cannot be had. jobs: None for a gateway that lives
    no longer than its agent, which answers at once or not at all."""
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
        tables = RateTables(data_dir)
        undo.callback(tables.release)
        state = BreakerState(data_dir)
        undo.callback(state.release)
        source = random.Random(secrets.randbits(128))  # noqa: S311 - spreads retries and numbers events, guards nothing
        breakers = Breakers(state.table, state.isolations, clock, recorder, source.random)
        client = Client(ClientOptions(), clock)
        gate = Gate(
            limits.limiter, options.limits, _turns(tables, options, clock), watch.switch, breakers, allow_unchecked=ledger.allow_unchecked
        )
        trouble = _trouble_of(limits, journal, checked=not ledger.allow_unchecked)
        parts = _parts(options, clock, client, gate, recorder, hooks, source)
        service = None if jobs is None else open_jobs(jobs, parts, data_dir)
        if service is not None:
            undo.push_async_callback(service.close, 0)
        gateway = Gateway(parts, trouble, jobs=None if service is None else service.jobs)
        server = await serve(gateway, listen.host, listen.port, _server_options(), clock, sock=listen.sock, relayed=gateway.relayed)
        gateway.answering = lambda: server.answering
        undo.push_async_callback(server.close, 0)
        watch.start(_carrying_out(gateway, hooks))
        undo.pop_all()
    return DataPlane(
        server=server,
        recorder=recorder,
        _trouble=trouble,
        _watch=watch,
        _client=client,
        _limits=limits,
        _journal=journal,
        _executor=executor,
        _tables=tables,
        _queue=parts.queue,
        _jobs=service,
        _breakers=state,
    )


def _carrying_out(gateway: Gateway, hooks: Hooks) -> Callable[[Kills], None]:
    def carry_out(kills: Kills) -> None:
        gateway.kills_changed()
        hooks.kills_changed(kills)

    return carry_out


def _turns(tables: RateTables, options: GatewayOptions, clock: SystemClock) -> Turns:
    return Turns(Rates(tables.rates, tables.pools, clock), options.rates, clock)


def _trouble_of(limits: Limits, journal: Journal, *, checked: bool) -> Callable[[], str]:
    return lambda: (limits.limiter.trouble if checked else "") or journal.trouble


def _parts(
    options: GatewayOptions, clock: SystemClock, client: Client, gate: Gate, recorder: Recorder, hooks: Hooks, source: random.Random
) -> Parts:
    for provider in options.providers:  # price lists load on first use; the first call must not wait for them
        provider.prices.rates("", clock.wall_ns())
    return Parts(
        options=options,
        clock=clock,
        upstream=client,
        gate=gate,
        recorder=recorder,
        conversations=Conversations(hooks.places),
        routing=Routing(options.providers, options.tools),
        allowances=RetryAllowances(clock),
        loop_guard=LoopGuard(),
        queue=AdmissionQueue(clock, source.random),
        in_progress=set(),
        uniform=source.random,
        bits=source.getrandbits,
        limit_refused=hooks.limit_refused,
    )


def _server_options() -> ServerOptions:
    """As many connections as this process has descriptors for, each call taking one more to its provider."""
    options = ServerOptions()
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        return options
    return structs.replace(options, max_connections=min(options.max_connections, max((descriptors - _OTHER_DESCRIPTORS) // 2, 16)))


def _serving(options: GatewayOptions, listen: Listen, clock: SystemClock) -> presence.Gateway:
    """This process, as commands about the data directory see it."""
    host, port = (listen.host, listen.port) if listen.sock is None else listen.sock.getsockname()[:2]
    return presence.Gateway(
        pid=os.getpid(),
        kind="run" if options.run else "worker",
        address=f"{host}:{port}" if port else "",
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
