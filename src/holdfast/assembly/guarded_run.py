"""`holdfast run`: a gateway of its own around one agent's process."""

import asyncio
import os
import secrets
import sys
from collections.abc import Mapping

from msgspec import structs

from holdfast.assembly.data_plane import DataPlane, Hooks, Listen, open_data_plane
from holdfast.clock import SECOND
from holdfast.config import Config, load, real_key_variables
from holdfast.errors import CannotStart, UsageError
from holdfast.events import RunEnded, RunStarted
from holdfast.events.ids import uuid7
from holdfast.gateway.options import AgentOptions, GatewayOptions
from holdfast.policy.kill import Kill, Kills
from holdfast.policy.limit import WINDOWS, Limit, LimitReached, Unit
from holdfast.runner.child import ChildOptions, Ended, StopReason, run_child
from holdfast.runner.environment import child_environment
from holdfast.runner.programs import adapt
from holdfast.runner.request import RunRequest
from holdfast.runner.shield import shield_process
from holdfast.runner.summary import Summary, render, write
from holdfast.runner.tally import Tally
from holdfast.system_clock import SystemClock

_DRAIN_NS = SECOND
"""The agent is gone when the gateway closes; nothing is left to wait for but the end of what it abandoned."""


def run_guarded(request: RunRequest) -> int:
    """Run the command under guard; returns the agent's exit code, or 124 time-out, 122 hard limit, 123 kill switch."""
    config = load(request.config, os.environ)
    shield_process()
    for warning in config.warnings:
        sys.stderr.write(f"holdfast: {warning}\n")
    return asyncio.run(_run(request, config, os.environ))


class _Stop:
    """Why the agent is to be ended, once it is. kill: by what the kill switch ends it."""

    def __init__(self, agent: AgentOptions) -> None:
        self.asked: asyncio.Future[StopReason] = asyncio.get_running_loop().create_future()
        self.kill: Kill | None = None
        self._agent = agent
        self._begun = False

    def ask(self, reason: StopReason) -> None:
        if not self.asked.done():
            self.asked.set_result(reason)

    def kills_changed(self, kills: Kills) -> None:
        """What cannot be read lets no agent start; one that runs already only gets its calls refused, until it can be read again."""
        begun, self._begun = self._begun, True
        kill = kills.stopping((self._agent.name, self._agent.based_on), self._agent.release, ())
        if kill is not None and not (begun and kills.unreadable) and not self.asked.done():
            self.kill = kill
            self.ask("killed")


async def _run(request: RunRequest, config: Config, environment: Mapping[str, str]) -> int:
    clock = SystemClock()
    began_ns = clock.monotonic_ns()
    run, key = uuid7(clock.wall_ns(), secrets.randbits(74)), f"hf-run-{secrets.token_urlsafe(24)}"
    agent = _agent(request, config, key)
    stop = _Stop(agent)
    tally = Tally()

    def limit_refused(reached: LimitReached) -> None:
        tally.limit_reached(reached.limit.describe(reached.value))
        if reached.limit.scope == "run":
            stop.ask("limit")

    plane = await open_data_plane(
        _options(request, config, agent, run),
        request.data_dir,
        Listen(),
        Hooks(limit_refused=limit_refused, kills_changed=stop.kills_changed, recorder=tally.around),
        config.ledger,
    )
    try:
        if stop.kill is not None:
            raise CannotStart(f"the run is refused: {stop.kill.describe()} was stopped with the kill switch{stop.kill.why}", 123)
        plane.recorder.append(
            RunStarted(
                run=run, timestamp=clock.wall_ns(), agent=agent.name, release=agent.release, user_id=request.user, command=request.command
            )
        )
        plane.recorder.flush()
        gateway_url = f"http://{plane.server.host}:{plane.server.port}"
        child = child_environment(
            environment,
            gateway_url=gateway_url,
            key=key,
            real_key_variables=real_key_variables(config),
            secret_values=[secret.reveal() for secret in config.secrets],
            run_id=run,
        )
        command, child = adapt(request.command, child, gateway_url=gateway_url, key=key)
        ended = await run_child(command, child, ChildOptions(timeout_ns=request.timeout_ns), clock, stop.asked)
        duration_ns = clock.monotonic_ns() - began_ns
        await plane.server.close(_DRAIN_NS)  # what the agent left open is settled before it is summed up
        summary = _summary(tally, ended, request, agent, run, duration_ns, stop)
        _tell(render(summary, colour=sys.stderr.isatty() and not environment.get("NO_COLOR")))
        try:
            _record_end(plane, summary, clock)
        finally:
            if request.summary is not None:
                write(summary, request.summary)
    finally:
        await plane.close(_DRAIN_NS)
    return summary.exit_code


