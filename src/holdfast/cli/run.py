"""`holdfast run`: an agent under guard."""

import math
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli import _options
from holdfast.clock import SECOND
from holdfast.errors import CannotStart, UsageError
from holdfast.money import NANO, Nano, from_usd
from holdfast.runner.request import RunRequest

_DAY_S = 86_400
_MOST_USD = 1_000_000_000
_MOST_CALLS = 10**9
_MOST_TOKENS = 10**15


def _calls(meaning: str) -> Any:
    return typer.Option(metavar="N", min=0, max=_MOST_CALLS, help=meaning, show_default=False)


def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="The agent's command, after `--`.", show_default=False)],
    config: _options.ConfigFile = None,
    data_dir: _options.DataDir = None,
    agent: Annotated[str, typer.Option(metavar="NAME", help="The agent's name in the configuration and on record.")] = "",
    release: Annotated[str, typer.Option(metavar="TAG", help="The release that runs, e.g. v2.3.1.")] = "",
    user: Annotated[str, typer.Option(metavar="ID", help="The user on whose behalf it runs.")] = "",
    timeout: Annotated[str | None, typer.Option(metavar="S", help="End it after S seconds (exit 124).", show_default=False)] = None,
    max_retries: Annotated[int | None, typer.Option(metavar="N", min=0, help="Retries of one call, at most.", show_default=False)] = None,
    cost_limit: Annotated[
        str | None, typer.Option(metavar="USD", help="Never spend more than this (exit 122).", show_default=False)
    ] = None,
    call_limit: Annotated[int | None, _calls("Never make more than N calls (exit 122).")] = None,
    calls_per_hour: Annotated[int | None, _calls("Never make more than N calls in 60 minutes (exit 122).")] = None,
    token_limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, max=_MOST_TOKENS, help="Never read and generate more than N tokens (exit 122).", show_default=False
        ),
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write the summary here, too.", dir_okay=False, show_default=False)
    ] = None,
) -> None:
    """Run any agent under guard: hard limits, all on record.

    The agent finds the gateway's address and a one-run key in its environment; the real keys are out of its reach. At a limit it is
    ended with everything that it started.

    Exit code: the agent's own; 122 hard limit, 123 kill switch, 124 time-out, 126 not executable, 127 no such command.

    \b
    Example:
      holdfast run --timeout 30 --max-retries 3 --cost-limit 500 -- python agent.py
    """
    if not command[0]:
        raise UsageError("the command is empty; is a variable that should hold it not set?")
    request = RunRequest(
        command=tuple(command),
        config=_options.config_file(config),
        data_dir=_options.data_dir(data_dir),
        agent=agent,
        release=release,
        user=user,
        timeout_ns=_timeout_ns(timeout),
        max_retries=max_retries,
        cost_limit=_cost_limit(cost_limit),
        call_limit=call_limit,
        calls_per_hour=calls_per_hour,
        token_limit=token_limit,
        summary=_summary_file(summary),
        look_up=_look_up(data_dir),
    )
    raise typer.Exit(_exit_code(request))


def _exit_code(request: RunRequest) -> int:
    from holdfast.assembly.guarded_run import run_guarded  # the data plane: not loaded for `--help`

    try:
        return run_guarded(request)
    except CannotStart as error:
        typer.echo(f"holdfast: {error}", err=True)
        return error.exit_code


def _timeout_ns(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or not 0 < seconds <= 365 * _DAY_S:
        raise UsageError(f"--timeout {text} is not a number of seconds above 0 and up to a year; leave it out for no limit")
    return max(1, int(seconds * SECOND))


def _cost_limit(usd: str | None) -> Nano | None:
    if usd is None:
        return None
    try:
        amount = from_usd(usd)
    except (ValueError, ArithmeticError):  # the latter: beyond what a Decimal holds
        amount = -1
    if not 0 <= amount <= _MOST_USD * NANO:
        raise UsageError(f"--cost-limit {usd} is not an amount of USD from 0 to a thousand million, such as 500 or 0.25")
    return amount


def _look_up(data_dir: Path | None) -> str:
    """The option that commands about the record need to look where this run writes."""
    here = data_dir is None or os.environ.get("HOLDFAST_DATA_DIR") == str(data_dir)
    return "" if here else f" --data-dir {shlex.quote(str(data_dir))}"


def _summary_file(path: Path | None) -> Path | None:
    """Checked before the run: afterwards its numbers would be lost."""
    if path is not None and not path.absolute().parent.is_dir():
        raise UsageError(f"--summary {path}: the folder {path.absolute().parent} does not exist; create it first")
    return path


PLUGIN = run
