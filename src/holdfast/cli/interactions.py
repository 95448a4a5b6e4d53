"""`holdfast interactions`: the record by task or conversation: timeline, cost, outcome."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli._journal import Agent, Limit, Run, Since, User, explain_nothing, instant, open_journal, tell_damage
from holdfast.cli._options import AsJson, ConfigUnread, DataDir, data_dir
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.cli._output import Text
    from holdfast.store.interactions import InteractionSummary, OfInteraction, Story

PLUGIN = typer.Typer(help="The record by interaction: one task or conversation each.", no_args_is_help=True)


@PLUGIN.command("list")
def list_(
    agent: Agent = "",
    user: User = "",
    run: Run = "",
    since: Since = "",
    limit: Limit = 50,
    as_json: AsJson = False,
    data: DataDir = None,
    config: ConfigUnread = None,
) -> None:
    """List interactions, the last active first.

    \b
    Examples:
      holdfast interactions list --agent support
      holdfast interactions list --since 1d --json | jq .cost_usd

    With --json: one object per line; cost_usd is the part that is known, null where nothing is, and whole if cost_complete is true.
    """
    from holdfast.cli._output import print_json
    from holdfast.store.interactions import InteractionFilter

    reader = open_journal(data)
    summaries = reader.interactions(InteractionFilter(agent=agent, user=user, run=run, since_ns=instant(since)), limit)
    if as_json:
        print_json(map(_record, summaries))
    elif summaries:
        _print_summaries(summaries)
    if not summaries:
        explain_nothing(data, reader, "interactions")
    tell_damage(reader.damage)


@PLUGIN.command()
def show(
    interaction: Annotated[str, typer.Argument(metavar="ID", help="The interaction, or the first characters of its name (8 or more).")],
    as_json: AsJson = False,
    data: DataDir = None,
    config: ConfigUnread = None,
) -> None:
    """Show one in order of time: decisions, calls, errors, refusals.

    \b
    Example:
      holdfast interactions show 019ab2c3-1234
    """
    from holdfast.cli._output import print_json, print_page
    from holdfast.cli._story import event_record

    reader = open_journal(data)
    names = reader.interactions_named(interaction)
    story = reader.interaction(names[0]) if len(names) == 1 else None
    tell_damage(reader.damage)
    if story is None and names:
        raise HoldfastError(f"{interaction} is the beginning of {len(names)} interactions, name one whole: {', '.join(names[:3])}")
    if story is None:
        raise HoldfastError(f"no interaction {interaction} in {data_dir(data) / 'journal'}: `holdfast interactions list` shows them")
    if as_json:
        print_json([_record(story.summary) | {"events": [event_record(event) for event in story.events]}])
    else:
        print_page(_page(story))


def _record(summary: "InteractionSummary") -> dict[str, Any]:
    from holdfast.cli._output import usd_number
    from holdfast.cli._story import usage_record
    from holdfast.clock import to_iso

    return {
        "interaction": summary.interaction,
        "agent": summary.agent,
        "release": summary.release,
        "run": summary.run,
        "user_id": summary.user_id,
        "first_timestamp": to_iso(summary.first_ns),
        "last_timestamp": to_iso(summary.last_ns),
        "decisions": summary.decisions,
        "api_calls": summary.calls,
        "refusals": summary.refusals,
        "errors": summary.errors,
        "tokens": usage_record(summary.usage),
        "cost_usd": usd_number(summary.cost),
        "cost_complete": summary.cost_complete,
    }


def _print_summaries(summaries: "Sequence[InteractionSummary]") -> None:
    from holdfast.cli._output import Column, duration, local_time, print_table
    from holdfast.cli._story import shortened, tokens

    columns = [Column("ID", fixed=True), Column("LAST", fixed=True), Column("LASTED", fixed=True, right=True, spare=3)]
    columns += [Column("AGENT", spare=4), Column("USER", spare=5), Column("DECISIONS", fixed=True, right=True), Column("CALLS", right=True)]
    columns += [Column("ERRORS", right=True), Column("REFUSED", right=True, spare=1)]
    columns += [Column("TOKENS", fixed=True, right=True), Column("COST", fixed=True, right=True)]
    ids = shortened([summary.interaction for summary in summaries])
    print_table(
        columns,
        (
            (
                ids[summary.interaction],
                local_time(summary.last_ns),
                duration(summary.last_ns - summary.first_ns),
                summary.agent,
                summary.user_id,
                *(str(count) for count in (summary.decisions, summary.calls, summary.errors, summary.refusals)),
                tokens(summary.usage),
                _cost(summary),
            )
            for summary in summaries
        ),
    )


def _cost(summary: "InteractionSummary") -> str:
    from holdfast.cli._output import usd

    return usd(summary.cost) if summary.cost_complete or summary.cost is None else f"≥ {usd(summary.cost)}"


def _page(story: "Story") -> "Iterator[Text]":
    from holdfast.cli._output import Text, duration, local_time, one_line
    from holdfast.cli._story import tokens

    summary = story.summary
    yield Text(f"interaction {summary.interaction}", "bold")
    facts = {
        "agent": f"{summary.agent}, release {summary.release}",
        "run": summary.run,
        "user": summary.user_id,
        "time": f"{local_time(summary.first_ns, '%Y-%m-%d %H:%M:%S %z')}, lasted {duration(summary.last_ns - summary.first_ns)}",
        "decisions": str(summary.decisions),
        "api calls": str(summary.calls),
        "errors": str(summary.errors),
        "refusals": str(summary.refusals),
        "tokens": tokens(summary.usage),
        "cost": _cost(summary),
    }
    for name, value in facts.items():
        if value:
            yield Text(f"  {name:<10} {one_line(value)}")
    yield Text("\ntimeline", "bold")
    for event in story.events:
        yield from _event(event)


def _event(event: "OfInteraction") -> "Iterator[Text]":
    from holdfast.cli._output import Text, local_time, one_line, usd
    from holdfast.cli._story import call_line, error_lines, refusal_line
    from holdfast.events import ApiCall, Decision, Error, LimitRefusal

    time = local_time(event.timestamp, "%H:%M:%S")
    if isinstance(event, Decision):
        answer = one_line(event.answer)
        said = f": {answer[:100]}{'…' * (len(answer) > 100)}" if answer else ""
        yield Text(f"  {time} decision {event.decision_id} {one_line(event.chosen_action)}, {usd(event.cost)}{said}", "bold")
    elif isinstance(event, ApiCall):
        yield Text(f"  {time} call {call_line(event)}")
    elif isinstance(event, Error):
        yield from error_lines(event)
    elif isinstance(event, LimitRefusal):
        yield Text(f"  {time} {refusal_line(event)}", "yellow")
