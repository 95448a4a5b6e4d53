"""`holdfast decisions`: the decision log, newest first; with or without a running `holdfast up`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli._journal import Agent, Limit, Run, Since, User, explain_nothing, instant, open_journal, tell_damage
from holdfast.cli._options import AsJson, ConfigUnread, DataDir, data_dir
from holdfast.errors import HoldfastError, UsageError

if TYPE_CHECKING:
    from holdfast.events import Decision

PLUGIN = typer.Typer(help="The decision log: what agents decided, why, at what cost.", no_args_is_help=True)

Release = Annotated[str, typer.Option("--release", metavar="TAG", help="Only of this release.")]
Action = Annotated[str, typer.Option("--action", metavar="NAME", help="Only where this tool was chosen; also: reply, refusal, none.")]
Failed = Annotated[bool, typer.Option("--failed", help="Only decisions that were cut short or ended in an error.")]
_POLL_SECONDS = 0.25


@PLUGIN.command("list")
def list_(
    agent: Agent = "",
    release: Release = "",
    user: User = "",
    run: Run = "",
    action: Action = "",
    since: Since = "",
    failed: Failed = False,
    limit: Limit = 50,
    as_json: AsJson = False,
    data: DataDir = None,
    config: ConfigUnread = None,
) -> None:
    """List decisions, newest first.

    \b
    Examples:
      holdfast decisions list --agent support --since 2h
      holdfast decisions list --failed --json | jq .chosen_action

    With --json: one object per line; times in ISO 8601 (UTC), cost_usd a number, null where the cost is not known.
    """
    from holdfast.cli._output import print_json
    from holdfast.cli._story import decision_record
    from holdfast.store.reader import DecisionFilter

    where = DecisionFilter(agent=agent, release=release, user=user, run=run, action=action, since_ns=instant(since), failed=failed)
    reader = open_journal(data)
    decisions = reader.decisions(where, limit)
    if as_json:
        print_json(map(decision_record, decisions))
    elif decisions:
        _print_decisions(decisions)
    if not decisions:
        explain_nothing(data, reader, "decisions")
    tell_damage(reader.damage)


@PLUGIN.command()
def show(
    decision_id: Annotated[str, typer.Argument(metavar="ID", help="The decision, or the first characters of its identifier (8 or more).")],
    as_json: AsJson = False,
    data: DataDir = None,
    config: ConfigUnread = None,
) -> None:
    """Show one whole: prompt, reasoning, action, attempts, cost.

    \b
    Example:
      holdfast decisions show 019ab2c3-1234
    """
    from holdfast.cli._output import print_json, print_page
    from holdfast.cli._story import decision_page, whole_record
    from holdfast.store.reader import SHORTEST_PREFIX

    if len(decision_id.strip()) < SHORTEST_PREFIX:
        raise UsageError(f"{decision_id!r} is too short: name at least {SHORTEST_PREFIX} characters of the decision's identifier")
    reader = open_journal(data)
    found = reader.find_decisions(decision_id)
    if len(found) != 1:
        tell_damage(reader.damage)
        raise HoldfastError(_not_one(decision_id, [decision.decision_id for decision in found], data))
    full, events = reader.full_input(found[0]), reader.served(found[0])
    if as_json:
        print_json([whole_record(found[0], full, events)])
    else:
        print_page(decision_page(found[0], full, events))
    tell_damage(reader.damage)


@PLUGIN.command()
def tail(
    agent: Agent = "",
    release: Release = "",
    user: User = "",
    run: Run = "",
    action: Action = "",
    since: Since = "",
    failed: Failed = False,
    limit: Limit = 10,
    as_json: AsJson = False,
    data: DataDir = None,
    config: ConfigUnread = None,
) -> None:
    """Print the newest decisions, then each new one, until Ctrl-C.

    \b
    Example:
      holdfast decisions tail --agent support
    """
    import time

    from holdfast.cli._output import Text, note, print_json, print_page
    from holdfast.cli._story import decision_record
    from holdfast.events import Decision
    from holdfast.store.follower import Follower, follow
    from holdfast.store.reader import DecisionFilter

    where = DecisionFilter(agent=agent, release=release, user=user, run=run, action=action, since_ns=instant(since), failed=failed)
    reader = open_journal(data)
    follower = Follower(data_dir(data))  # before the list: what is written meanwhile comes twice, and is told apart
    listed = reader.decisions(where, limit)
    known = {decision.decision_id for decision in listed}

    def tell(decision: Decision) -> None:
        if as_json:
            print_json([decision_record(decision)])
        else:
            print_page([Text(_line(decision), "red" if not decision.complete else "")])

    tell_damage(reader.damage)
    if not reader.files():
        note(f"Waiting for decisions in {data_dir(data) / 'journal'}; Ctrl-C ends.")
    try:
        for decision in reversed(listed):
            tell(decision)
        for event in follow(follower, lambda: time.sleep(_POLL_SECONDS)):
            if isinstance(event, Decision) and event.decision_id not in known and where.accepts(event):
                tell(event)
    except KeyboardInterrupt:
        tell_damage(follower.damage)


def _print_decisions(decisions: "Sequence[Decision]") -> None:
    from holdfast.cli._output import Column, duration, local_time, print_table, usd
    from holdfast.cli._story import flags, served, shortened, tokens

    columns = [
        Column("ID", fixed=True),
        Column("TIME", fixed=True),
        Column("AGENT", spare=3),
        Column("INTERACTION", spare=4),
        Column("ACTION"),
        Column("MODEL", spare=1),
        Column("TOKENS", fixed=True, right=True),
        Column("COST", fixed=True, right=True),
        Column("LATENCY", fixed=True, right=True, spare=2),
        Column("FLAGS"),
    ]
    ids = shortened([decision.decision_id for decision in decisions])
    interactions = shortened([decision.interaction for decision in decisions])
    print_table(
        columns,
        (
            (
                ids[decision.decision_id],
                local_time(decision.timestamp),
                decision.agent,
                interactions[decision.interaction],
                decision.chosen_action,
                served(decision),
                tokens(decision.usage),
                usd(decision.cost),
                duration(decision.latency_ns),
                " ".join(flags(decision)),
            )
            for decision in decisions
        ),
    )


def _line(decision: "Decision") -> str:
    from holdfast.cli._output import duration, local_time, one_line, usd
    from holdfast.cli._story import flags, served, tokens

    cells = (
        (local_time(decision.timestamp, "%H:%M:%S"), 8),
        (decision.decision_id[:18], 18),
        (decision.agent, 12),
        (decision.chosen_action, 24),
        (served(decision), 24),
        (tokens(decision.usage), 12),
        (usd(decision.cost), 11),
        (duration(decision.latency_ns), 8),
        (" ".join(flags(decision)), 0),
    )
    return "  ".join(one_line(cell).ljust(width) for cell, width in cells).rstrip()


def _not_one(identifier: str, found: Sequence[str], given: Path | None) -> str:
    if not found:
        return f"no decision {identifier} in {data_dir(given) / 'journal'}: `holdfast decisions list` shows those on record"
    more = "" if len(found) <= 3 else f" and {len(found) - 3} more"
    return f"{identifier} is the beginning of {len(found)} decisions, name one whole: {', '.join(found[:3])}{more}"
