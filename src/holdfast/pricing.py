"""What a call may cost at most, and what it did cost: rates per model in integer nano-dollars per million tokens."""

import re
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from holdfast.clock import SECOND
from holdfast.events.usage import Usage
from holdfast.money import NANO, Nano

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, TieredPrices

MILLION = 1_000_000

MAX_OUTPUT = 1_000_000_000
"""Tokens; the answer of `affordable_output` where more output costs nothing."""

_DAY_NS = 86_400 * SECOND
_MAX_NAME = 256
_MAX_KNOWN = 1024


class Rates(Struct, frozen=True, kw_only=True):
    """Prices of one model in nano-dollars per million tokens.

    cached_input: read from the provider's cache. cache_write: written to it for the longest time that it offers; cache_write_short: for
    the shortest. None: as input. web_search: nano-dollars per search. per_call: nano-dollars per call. tiers: what holds instead for a
    call whose whole input is longer, ascending. served: what holds instead for an answer that says at which service tier and in which
    geography it was made (`Usage.tier`, `Usage.geo`).
    """

    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    cache_write_short: int | None = None
    web_search: int = 0
    per_call: int = 0
    tiers: tuple["Tier", ...] = ()
    served: dict[tuple[str, str], "Rates"] = {}

    def at(self, input_tokens: int) -> "Rates":
        """The rates of a call with that much input: they hold for all of its tokens, not only for those above the threshold."""
        held = self
        for tier in self.tiers:
            if input_tokens > tier.above:
                held = tier.rates
        return held


class Tier(Struct, frozen=True):
    """`rates` hold for calls of more than `above` input tokens."""

    above: int
    rates: Rates


class Terms(Struct, frozen=True, kw_only=True):
    """How a provider picks among its published prices.

    unasked: tiers that may serve a call that names none, because the customer's project says so. tells_tier: its answers always say which
    tier served them. geos: (geography that a call may name, percent of every token price); the dearest may hold for a call that names none.
    percent: of every token price, on top.
    """

    unasked: tuple[str, ...] = ()
    tells_tier: bool = False
    geos: tuple[tuple[str, int], ...] = ()
    percent: int = 100


