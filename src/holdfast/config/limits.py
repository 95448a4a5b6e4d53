"""The `limits` lists: `{usd: 500, per: day, alert_at: 80%}`, `{calls: 1000, per: hour}`, `{tokens: 1000000, per: day, scope: user}`."""

import re
from collections.abc import Iterable
from decimal import ROUND_CEILING, Decimal
from typing import get_args

from msgspec.structs import replace

from holdfast.config.document import Section, Value
from holdfast.config.quantities import count, money, shown
from holdfast.errors import did_you_mean
from holdfast.policy.limit import WINDOWS, Limit, Scope, Unit, default_marks

SCOPES: tuple[Scope, ...] = get_args(Scope)

UNITS: tuple[Unit, ...] = get_args(Unit)

_WHOLES: tuple[Scope, ...] = ("run", "interaction", "user")
"""What may stand after `per` as well: so much in total for each of them."""


def read_limits(section: Section, owner: str) -> tuple[Limit, ...]:
    """The key `limits` of a section. owner: the agent's name, "" for everything together."""
    read = [_limit(value.section(), owner) for value in section.items("limits")]
    return merged(limit for limit in read if limit is not None)


def merged(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """Limits that count the same thing over the same window become one: the smallest amount, every mark."""
    found: dict[str, Limit] = {}
    for limit in limits:
        key = limit.account("")
        same = found.get(key)
        found[key] = limit if same is None else replace(same, amount=min(same.amount, limit.amount), marks=_both(same.marks, limit.marks))
    return tuple(found.values())


def _both(marks: tuple[int, ...], more: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted({*marks, *more}))


def _limit(section: Section, owner: str) -> Limit | None:
    amounts = {"usd": section.read("usd", money, None), "calls": section.read("calls", count, None)}
    amounts["tokens"] = section.read("tokens", count, None)
    written = [unit for unit in UNITS if section.get(unit) is not None]
    per, scope = section.get("per"), section.get("scope")
    per_ns, whole = _window(per)
    counted: Scope = (None if scope is None else scope.read(_scope)) or whole or ("agent" if owner else "all")
    if scope is not None and whole not in (None, counted):
        scope.error(f"contradicts per: {whole}, which counts each {whole} in total")
    if len(written) != 1:
        section.error("a limit needs one of usd, calls and tokens")
    if amounts["tokens"] is not None and counted == "tool":
        section.error("calls through tools use no tokens; limit calls or usd")
    unit: Unit = written[0] if written else "calls"
    amount = amounts[unit]
    alert_at = section.get("alert_at")
    marks: tuple[int, ...] = ()
    if amount is not None:
        marks = default_marks(counted, amount) if alert_at is None else _marks(alert_at, unit, amount)
    section.close()
    return None if amount is None else Limit(scope=counted, unit=unit, amount=amount, per_ns=per_ns, owner=owner, marks=marks)


def _window(per: Value | None) -> tuple[int | None, Scope | None]:
    """The window's length (None: in total) and, for `per: interaction` and the like, what is counted."""
    name = None if per is None else per.read(_per)
    whole = next((scope for scope in _WHOLES if scope == name), None)
    return (None if name is None else WINDOWS.get(name)), whole


def _per(text: str) -> str:
    known = (*WINDOWS, "total", *_WHOLES)
    if text not in known:
        raise ValueError(f"unknown window {shown(text)}{did_you_mean(text, known)}")
    return text


def _scope(text: str) -> Scope:
    for scope in SCOPES:
        if scope == text:
            return scope
    raise ValueError(f"unknown scope {shown(text)}{did_you_mean(text, SCOPES)}")


def _marks(value: Value, unit: Unit, amount: int) -> tuple[int, ...]:
    """One mark or a list of them, each `80%` or in the limit's own unit."""

    def mark(text: str) -> int:
        percent = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%", text)
        reached = (
            int((amount * Decimal(percent[1]) / 100).to_integral_value(ROUND_CEILING))
            if percent
            else money(text)
            if unit == "usd"
            else count(text)
        )
        if not 0 < reached <= amount:
            raise ValueError(f"expected a mark above zero and not above the limit, such as 80%, not {shown(text)}")
        return reached

    found = [item.read(mark) for item in (value.items() if value.is_list else [value])]
    return tuple(sorted({reached for reached in found if reached is not None}))
