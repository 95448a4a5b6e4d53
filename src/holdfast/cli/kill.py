"""`holdfast kill`: the kill switch. Once it has returned, not one more call is admitted."""

from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli import _kill
from holdfast.cli._options import AsJson, ConfigUnread, DataDir, data_dir

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.policy.kill import Kill


def kill(
    all_: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    agent: _kill.Agent = "",
    release: _kill.Release = "",
    model: _kill.Model = "",
    tool: _kill.Tool = "",
    cut: Annotated[
        bool, typer.Option("--cut/--drain", help="Cut calls in progress off too, or let them end.", show_default="drain")
    ] = False,
    reason: _kill.Reason = "",
    author: _kill.Author = "",
    as_json: AsJson = False,
    data: DataDir = None,
    config: ConfigUnread = None,
) -> None:
    """Stop everything, an agent, a release, a model or a tool.

    Once it has returned, not one more call is admitted; agents under `holdfast run` are ended (exit 123). It holds until
    `holdfast resume`, restarts included.

    \b
    Examples:
      holdfast kill --all --cut --reason "it refunds everybody"
      holdfast kill --agent support
      holdfast kill --tool refund_order

    Exit code: 0 once every gateway has confirmed, 1 if one has not.
    """
    from holdfast.policy.kill import Kill
    from holdfast.system_clock import SystemClock

    scope, value = _kill.scope_of(all_, agent=agent, release=release, model=model, tool=tool)
    killed = Kill(
        scope=scope,
        value=value,
        mode="cut" if cut else "drain",
        reason=_kill.within("--reason", " ".join(reason.split())),
        author=_kill.within("--author", author.strip() or _kill.whoever()),
        at=SystemClock.wall_ns(),
    )
    raise typer.Exit(_switch(data_dir(data), killed, as_json))


def _switch(folder: "Path", killed: "Kill", as_json: bool) -> int:
    from holdfast.shared.kill_switch import change
    from holdfast.system_clock import SystemClock

    serial = change(folder, lambda kills: kills.with_kill(killed))
    recorded = _record(folder, killed)
    confirmation = _kill.confirmed(folder, serial, SystemClock.monotonic_ns)
    _tell(folder, killed, confirmation, as_json)
    return 1 if confirmation.silent or not recorded else 0


def _record(folder: "Path", killed: "Kill") -> bool:
    """Who did it and why, for the journal; what is killed stays killed where that fails."""
    from holdfast.cli._output import note
    from holdfast.errors import StorageError
    from holdfast.events import KillChanged
    from holdfast.store.once import record_once

    event = KillChanged(
        timestamp=killed.at,
        action="kill",
        scope=killed.scope,
        value=killed.value,
        mode=killed.mode,
        reason=killed.reason,
        author=killed.author,
    )
    try:
        record_once(folder, killed.at, event)
    except StorageError as error:
        note(f"holdfast: the kill holds, but it is not on record: {error}")
        return False
    return True


def _tell(folder: "Path", killed: "Kill", confirmation: _kill.Confirmation, as_json: bool) -> None:
    import shlex

    from holdfast.cli._output import print_json, printable

    if as_json:
        silent = [gateway.pid for gateway in confirmation.silent]
        state = {"gateways": confirmation.gateways, "unconfirmed": silent, "confirmed_ms": confirmation.after_ms}
        print_json([{"action": "kill"} | _kill.record(killed) | state])
    else:
        what = killed.describe()
        option = "--all" if killed.scope == "all" else f"--{killed.scope} {shlex.quote(killed.value)}"
        gateways = "1 gateway" if confirmation.gateways == 1 else f"{confirmation.gateways} gateways"
        progress = "calls in progress are cut off" if killed.mode == "cut" else "calls in progress may end"
        print(printable(f"Stopped: {what}; {progress}. Confirmed by {gateways} after {confirmation.after_ms:.0f} ms."))
        print(printable(f"To let it go on: holdfast resume {option}"), flush=True)
    if confirmation.silent:
        _kill.tell_silent(confirmation.silent)
    elif not confirmation.gateways:
        _kill.tell_nobody(folder)


PLUGIN = kill