def _tell(text: str) -> None:
    """To standard error; that it is a log file on a full disk changes nothing about how the run ended."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:  # what stays in the buffer would fail again at the interpreter's end, and become exit code 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _agent(request: RunRequest, config: Config, key: str) -> AgentOptions:
    """The agent of the configuration that runs, with the one-run key and what the command line says of it."""
    known = {agent.name: agent for agent in config.gateway.agents}
    unnamed = known.get("default")
    agent = known.get(request.agent) if request.agent else unnamed or (next(iter(known.values())) if len(known) == 1 else None)
    if agent is None:
        if unnamed is None or len(known) > 1:
            asked = (
                f"there is no agent {request.agent!r} in the configuration" if request.agent else "the configuration names several agents"
            )
            raise UsageError(f"{asked}; choose with --agent one of: {', '.join(sorted(known))}")
        agent = structs.replace(unnamed, name=request.agent, based_on=unnamed.name)
    retries = agent.retries if request.max_retries is None else structs.replace(agent.retries, max=request.max_retries)
    return structs.replace(agent, key=key, release=request.release or agent.release, retries=retries)


def _options(request: RunRequest, config: Config, agent: AgentOptions, run: str) -> GatewayOptions:
    """Only this run's key opens its gateway; the limits of the command line count this run alone."""
    asked: tuple[tuple[Unit, int | None, int | None], ...] = (
        ("usd", request.cost_limit, None),
        ("calls", request.call_limit, None),
        ("calls", request.calls_per_hour, WINDOWS["hour"]),
        ("tokens", request.token_limit, None),
    )
    own = tuple(Limit(scope="run", unit=unit, amount=amount, per_ns=per_ns) for unit, amount, per_ns in asked if amount is not None)
    return structs.replace(config.gateway, agents=(agent,), limits=config.gateway.limits + own, run=run, user=request.user)


def _summary(tally: Tally, ended: Ended, request: RunRequest, agent: AgentOptions, run: str, duration_ns: int, stop: _Stop) -> Summary:
    return Summary(
        run=run,
        agent=agent.name,
        release=agent.release,
        user=request.user,
        exit_code=ended.exit_code,
        reason=ended.reason,
        duration_ns=duration_ns,
        calls=tally.calls,
        attempts=tally.attempts,
        usage=tally.usage,
        cost=tally.cost,
        unpriced=tally.unpriced,
        decisions=tally.decisions,
        refusals=tally.refusals,
        errors=tally.errors,
        last_error=tally.last_error,
        limits=tally.limits,
        kill="" if stop.kill is None else stop.kill.describe() + stop.kill.why,
        survivors=ended.survivors,
        look_up=request.look_up,
    )


def _record_end(plane: DataPlane, summary: Summary, clock: SystemClock) -> None:
    plane.recorder.append(
        RunEnded(
            run=summary.run,
            timestamp=clock.wall_ns(),
            agent=summary.agent,
            release=summary.release,
            exit_code=summary.exit_code,
            reason=summary.reason,
            calls=summary.calls,
            decisions=summary.decisions,
            refusals=summary.refusals,
            errors=summary.errors,
            cost=summary.cost,
        )
    )
    plane.recorder.flush()
