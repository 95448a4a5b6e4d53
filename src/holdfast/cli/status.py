"""`holdfast status`: what runs, what is stopped, which circuit breakers are open, what is spent."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from holdfast.cli import _breaker, _kill
from holdfast.cli._options import AsJson, ConfigFile, DataDir, config_file, data_dir

if TYPE_CHECKING:
    from holdfast.cli._output import Text
    from holdfast.config import Config
    from holdfast.policy.kill import Kill
    from holdfast.policy.limit import Limit
    from holdfast.shared.presence import Present

_RECENT = 1000
_MOST_ACCOUNTS = 5


class _Seen(Struct, frozen=True):
    """An agent and its release, as decisions name them; last: wall clock of the newest."""

    agent: str
    release: str
    last: int


class _Spent(Struct, frozen=True):
    limit: "Limit"
    value: str
    spent: int


class _Status(Struct, frozen=True, kw_only=True):
    """damage: why nobody knows what is killed, "" otherwise. unconfigured, unspent: why limits, or what they hold, are not known."""

    kills: "tuple[Kill, ...]" = ()
    damage: str = ""
    gateways: "Sequence[Present]" = ()
    seen: Sequence[_Seen] = ()
    limits: Sequence[_Spent] = ()
    unconfigured: str = ""
    unspent: str = ""
    breakers: _breaker.Breakers = _breaker.Breakers()


def status(as_json: AsJson = False, data: DataDir = None, config: ConfigFile = None) -> None:
    """Show what runs, what is stopped, which circuit breakers are open, and what is spent.

    Agents are those of the last 1,000 decisions. With --json: one object, with closed breakers too.

    \b
    Example:
      holdfast status --json | jq .kills
    """
    from holdfast.cli._output import print_json, print_page

    folder = data_dir(data)
    found = _look(folder, config or _of_the_running(folder) or config_file(None))
    if as_json:
        print_json([_record(folder, found)])
    else:
        print_page(_page(folder, found))


def _look(folder: Path, config: Path | None) -> _Status:
    from holdfast.config import load
    from holdfast.errors import HoldfastError
    from holdfast.shared.kill_switch import now
    from holdfast.shared.presence import present

    kills: tuple[Kill, ...] = ()
    damage = unconfigured = unspent = ""
    limits: list[_Spent] = []
    try:
        kills = now(folder).kills
    except HoldfastError as error:
        damage = str(error)
    try:
        configured = load(config, os.environ)
    except HoldfastError as error:
        unconfigured = str(error)
    else:
        try:
            limits = _spent(configured, folder)
        except HoldfastError as error:
            unspent = str(error)
    return _Status(
        kills=kills,
        damage=damage,
        gateways=present(folder),
        seen=_seen(folder),
        limits=limits,
        unconfigured=unconfigured,
        unspent=unspent,
        breakers=_breaker.look(folder),
    )


def _of_the_running(folder: Path) -> Path | None:
    """The configuration of the `up` that runs, if one does: its limits are what holds."""
    from holdfast.assembly.running import find

    running = find(folder)
    return Path(running.config) if running is not None and running.config else None


def _seen(folder: Path) -> list[_Seen]:
    from holdfast.events import Decision
    from holdfast.store.reader import JournalReader

    last: dict[tuple[str, str], int] = {}
    for event in islice(JournalReader(folder).events((Decision,)), _RECENT):
        if isinstance(event, Decision):
            name = (event.agent, event.release)
            last[name] = max(last.get(name, 0), event.timestamp)
    return sorted((_Seen(*name, at) for name, at in last.items()), key=lambda each: each.last, reverse=True)


def _spent(config: "Config", folder: Path) -> list[_Spent]:
    """What each limit holds; of limits per user, run or interaction the accounts that hold most."""
    from holdfast.ledger import postgresql, sqlite
    from holdfast.system_clock import SystemClock

    now_ns, url = SystemClock.wall_ns(), config.ledger.url
    accounts = postgresql.read_spent(url, now_ns) if url else sqlite.read_spent(folder / "ledger.sqlite", now_ns)
    found: list[_Spent] = []
    for limit in (*config.gateway.limits, *(limit for agent in config.gateway.agents for limit in agent.limits)):
        of_limit = _accounts(limit, accounts)
        if limit.scope in ("all", "agent"):
            value = limit.owner if limit.scope == "agent" else ""
            of_limit.setdefault(value, 0)
        most = sorted(of_limit.items(), key=lambda each: (-each[1], each[0]))[:_MOST_ACCOUNTS]
        found += [_Spent(limit, value, spent) for value, spent in most]
    return found


def _accounts(limit: "Limit", accounts: dict[str, int]) -> dict[str, int]:
    """By the value that is counted."""
    before, after = limit.account("\0").split("\0")
    return {
        account[len(before) : -len(after)]: spent
        for account, spent in accounts.items()
        if account.startswith(before) and account.endswith(after)
    }


def _record(folder: Path, found: _Status) -> dict[str, Any]:
    from holdfast.cli._output import usd_number
    from holdfast.clock import to_iso

    return {
        "data_dir": str(folder),
        "kills": [_kill.record(kill) for kill in found.kills],
        "kill_switch_damaged": found.damage or None,
        "gateways": [
            {
                "pid": each.gateway.pid,
                "kind": each.gateway.kind,
                "address": each.gateway.address,
                "run": each.gateway.run,
                "agents": each.gateway.agents,
                "releases": each.gateway.releases,
                "started": to_iso(each.gateway.started),
                "waiting": each.waiting,
            }
            for each in found.gateways
        ],
        "agents": [{"agent": each.agent, "release": each.release, "last_decision": to_iso(each.last)} for each in found.seen],
        "limits": [
            {
                "limit": each.limit.describe(each.value),
                "scope": each.limit.scope,
                "value": each.value,
                "unit": each.limit.unit,
                "amount": None if not each.limit.binding else _amount(each.limit, each.limit.amount, usd_number),
                "spent": _amount(each.limit, each.spent, usd_number),
            }
            for each in found.limits
        ],
        "limits_unknown": found.unconfigured or found.unspent or None,
        "breakers": [_breaker.record(shown) for shown in found.breakers.all],
        "breakers_unknown": found.breakers.damage or None,
        "breakers_uncounted_calls": found.breakers.uncounted,
    }


def _amount(limit: "Limit", amount: int, usd: Any) -> Any:
    return usd(amount) if limit.unit == "usd" else amount


def _page(folder: Path, found: _Status) -> "Iterator[Text]":
    from holdfast.cli._output import Text, local_time, one_line

    yield from _kills(found)
    yield Text("gateways", "bold")
    for each in found.gateways:
        gateway = each.gateway
        what = f"run {gateway.run}" if gateway.run else f"worker on {gateway.address}"
        agents = one_line(", ".join(gateway.agents))
        yield Text(f"  {gateway.pid:>7} {what}, since {local_time(gateway.started)}: {agents} {', '.join(gateway.releases)}")
        if each.waiting:
            waiting = one_line(", ".join(f"{calls} of {agent}" for agent, calls in sorted(each.waiting.items())))
            yield Text(f"          calls that wait for a target: {waiting}", "yellow")
    if not found.gateways:
        yield Text(f"  none on {folder}: `holdfast up` or `holdfast run -- COMMAND` starts one; --data-dir names another place")
    yield Text("agents", "bold")
    for seen in found.seen:
        yield Text(f"  {one_line(seen.agent)} {one_line(seen.release)}, last decision {local_time(seen.last)}")
    if not found.seen:
        yield Text("  no decision on record yet")
    yield Text("circuit breakers", "bold")
    yield from _breakers(found.breakers)
    yield Text("limits", "bold")
    yield from _limits(found)


def _breakers(found: _breaker.Breakers) -> "Iterator[Text]":
    from holdfast.cli._output import Text, one_line

    for shown in found.troubled:
        yield Text(f"  {_breaker.line(shown)}", "yellow")
    closed = len(found.all) - len(found.troubled)
    if closed or not found.all:
        yield Text(f"  {closed} closed" if closed else "  none has counted a call yet")
    if found.uncounted:
        yield Text(f"  {found.uncounted} calls passed uncounted: more breakers were open than there is room for", "yellow")
    if found.damage:
        yield Text(f"  not known: {one_line(found.damage)}", "yellow")


def _kills(found: _Status) -> "Iterator[Text]":
    from holdfast.cli._output import Text, local_time, one_line

    if found.damage:
        yield Text(f"EVERYTHING IS STOPPED: {found.damage}", "bold red")
    elif not found.kills:
        yield Text("nothing is stopped", "green")
    for kill in found.kills:
        since = local_time(kill.at)
        yield Text(
            f"STOPPED: {one_line(kill.describe())} ({kill.mode}) since {since}{one_line(kill.why) and ' '}{one_line(kill.why)}", "bold red"
        )


def _limits(found: _Status) -> "Iterator[Text]":
    from holdfast.cli._output import Text, one_line, usd

    for each in found.limits:
        spent = _amount(each.limit, each.spent, usd)
        if each.limit.binding:
            yield Text(f"  {one_line(each.limit.describe(each.value))}: {spent} spent, {100 * each.spent // max(1, each.limit.amount)} %")
        else:
            marks = ", ".join(usd(mark) for mark in each.limit.marks)
            yield Text(f"  mark at {marks}: {spent} spent")
    if unknown := found.unconfigured or found.unspent:
        yield Text(f"  not known: {one_line(unknown)}", "yellow")
    elif not found.limits:
        yield Text("  none configured")


PLUGIN = status
