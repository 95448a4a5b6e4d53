"""What the commands that read the journal share: its place, times as people write them, and honest words about what is not there."""

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli._options import data_dir
from holdfast.clock import SECOND
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.store.reader import Damage, JournalReader

Limit = Annotated[int, typer.Option("--limit", min=1, metavar="N", help="At most this many.")]
Since = Annotated[str, typer.Option("--since", metavar="TIME", help="From then on: an age (90s, 15m, 2h, 7d) or an ISO 8601 time.")]
Agent = Annotated[str, typer.Option("--agent", metavar="NAME", help="Only of this agent.")]
User = Annotated[str, typer.Option("--user", metavar="ID", help="Only for this user.")]
Run = Annotated[str, typer.Option("--run", metavar="ID", help="Only of this `holdfast run`.")]

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def open_journal(given: Path | None) -> "JournalReader":
    """The reader over the data directory that was named, or the default one."""
    from holdfast.store.reader import JournalReader

    return JournalReader(data_dir(given))


def instant(text: str) -> int:
    """An age or an ISO 8601 time (local where it names no zone) in nanoseconds since the epoch; 0 for an empty text."""
    text = text.strip()
    if not text:
        return 0
    from holdfast.system_clock import SystemClock

    if age := _AGE.fullmatch(text.lower()):
        return max(0, SystemClock.wall_ns() - int(float(age[1]) * _UNITS[age[2]] * SECOND))
    try:
        return max(0, int(datetime.fromisoformat(text).timestamp() * SECOND))
    except (ValueError, OverflowError):
        raise UsageError(f"--since {text!r} is neither an age such as 2h nor a time such as 2026-11-23T08:00") from None


def explain_nothing(given: Path | None, reader: "JournalReader", what: str) -> None:
    """Say why a list is empty: nothing was ever recorded there, or nothing matches."""
    from holdfast.cli._output import note

    if reader.files():
        note(f"No {what} on record match; without filters there may be more.")
    else:
        place = data_dir(given) / "journal"
        note(f"No {what} yet: {place} holds no journal. `holdfast run -- COMMAND` records them; --data-dir names another place.")


def tell_damage(damage: "Sequence[Damage]") -> None:
    """One sentence on stderr about lines that could not be read, with the first place; nothing when all could."""
    from holdfast.cli._output import note

    if damage:
        first = damage[0]
        lines = "1 line" if len(damage) == 1 else f"{len(damage)} lines"
        note(f"{lines} of the journal could not be read and are left out, first in {first.file} at byte {first.offset}: {first.reason}.")
