"""Options that every command shares, and where data lies by default."""

from pathlib import Path
from typing import Annotated

import typer

from holdfast.errors import UsageError

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", envvar="HOLDFAST_CONFIG", help="Configuration file (default: holdfast.yaml here, if there is one)."
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        envvar="HOLDFAST_DATA_DIR",
        help="Where journals and the ledger lie (default: ~/.local/share/holdfast).",
    ),
]
ConfigUnread = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", envvar="HOLDFAST_CONFIG", help="Taken by every command, for scripts; the record is read without it."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document per line, for programs.")]


def data_dir(given: Path | None) -> Path:
    """The directory to use; not created here."""
    try:
        return given or Path.home() / ".local" / "share" / "holdfast"
    except RuntimeError:  # a user without an entry in the password file, and no HOME: containers
        raise UsageError("this user has no home directory; name where journals and the ledger lie with --data-dir") from None


def config_file(given: Path | None) -> Path | None:
    """The configuration file to read, or None for defaults throughout."""
    if given is not None:
        return given
    local = Path("holdfast.yaml")
    return local if local.exists() else None