class PriceList(Struct, frozen=True, kw_only=True, dict=True):
    """Where the rates of a provider's models come from.

    overrides: (model name with `*` as wildcard, rates), the first that matches counts. provider: id in genai-prices (data bundled with
    that package, read offline) for what no override matches; "" for no other source. terms: what the published prices leave open.
    """

    overrides: tuple[tuple[str, Rates], ...] = ()
    provider: str = ""
    terms: Terms = Terms()

    def rates(self, model: str, now_ns: int, tier: str = "", geo: str = "") -> Rates | None:
        """The rates of `model` on the day of `now_ns` (wall clock), or None when no price is known.

        tier: the service tier or speed that the call asks for (`priority`, `fast`, …), "" when it leaves it to the provider; geo: likewise
        the geography. They are the dearest at which such a call may be served: never below the standard price, since a discount
        (`flex`) may be asked for and not granted. Take them once per call: reserve and settle must agree.
        """
        if len(model) > _MAX_NAME or len(tier) > _MAX_NAME or len(geo) > _MAX_NAME:
            return None  # the names are the callers': no memory without a bound for them
        key = (model, tier, geo, now_ns // _DAY_NS)
        try:
            return self._known[key]
        except KeyError:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            found = self._known[key] = self._find(model, now_ns, tier, geo)
            return found

    @cached_property
    def _known(self) -> dict[tuple[str, str, str, int], Rates | None]:
        return {}

    def _find(self, model: str, now_ns: int, tier: str, geo: str) -> Rates | None:
        for pattern, rates in self.overrides:
            if matches(pattern, model):
                return rates
        if not self.provider:
            return None
        tiers = _published(self.provider, model, datetime.fromtimestamp(now_ns // SECOND, UTC))
        return None if tiers is None else _dearest_served(tiers, self.terms, tier, geo)


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is `pattern`, in which each `*` stands for any characters and nothing else is special."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def cost(rates: Rates, usage: Usage) -> Nano:
    """What an answer cost, rounded up to the next nano-dollar."""
    if rates.served:
        rates = rates.served.get((usage.tier, usage.geo), rates)
    held = rates.at(usage.input) if rates.tiers else rates
    plain = max(0, usage.input - usage.cached_input - usage.cache_write)
    short = min(usage.cache_write_short, usage.cache_write)
    tokens = (
        plain * held.input
        + usage.cached_input * _or_input(held, held.cached_input)
        + (usage.cache_write - short) * _or_input(held, held.cache_write)
        + short * _or_input(held, held.cache_write_short)
        + usage.output * held.output
    )
    return _rounded_up(tokens) + usage.web_searches * held.web_search + held.per_call


def worst(rates: Rates, input_bound: int, max_output: int) -> Nano:
    """The most that a call of at most that many tokens can cost, however its input is cached; searches are not in it."""
    dearest_input, dearest_output, per_call = _dearest(rates, input_bound)
    return _rounded_up(input_bound * dearest_input + max_output * dearest_output) + per_call


def worst_between(rates: Rates, input_bound: int, least_output: int, most_output: int) -> tuple[Nano, Nano]:
    """`worst` for the least and the most output that a call may be given."""
    dearest_input, dearest_output, per_call = _dearest(rates, input_bound)
    read = input_bound * dearest_input
    return _rounded_up(read + least_output * dearest_output) + per_call, _rounded_up(read + most_output * dearest_output) + per_call


def affordable_output(rates: Rates, input_bound: int, money: Nano) -> int:
    """The largest `max_output` for which `worst` stays within `money`, at most `MAX_OUTPUT`; negative: not even the input is paid for."""
    dearest_input, dearest_output, per_call = _dearest(rates, input_bound)
    left = (money - per_call) * MILLION - input_bound * dearest_input
    if dearest_output == 0:
        return MAX_OUTPUT if left >= 0 else -1
    return min(left // dearest_output, MAX_OUTPUT)


def without_steps(rates: Rates) -> Rates:
    """The highest rates at any length of input, for a call whose length nobody knows."""
    for tier in rates.tiers:
        rates = replace(_higher(rates, tier.rates), tiers=rates.tiers)
    return replace(rates, tiers=())


def _dearest(rates: Rates, input_bound: int) -> tuple[int, int, int]:
    """The highest rate of input and of output, and the highest price per call, over every tier that the bound can reach."""
    if not rates.tiers:
        return _dearest_input(rates), rates.output, rates.per_call
    reachable = [rates, *(tier.rates for tier in rates.tiers if tier.above < input_bound)]
    return max(map(_dearest_input, reachable)), max(held.output for held in reachable), max(held.per_call for held in reachable)


def _dearest_input(rates: Rates) -> int:
    return max(rates.input, rates.cached_input or 0, rates.cache_write or 0, rates.cache_write_short or 0)


def _or_input(rates: Rates, rate: int | None) -> int:
    return rates.input if rate is None else rate


def _rounded_up(token_price: int) -> Nano:
    return -(-token_price // MILLION)


_FIELDS: dict[str, tuple[str, ...]] = {
    "input": ("input_mtok", "input_audio_mtok", "input_image_mtok"),
    "output": ("output_mtok", "output_audio_mtok", "output_image_mtok"),
    "cached_input": ("cache_read_mtok", "cache_audio_read_mtok", "cache_image_read_mtok"),
    "cache_write": ("cache_write_1h_mtok", "cache_write_mtok"),
    "cache_write_short": ("cache_write_mtok",),
    "web_search": ("web_searches_kcount",),
}
"""Which prices of genai-prices make up a rate: the dearest of them, because usage does not tell text from sound and images."""

_IGNORED = frozenset({"storage_searches_kcount"})
"""Searches in files kept by the provider: a call with such tools cannot be bounded, and its usage does not count them."""


_STANDARD = ("default", "standard")
_PREMIUM = frozenset({"priority", "fast"})
"""Tiers that a model without a price for them does not have: it is served at the standard price, or not at all."""
_NEVER_DEARER = frozenset({*_STANDARD, "standard_only", "flex", "batch", "scale"})
"""Tiers that cost the standard price or less; `scale` is capacity that was paid in advance."""

_UNKNOWN_GEO_PERCENT = 150
"""Of a geography that nobody has published a price for; those known cost 110."""


def _published(provider: str, model: str, now: datetime) -> dict[str, Rates] | None:
    """The rates in the data of genai-prices by service tier or speed; None when the model is unknown or not priced by the token alone."""
    from genai_prices.data import providers  # 150 ms: paid by the gateway at its first price, never by the command line

    source = next((known for known in providers if known.id == provider), None)
    info = source.find_model(model) if source else None
    standard = None if info is None else _rates(info.get_prices(now))
    if info is None or standard is None:
        return None
    found = dict.fromkeys(_STANDARD, standard)
    for variant in info.price_variants or ():
        tier = str(variant.when.get("service_tier") or variant.when.get("speed") or "")
        rates = _rates(info.get_prices(now, {"service_tier": tier, "speed": tier})) if tier else None
        if rates is not None and tier not in _STANDARD:
            found[tier] = rates
    return found


def _dearest_served(tiers: dict[str, Rates], terms: Terms, tier: str, geo: str) -> Rates | None:
    """The rates of a call that asks for a tier and a geography, and of its answer wherever it was served; None for an unknown tier.

    tiers: the rates of each, the standard one among them.
    """
    standard = tiers["default"]
    asked = terms.unasked if tier in ("", "auto") else (tier,)
    if any(name not in tiers and name not in _NEVER_DEARER and name not in _PREMIUM for name in asked):
        return None
    dearest = standard
    for name in asked:
        dearest = _dearer(dearest, tiers.get(name, standard))
    silent = dearest if terms.tells_tier or not (tier in ("", "auto") or tier in _NEVER_DEARER) else standard
    geos = {name: percent * terms.percent for name, percent in terms.geos}
    if not geos:
        percent = unsaid = 100 * terms.percent
    elif geo:
        percent = unsaid = geos.get(geo, _UNKNOWN_GEO_PERCENT * terms.percent)
    else:  # what does not say where it was served is too old to be served anywhere in particular
        percent, unsaid = max(geos.values()), 100 * terms.percent
    served = {
        (label, where): _times(rates, factor)
        for label, rates in {**tiers, "": silent}.items()
        for where, factor in {**geos, "": unsaid}.items()
    }
    return replace(_times(dearest, percent), served=served)


def _rates(price: "ModelPrice") -> Rates | None:
    given = {name: value for name, value in vars(price).items() if value is not None and name not in _IGNORED}
    if "input_mtok" not in given or not given.keys() <= {name for names in _FIELDS.values() for name in names}:
        return None
    starts = sorted({tier.start for value in given.values() for tier in getattr(value, "tiers", ())})
    tiers = tuple(Tier(start, _flat(given, start + 1)) for start in starts)
    return replace(_flat(given, 0), tiers=tiers)


def _flat(given: "dict[str, Decimal | TieredPrices]", input_tokens: int) -> Rates:
    """The rates of a call with that much input."""

    def rate(field: str) -> int | None:
        prices = [_price_at(given[name], input_tokens) for name in _FIELDS[field] if name in given]
        return int((max(prices) * NANO).to_integral_value(ROUND_CEILING)) if prices else None

    return Rates(
        input=rate("input") or 0,
        output=rate("output") or 0,
        cached_input=rate("cached_input"),
        cache_write=rate("cache_write"),
        cache_write_short=rate("cache_write_short"),
        web_search=-(-(rate("web_search") or 0) // 1000),
    )


def _price_at(price: "Decimal | TieredPrices", input_tokens: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    return next((tier.price for tier in reversed(price.tiers) if input_tokens > tier.start), price.base)


def _times(rates: Rates, per_myriad: int) -> Rates:
    """Every token price times so many ten-thousandths, rounded up."""
    if per_myriad == 10_000:
        return rates
    changed = {
        name: None if price is None else -(-price * per_myriad // 10_000)
        for name in ("input", "output", "cached_input", "cache_write", "cache_write_short")
        for price in (getattr(rates, name),)
    }
    return replace(rates, **changed, tiers=tuple(Tier(tier.above, _times(tier.rates, per_myriad)) for tier in rates.tiers))


def _dearer(one: Rates, other: Rates) -> Rates:
    """The higher of both in every field, at every length of input."""
    starts = sorted({tier.above for tier in one.tiers + other.tiers})
    tiers = tuple(Tier(start, _higher(one.at(start + 1), other.at(start + 1))) for start in starts)
    return replace(_higher(one, other), tiers=tiers)


def _higher(one: Rates, other: Rates) -> Rates:
    return Rates(
        input=max(one.input, other.input),
        output=max(one.output, other.output),
        cached_input=max(_or_input(one, one.cached_input), _or_input(other, other.cached_input)),
        cache_write=max(_or_input(one, one.cache_write), _or_input(other, other.cache_write)),
        cache_write_short=max(_or_input(one, one.cache_write_short), _or_input(other, other.cache_write_short)),
        web_search=max(one.web_search, other.web_search),
        per_call=max(one.per_call, other.per_call),
    )
