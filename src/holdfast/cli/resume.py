"""`holdfast resume`: lets go on what `holdfast kill` has stopped."""

from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli import _kill
from holdfast.cli._options import AsJson, ConfigUnread, DataDir, data_dir
from holdfast.errors import HoldfastError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.policy.kill import Kill, Kills


def resume(
    all_: Annotated[bool, typer.Option("--all", help="What `holdfast kill --all` stopped; other kills stay.")] = False,
    agent: _kill.Agent = "",
    release: _kill.Release = "",
    model: _kill.Model = "",
    tool: _kill.Tool = "",
    everything: Annotated[bool, typer.Option("--everything", help="Lift every kill there is.")] = False,
    reason: _kill.Reason = "",
    author: _kill.Author = "",
    as_json: AsJson = False,
    data: DataDir = None,
    config: ConfigUnread = None,
) -> None:
    """Let go on what the kill switch has stopped.

    `holdfast status` shows what is stopped. Runs that were ended do not start again by themselves.

    \b
    Examples:
      holdfast resume --agent support --reason "prompt fixed"
      holdfast resume --everything
    """
    named = any((all_, agent, release, model, tool))
    if everything and named:
        raise UsageError("--everything lifts every kill; leave the other options out")
    scope = None if everything else _kill.scope_of(all_, agent=agent, release=release, model=model, tool=tool)
    said = _kill.within("--reason", " ".join(reason.split())), _kill.within("--author", author.strip() or _kill.whoever())
    raise typer.Exit(_switch(data_dir(data), scope, said, as_json))


def _switch(folder: "Path", scope: tuple[str, str] | None, said: tuple[str, str], as_json: bool) -> int:
    from holdfast.policy.kill import Kills
    from holdfast.shared.kill_switch import change
    from holdfast.system_clock import SystemClock

    lifted: list[Kill] = []

    def lift(kills: Kills) -> Kills:
        lifted[:] = [kill for kill in kills.active if scope is None or scope == (kill.scope, kill.value)]
        if scope is not None and not lifted:
            raise HoldfastError(_not_stopped(scope, kills))
        return Kills(kill for kill in kills.active if kill not in lifted)

    serial = change(folder, lift, anew=scope is None)
    recorded = _record(folder, lifted, said)
    confirmation = _kill.confirmed(folder, serial, SystemClock.monotonic_ns)
    _tell(folder, lifted, confirmation, as_json)
    return 1 if confirmation.silent or not recorded else 0


def _not_stopped(scope: tuple[str, str], kills: "Kills") -> str:
    what = "everything" if scope[0] == "all" else " ".join(scope)
    active = ", ".join(kill.describe() for kill in kills.active)
    return f"{what} is not stopped; stopped now: {active or 'nothing'}"


def _record(folder: "Path", lifted: "list[Kill]", said: tuple[str, str]) -> bool:
    from holdfast.cli._output import note
    from holdfast.errors import StorageError
    from holdfast.events import KillChanged
    from holdfast.store.once import record_once
    from holdfast.system_clock import SystemClock

    now = SystemClock.wall_ns()
    try:
        for kill in lifted:
            record_once(
                folder,
                now,
                KillChanged(
                    timestamp=now, action="resume", scope=kill.scope, value=kill.value, mode=kill.mode, reason=said[0], author=said[1]
                ),
            )
    except StorageError as error:
        note(f"holdfast: it goes on, but that is not on record: {error}")
        return False
    return True


def _tell(folder: "Path", lifted: "list[Kill]", confirmation: _kill.Confirmation, as_json: bool) -> None:
    from holdfast.cli._output import print_json, printable

    if as_json:
        silent = [gateway.pid for gateway in confirmation.silent]
        state = {"gateways": confirmation.gateways, "unconfirmed": silent, "confirmed_ms": confirmation.after_ms}
        print_json([{"action": "resume", "lifted": [_kill.record(kill) for kill in lifted]} | state])
    else:
        gateways = "1 gateway" if confirmation.gateways == 1 else f"{confirmation.gateways} gateways"
        what = ", ".join(kill.describe() for kill in lifted) or "nothing was stopped"
        print(printable(f"Goes on: {what}. Confirmed by {gateways} after {confirmation.after_ms:.0f} ms."), flush=True)
    if confirmation.silent:
        _kill.tell_silent(confirmation.silent)
    elif not confirmation.gateways:
        _kill.tell_nobody(folder)


PLUGIN = resume
