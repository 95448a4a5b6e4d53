"""What commands print: tables that fit the terminal, plain text elsewhere, JSON; nothing a model said acts on the terminal."""

import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from holdfast.clock import MILLISECOND, SECOND
from holdfast.money import Nano, to_usd

if TYPE_CHECKING:
    from rich.console import Console

UNKNOWN = "–"
"""Shown for what was not measured; never a zero."""

_ACTS = (
    "\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # control characters beyond ASCII, and those that turn the writing direction
)
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f{_ACTS}\ud800-\udfff]")
_CONTROL_IN_JSON = re.compile(f"[\r{_ACTS}]")
_NO_TERMINAL_WIDTH = 10_000
_LEAST_WIDTH = 8  # of a column that may be narrowed
_LONGEST = 128  # characters of a cell: a model's name may be a page
_GAP = 2
_EMPTY = 100  # a column in which nothing stands is the first to go


class Column(Struct, frozen=True):
    """fixed: never narrowed to fit the terminal. spare: left out of a terminal that is too narrow, the highest first; 0 stays."""

    title: str
    fixed: bool = False
    right: bool = False
    spare: int = 0


class Text(Struct, frozen=True):
    """Lines of a page. style: how a terminal shows them, in rich's words."""

    text: str
    style: str = ""


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of cells; on a terminal cells that do not fit end in an ellipsis."""
    from rich.table import Table
    from rich.text import Text as Cell

    console = _console()
    cells = [[Cell(_short(one_line(cell)), no_wrap=True, overflow="ellipsis") for cell in row] for row in rows]
    widths = [max([len(column.title), *(row[at].cell_len for row in cells)]) for at, column in enumerate(columns)]
    least = [width if column.fixed else min(width, _LEAST_WIDTH) for column, width in zip(columns, widths, strict=True)]
    spare = [column.spare if any(row[at] for row in cells) else _EMPTY for at, column in enumerate(columns)]
    shown = list(range(len(columns)))
    while sum(least[at] + _GAP for at in shown) - _GAP > console.width and any(spare[at] for at in shown):
        shown.remove(max(shown, key=lambda at: spare[at]))
    console.width = max(console.width, sum(least[at] + _GAP for at in shown) - _GAP)  # better broken by the terminal than half a cost
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for at in shown:
        column = columns[at]
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=column.fixed, min_width=least[at])
    for row in cells:
        table.add_row(*(row[at] for at in shown))
    console.print(table)
    sys.stdout.flush()


def print_page(lines: Iterable[Text]) -> None:
    """Print text as it is, styled on terminals, never wrapped or cut."""
    from rich.text import Text as Styled

    console = _console()
    for line in lines:
        console.print(Styled(printable(line.text), line.style), soft_wrap=True)
    sys.stdout.flush()


def print_json(documents: Iterable[Any]) -> None:
    """Print one JSON document per line."""
    import msgspec

    _never_fail_on_characters()
    for document in documents:
        text = msgspec.json.encode(document).decode("utf-8", "replace")
        sys.stdout.write(_CONTROL_IN_JSON.sub(_json_escape, text) + "\n")
    sys.stdout.flush()


def note(sentence: str) -> None:
    """Say something beside the output, on stderr."""
    sys.stdout.flush()
    print(printable(sentence), file=sys.stderr)


def printable(text: str) -> str:
    """The text with every character that could act on a terminal written out, e.g. `\\x1b`; line breaks and tabs stay."""
    return _CONTROL.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The text as it fits into a table or a log line."""
    return printable(" ".join(text.split()))


def local_time(wall_ns: int, form: str = "%m-%d %H:%M:%S") -> str:
    """An instant in the time zone of whoever reads it."""
    return datetime.fromtimestamp(wall_ns // SECOND, UTC).astimezone().strftime(form)


def duration(ns: int) -> str:
    """`850 ms`, `1.2 s`, `3 min 5 s`."""
    if ns < SECOND - MILLISECOND // 2:
        return f"{ns / 1e6:.0f} ms"
    if ns < 60 * SECOND:
        return f"{ns / SECOND:.1f} s"
    minutes, seconds = divmod(ns // SECOND, 60)
    return f"{minutes} min {seconds} s"


def usd(amount: Nano | None) -> str:
    """`$0.0123`, or a dash for a cost that is not known."""
    return UNKNOWN if amount is None else f"${to_usd(amount)}"


def usd_number(amount: Nano | None) -> float | None:
    """USD as a JSON number, exact to the nano-dollar up to 9 million dollars; None for a cost that is not known."""
    return None if amount is None else amount / 1e9


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _console() -> "Console":
    from rich.console import Console

    _never_fail_on_characters()
    terminal = sys.stdout.isatty()
    return Console(
        highlight=False,
        markup=False,
        emoji=False,
        color_system=None if os.environ.get("NO_COLOR") else "auto",  # no bold either: nothing but text
        width=None if terminal else _NO_TERMINAL_WIDTH,
    )


def _never_fail_on_characters() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _json_escape(match: re.Match[str]) -> str:
    return " " if match[0] == "\r" else f"\\u{ord(match[0]):04x}"  # a bare CR only occurs between tokens
