"""`holdfast breaker`: the circuit breakers; shown, held open, closed again, with or without a running gateway."""

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli import _breaker, _kill
from holdfast.cli._options import AsJson, ConfigUnread, DataDir, data_dir
from holdfast.errors import HoldfastError, UsageError

if TYPE_CHECKING:
    from holdfast.execution.circuit import Change
    from holdfast.policy.circuit_breaker import Isolation

PLUGIN = typer.Typer(
    help="Circuit breakers: which targets are left alone, and why.\n\n\b\nExample:\n  holdfast breaker list --all", no_args_is_help=True
)

_LONGEST_NAME = 256


def _names(context: typer.Context, incomplete: str) -> list[str]:
    """For completion in a shell: what is known in the data directory."""
    try:
        return [shown.name for shown in _breaker.look(data_dir(context.params.get("data"))).all if shown.name.startswith(incomplete)]
    except (HoldfastError, OSError):  # whoever presses a key wants no message
        return []


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="PROVIDER, PROVIDER/MODEL, PROVIDER#KEY as `breaker list --all` shows it, or tool/NAME.",
        autocompletion=_names,
        show_default=False,
    ),
]
OptionalName = Annotated[
    str, typer.Argument(metavar="[NAME]", help="As `holdfast breaker list` shows it.", autocompletion=_names, show_default=False)
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; agents, logs and `holdfast status` say it.")]


@PLUGIN.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Closed ones too, with what they have counted.")] = False,
    as_json: AsJson = False,
    data: DataDir = None,
    config: ConfigUnread = None,
) -> None:
    """Show the circuit breakers that are not closed.

    \b
    Examples:
      holdfast breaker list
      holdfast breaker list --all --json
    """
    from holdfast.cli._output import Text, note, print_json, print_page

    folder = data_dir(data)
    found = _breaker.look(folder)
    breakers = found.all if every else found.troubled
    if as_json:
        print_json(_breaker.record(shown) for shown in breakers)
    else:
        print_page(Text(_breaker.line(shown), "" if shown.state == "closed" else "yellow") for shown in breakers)
        if not breakers:
            note(
                "All circuit breakers are closed." if found.all else f"No call was counted yet in {folder}; --data-dir names another place."
            )
    if found.uncounted:
        note(f"holdfast: {found.uncounted} calls passed uncounted: more breakers were open than there is room for")
    if found.damage:
        raise HoldfastError(found.damage)


@PLUGIN.command("isolate")
def isolate(
    name: Name,
    reason: Reason = "",
    author: _kill.Author = "",
    as_json: AsJson = False,
    data: DataDir = None,
    config: ConfigUnread = None,
) -> None:
    """Hold a circuit breaker open: its target gets no call any more, and routes go on to the next.

    It holds until `holdfast breaker reset`, restarts included, from the next call that any gateway lets through. Calls in progress end.

    \b
    Examples:
      holdfast breaker isolate openai/gpt-5.1 --reason "it answers in riddles"
      holdfast breaker isolate tool/crm
    """
    from holdfast.cli._output import note, print_json, printable
    from holdfast.policy.circuit_breaker import Isolation
    from holdfast.shared.isolations import change
    from holdfast.system_clock import SystemClock

    wanted = Isolation(
        name=_checked(name),
        reason=_kill.within("--reason", " ".join(reason.split())),
        author=_kill.within("--author", author.strip() or _kill.whoever()),
        at=SystemClock.wall_ns(),
    )
    folder = data_dir(data)
    before = {shown.name: shown for shown in _breaker.look(folder).all}
    change(folder, lambda isolations: isolations.with_isolation(wanted))
    recorded = _record(folder, [_isolated(wanted, before.get(wanted.name))], wanted.author, wanted.reason)
    if wanted.name not in before:
        nearest = get_close_matches(wanted.name, before, n=1)
        meant = f"; did you mean {nearest[0]}?" if nearest else ", if that is how it is written."
        note(printable(f"No call of {wanted.name} has been counted yet; it is kept away all the same{meant}"))
    if as_json:
        print_json([{"action": "isolate"} | _breaker.record(next(each for each in _breaker.look(folder).all if each.name == wanted.name))])
    else:
        print(printable(f"Isolated: {wanted.name}; no call reaches it from now on."))
        print(printable(f"To let it go on: holdfast breaker reset {wanted.name}"), flush=True)
    raise typer.Exit(0 if recorded else 1)


