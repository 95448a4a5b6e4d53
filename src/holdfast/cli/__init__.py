"""The command line: one file per command, named as the command; its `PLUGIN` is the function or the group of sub-commands."""

import sys

import typer

from holdfast import plugins
from holdfast.errors import HoldfastError, UsageError


def build() -> typer.Typer:
    """The application with every command that has a file."""
    app = typer.Typer(
        name="holdfast",
        help="Guard for AI agents: hard limits, every decision on record, from outside the agent.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in plugins.names("cli"):
        command = plugins.load("cli", name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            settings = {"allow_interspersed_args": False} if name == "run" else {}
            app.command(name, context_settings=settings)(command)
    return app


def main() -> None:
    """Entry point of `holdfast`: errors are one sentence on stderr, a traceback only with --debug."""
    debug = "--debug" in sys.argv[1:2]
    if debug:
        del sys.argv[1]
    try:
        build()()
    except HoldfastError as error:
        if debug:
            raise
        print(f"holdfast: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
