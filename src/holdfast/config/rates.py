"""The `rates` lists: `{requests: 60, per: minute, burst: 10, scope: user}`, `{tokens: 90000, per: minute, on_excess: refuse}`."""

from typing import Literal

from msgspec.structs import replace

from holdfast.config.document import Section
from holdfast.config.quantities import count, duration_ns, shown
from holdfast.errors import did_you_mean
from holdfast.policy.rate import PERIODS, OnExcess, Rate, RateScope, RateUnit

Place = Literal["top", "agent", "provider"]

_SCOPES: dict[Place, tuple[RateScope, ...]] = {
    "top": ("all", "agent", "release", "user", "run", "interaction", "model", "provider"),
    "agent": ("agent", "release", "user", "run", "interaction", "model"),
    "provider": ("provider", "model", "agent", "user"),
}
"""What may be counted where; the first is the default."""

_DEFAULT: OnExcess = "wait"
_OWN_SHARE = 10
"""Of the amount, one tenth may come at once unless `burst` says otherwise: no minute then holds more than 110 % of it."""


def read_rates(section: Section, place: Place, name: str = "") -> tuple[Rate, ...]:
    """The key `rates` of the top of the file, or of the agent or provider `name`."""
    found: dict[str, Rate] = {}
    for value in section.items("rates"):
        rate = _rate(value.section(), place, f"provider {name}" if place == "provider" else name)
        if rate is None:
            continue
        same = rate.account("")
        if same in found:
            value.error("written twice: this list counts the same thing at the same rate already")
        found[same] = rate
    return tuple(found.values())


def _rate(section: Section, place: Place, owner: str) -> Rate | None:
    requests, tokens = section.read("requests", _amount, None), section.read("tokens", _amount, None)
    written = [section.get(unit) for unit in ("requests", "tokens")]
    if written.count(None) != 1:
        section.error("a rate needs either requests or tokens")
    unit: RateUnit = "requests" if tokens is None else "tokens"
    amount = requests if tokens is None else tokens
    per_ns = section.read("per", _period, None)
    if section.get("per") is None:
        section.error("needs per: second, minute or hour")
    burst = section.read("burst", _amount, None)
    scope = section.read("scope", lambda text: _scope(text, place), _SCOPES[place][0])
    on_excess = section.read("on_excess", _on_excess, _DEFAULT)
    max_wait = section.get("max_wait")
    if max_wait is not None and on_excess == "refuse":
        max_wait.error("a rate that refuses lets nobody wait")
    max_wait_ns = None if max_wait is None else max_wait.read(duration_ns)
    section.close()
    if amount is None or per_ns is None:
        return None
    known = Rate(
        scope=scope,
        unit=unit,
        amount=amount,
        per_ns=per_ns,
        burst=burst or max(1, amount // _OWN_SHARE),
        owner=owner,
        on_excess=on_excess,
    )
    return known if max_wait_ns is None else replace(known, max_wait_ns=max_wait_ns)


def _amount(text: str) -> int:
    number = count(text)
    if not number:
        raise ValueError("expected a whole number above zero")
    return number


def _period(text: str) -> int:
    if text not in PERIODS:
        raise ValueError(f"unknown period {shown(text)}{did_you_mean(text, PERIODS)}")
    return PERIODS[text]


def _scope(text: str, place: Place) -> RateScope:
    for scope in _SCOPES[place]:
        if scope == text:
            return scope
    if text in _SCOPES["top"]:
        raise ValueError(f"{shown(text)} is nothing that the rates of one {place} can count apart; use one of {', '.join(_SCOPES[place])}")
    raise ValueError(f"unknown scope {shown(text)}{did_you_mean(text, _SCOPES[place])}")


def _on_excess(text: str) -> OnExcess:
    if text == "wait":
        return "wait"
    if text == "refuse":
        return "refuse"
    raise ValueError(f"expected wait or refuse, not {shown(text)}{did_you_mean(text, ('wait', 'refuse'))}")