@PLUGIN.command("reset")
def reset(
    name: OptionalName = "",
    every: Annotated[bool, typer.Option("--all", help="Every breaker that is not closed.")] = False,
    reason: Reason = "",
    author: _kill.Author = "",
    as_json: AsJson = False,
    data: DataDir = None,
    config: ConfigUnread = None,
) -> None:
    """Close a circuit breaker, be it open, half-open or isolated; it counts anew.

    \b
    Examples:
      holdfast breaker reset openai/gpt-5.1 --reason "they say it is fixed"
      holdfast breaker reset --all
    """
    from holdfast.cli._output import print_json, printable

    if bool(name) == every:
        raise UsageError("name one breaker, or --all")
    said = _kill.within("--reason", " ".join(reason.split())), _kill.within("--author", author.strip() or _kill.whoever())
    folder = data_dir(data)
    closed = _reset(folder, None if every else _checked(name))
    recorded = _record(folder, closed, said[1], said[0])
    if as_json:
        print_json([{"action": "reset", "breaker": each.name, "from": each.before} for each in closed])
    else:
        names = ", ".join(f"{each.name} ({each.before.replace('_', '-')})" for each in closed)
        print(printable(f"Closed: {names or 'all were closed'}."), flush=True)
    raise typer.Exit(0 if recorded else 1)


def _reset(folder: Path, name: str | None) -> "list[Change]":
    """What was closed; None: all that are not. Raises HoldfastError where the named one is closed."""
    from holdfast.execution.breakers import kind_of
    from holdfast.execution.circuit import Change
    from holdfast.policy.circuit_breaker import Counts, Isolations
    from holdfast.shared.breaker_state import FILE, open_table
    from holdfast.shared.isolations import change
    from holdfast.system_clock import SystemClock

    troubled = {shown.name: shown for shown in _breaker.look(folder).troubled}
    if name is not None and name not in troubled:
        raise HoldfastError(f"the circuit breaker {name} is not open; open now: {', '.join(troubled) or 'none'}")
    names = list(troubled) if name is None else [name]
    if name is None or troubled[name].state == "isolated":
        change(folder, lambda isolations: Isolations(each for each in isolations.active if each.name not in names), anew=name is None)
    found: dict[str, Change] = {}
    if (folder / FILE).exists():
        table = open_table(folder)
        for each in names:
            changed = table.reset(each, SystemClock.monotonic_ns(), SystemClock.wall_ns())
            if changed is not None:
                found[each] = changed
        table.release()
    return [
        Change(
            name=each,
            kind=kind_of(each),
            before=troubled[each].state,
            after="closed",
            reason="reset",
            counts=found[each].counts if each in found else Counts(),
        )
        for each in names
        if each in found or troubled[each].state == "isolated"
    ]


def _isolated(wanted: "Isolation", before: "_breaker.Shown | None") -> "Change":
    from holdfast.execution.breakers import kind_of
    from holdfast.execution.circuit import Change

    return Change(
        name=wanted.name,
        kind=kind_of(wanted.name),
        before="closed" if before is None else before.state,
        after="isolated",
        reason="isolated",
    )


def _record(folder: Path, changes: "list[Change]", author: str, reason: str) -> bool:
    """Who did it and why, for the journal; what was done holds where that fails."""
    from holdfast.cli._output import note
    from holdfast.errors import StorageError
    from holdfast.execution.breakers import recorded
    from holdfast.store.once import record_once
    from holdfast.system_clock import SystemClock

    now = SystemClock.wall_ns()
    try:
        for change in changes:
            record_once(folder, now, recorded(change, 0, now, author=author, reason=reason))
    except StorageError as error:
        note(f"holdfast: it holds, but it is not on record: {error}")
        return False
    return True


def _checked(name: str) -> str:
    """The name of a breaker that there can be."""
    name = name.strip()
    owner = name.partition("/")[0].partition("#")[0]
    if not owner or not name.isprintable() or name.endswith("/"):
        raise UsageError("name a breaker as PROVIDER, PROVIDER/MODEL, PROVIDER#KEY or tool/NAME; `holdfast breaker list --all` shows them")
    if len(name) > _LONGEST_NAME:
        raise UsageError(f"the name is longer than {_LONGEST_NAME} characters")
    return name
