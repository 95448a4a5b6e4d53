"""The circuit breakers of a data directory as `holdfast breaker` and `holdfast status` show them; no gateway needs to run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from holdfast.errors import StorageError

if TYPE_CHECKING:
    from holdfast.execution.circuit import Standing
    from holdfast.policy.circuit_breaker import BreakerState, Isolation


class Shown(Struct, frozen=True, kw_only=True):
    """One breaker. since, until: wall clock in nanoseconds, 0 where there is none. standing: None where no call of it has ended yet."""

    name: str
    state: "BreakerState"
    reason: str
    since: int
    until: int
    standing: "Standing | None"
    isolation: "Isolation | None"


class Breakers(Struct, frozen=True, kw_only=True):
    """all: by name. uncounted: calls that passed while the table was full. damage: why some of it is not known, "" otherwise."""

    all: tuple[Shown, ...] = ()
    uncounted: int = 0
    damage: str = ""

    @property
    def troubled(self) -> tuple[Shown, ...]:
        """Those that are not closed."""
        return tuple(shown for shown in self.all if shown.state != "closed")


def look(folder: Path) -> Breakers:
    """What is counted and held open now; changes nothing."""
    from holdfast.shared.breaker_state import FILE as TABLE
    from holdfast.shared.breaker_state import open_table
    from holdfast.shared.isolations import FILE, read
    from holdfast.system_clock import SystemClock

    isolated: dict[str, Isolation] = {}
    standings: dict[str, Standing] = {}
    damage: list[str] = []
    uncounted = 0
    now_ns, wall_ns = SystemClock.monotonic_ns(), SystemClock.wall_ns()
    try:
        isolated = {isolation.name: isolation for isolation in read(folder / FILE).isolated}
    except StorageError as error:
        damage.append(str(error))
    if (folder / TABLE).exists():
        try:
            table = open_table(folder)
        except StorageError as error:
            damage.append(str(error))
        else:
            standings = {standing.name: standing for standing in table.standings(now_ns)}
            uncounted = table.uncounted
            table.release()
    names = sorted({*isolated, *standings})
    shown = tuple(_shown(name, standings.get(name), isolated.get(name), wall_ns - now_ns) for name in names)
    return Breakers(all=shown, uncounted=uncounted, damage="; ".join(damage))


def record(shown: Shown) -> dict[str, Any]:
    """A breaker as JSON has it."""
    from holdfast.clock import to_iso
    from holdfast.execution.breakers import kind_of
    from holdfast.policy.circuit_breaker import Counts

    counts = Counts() if shown.standing is None else shown.standing.counts
    return {
        "breaker": shown.name,
        "scope": kind_of(shown.name),
        "state": shown.state,
        "since": to_iso(shown.since) if shown.since else None,
        "reason": shown.reason,
        "author": shown.isolation.author if shown.isolation is not None else "",
        "until": to_iso(shown.until) if shown.until else None,
        "probes": 0 if shown.standing is None else shown.standing.probes,
        "calls": counts.calls,
        "failures": counts.failures + counts.suspicions,
        "slow": counts.slow,
        "failure_rate": counts.failure_rate,
        "slow_rate": counts.slow_rate,
    }


def line(shown: Shown) -> str:
    """A breaker for people."""
    from holdfast.cli._output import local_time, one_line

    name = one_line(shown.name)
    if shown.state == "closed":
        assert shown.standing is not None
        counts = shown.standing.counts
        return f"{name}: closed; {counts.calls} calls, {counts.failures + counts.suspicions} failed, {counts.slow} slow"
    since = f" since {local_time(shown.since)}" if shown.since else ""
    state = shown.state.replace("_", "-")
    return f"{name}: {state}{since}: {one_line(shown.reason) or 'no reason given'}{_next(shown)}"


def _next(shown: Shown) -> str:
    from holdfast.cli._output import duration
    from holdfast.system_clock import SystemClock

    if shown.state == "isolated":
        return ""
    if shown.state == "half_open":
        running = 0 if shown.standing is None else shown.standing.probes
        return f"; {running} {'probe' if running == 1 else 'probes'} on the way"
    left = shown.until - SystemClock.wall_ns()
    return f"; may be probed in {duration(left)}" if left > 0 else "; the next call is a probe"


def _shown(name: str, standing: "Standing | None", isolation: "Isolation | None", offset_ns: int) -> Shown:
    """offset_ns: from the monotonic clock to the wall's."""
    if isolation is not None:
        reason = isolation.why.removeprefix(": ").strip()
        return Shown(name=name, state="isolated", reason=reason, since=isolation.at, until=0, standing=standing, isolation=isolation)
    assert standing is not None
    return Shown(
        name=name,
        state=standing.state,
        reason=standing.reason,
        since=standing.since,
        until=standing.until_ns + offset_ns if standing.until_ns else 0,
        standing=standing,
        isolation=None,
    )
