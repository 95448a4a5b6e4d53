"""Durations, sizes, money and counts as people write them; every function raises ValueError saying what was expected."""

import re
from decimal import Decimal

from holdfast.clock import MILLISECOND, SECOND
from holdfast.money import Nano, from_usd

_DURATIONS = {"ms": MILLISECOND, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86_400 * SECOND}
_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,9})?)"

MOST_USD = 1_000_000_000
LONGEST_NS = 36_500 * 86_400 * SECOND


def duration_ns(text: str) -> int:
    """`500ms`, `5s`, `2m`, `1.5h`, `90d` in nanoseconds, more than zero, at most a hundred years."""
    found = re.fullmatch(rf"{_NUMBER} ?(ms|s|m|h|d)", text)
    length = int(Decimal(found[1]) * _DURATIONS[found[2]]) if found else 0
    if not 0 < length <= LONGEST_NS:
        raise ValueError(f"expected a duration such as 500ms, 5s, 2m, 1h or 90d, not {shown(text)}")
    return length


def size_bytes(text: str) -> int:
    """`20GB`, `512MiB` in bytes, at least one."""
    found = re.fullmatch(rf"{_NUMBER} ?([KMGT]?i?B)", text, re.IGNORECASE)
    size = int(Decimal(found[1]) * _SIZES.get(found[2].upper(), 0)) if found else 0
    if not 0 < size < 2**62:
        raise ValueError(f"expected a size such as 500MB or 20GB, not {shown(text)}")
    return size


def money(text: str) -> Nano:
    """USD such as `0.5` in nano-dollars."""
    if not re.fullmatch(_NUMBER, text) or Decimal(text) > MOST_USD:
        raise ValueError(f"expected an amount of USD such as 0.50, not {shown(text)}")
    return from_usd(text)


def count(text: str) -> int:
    """A whole number, zero or more."""
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError(f"expected a whole number, zero or more, not {shown(text)}")
    return int(text)


def flag(text: str) -> bool:
    """`true` or `false`."""
    if text not in ("true", "false"):
        raise ValueError(f"expected true or false, not {shown(text)}")
    return text == "true"


def shown(text: str) -> str:
    """A piece of the file in quotes for a message, short and on one line."""
    cut = text if len(text) <= 40 else text[:37] + "..."
    return '"' + "".join(letter if letter.isprintable() else "?" for letter in cut) + '"'
