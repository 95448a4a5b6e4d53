"""The command line: one file per command, named as the command; its `PLUGIN` is the function or the group of sub-commands."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from holdfast import __version__, plugins
from holdfast.errors import HoldfastError, UsageError


def build() -> typer.Typer:
    """The application with every command that has a file."""
    app = typer.Typer(
        name="holdfast",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # help and mistakes in plain lines: they fit every terminal, pipe and log, and come at once
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in plugins.names("cli"):
        command = plugins.load("cli", name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            settings = {"allow_interspersed_args": False} if name == "run" else {}
            app.command(name, context_settings=settings)(command)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        print(f"holdfast {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (stands before the command).")] = False,
) -> None:
    """Guard for AI agents: hard limits, every decision on record, from outside the agent."""


def main() -> None:
    """Entry point of `holdfast`: errors are one sentence on stderr, a traceback only with --debug."""
    for closed in ("stdout", "stderr"):
        if getattr(sys, closed) is None:  # by whoever started this, as some schedulers do
            setattr(sys, closed, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as the program runs
    if "--debug" in sys.argv[1:2]:
        build()()
        return
    try:
        build()()
    except HoldfastError as error:
        print(f"holdfast: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:
        print(f"holdfast: {error.strerror or error}; `holdfast --debug …` shows where", file=sys.stderr)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the last resort of a program: a defect, told in one sentence
        print(f"holdfast: this is a defect of Holdfast: {error!r}; please report it with what `holdfast --debug …` prints", file=sys.stderr)
        sys.exit(1)
