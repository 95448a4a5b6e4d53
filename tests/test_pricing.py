"""Prices, attacked: no answer within its bounds costs more than was reserved for it, and what is billed is what the price list says."""

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as PublishedUsage
from genai_prices.data import providers
from genai_prices.types import ClauseEquals, ClauseOr, ClauseStartsWith, MatchLogic, ModelInfo
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.clock import SECOND
from holdfast.events.usage import Usage
from holdfast.pricing import (
    MAX_OUTPUT,
    PriceList,
    Rates,
    Terms,
    Tier,
    affordable_output,
    cost,
    matches,
    without_steps,
    worst,
    worst_between,
)

NOW = 1_795_000_000 * SECOND  # 2026-11-18
DAY = 86_400 * SECOND
SOURCES = {source.id: source for source in providers if source.id in ("openai", "anthropic")}

rate = st.integers(0, 200_000_000_000)
maybe_rate = st.none() | rate
flat_rates = st.builds(
    Rates, input=rate, output=rate, cached_input=maybe_rate, cache_write=maybe_rate, cache_write_short=maybe_rate, per_call=rate
)
tokens = st.integers(0, 600_000)


@st.composite
def tiered_rates(draw: st.DrawFn) -> Rates:
    starts = sorted(draw(st.sets(st.integers(0, 500_000), max_size=3)))
    base = draw(flat_rates)
    tiers = tuple(Tier(start, draw(flat_rates)) for start in starts)
    return Rates(**{name: getattr(base, name) for name in base.__struct_fields__ if name != "tiers"}, tiers=tiers)


@st.composite
def usages(draw: st.DrawFn, longest: int = 600_000) -> Usage:
    read = draw(st.integers(0, longest))
    cached = draw(st.integers(0, read))
    written = draw(st.integers(0, read - cached))
    return Usage(input=read, cached_input=cached, cache_write=written, cache_write_short=draw(st.integers(0, written)), output=draw(tokens))


@given(rates=tiered_rates(), usage=usages(), slack=tokens)
def test_no_answer_within_its_bounds_costs_more_than_the_worst_case(rates: Rates, usage: Usage, slack: int) -> None:
    most = worst(rates, usage.input + slack, usage.output)
    assert cost(rates, usage) <= most
    assert worst_between(rates, usage.input + slack, 0, usage.output) == (worst(rates, usage.input + slack, 0), most)


@given(rates=flat_rates, usage=usages())
def test_the_worst_case_is_reached_by_some_split_of_the_input(rates: Rates, usage: Usage) -> None:
    read = usage.input
    splits = [{}, {"cached_input": read}, {"cache_write": read}, {"cache_write": read, "cache_write_short": read}]
    assert max(cost(rates, Usage(input=read, output=usage.output, **split)) for split in splits) == worst(rates, read, usage.output)


@given(rates=tiered_rates(), bound=tokens, money=st.integers(0, 10**14))
def test_the_affordable_output_is_the_largest_that_money_pays_for(rates: Rates, bound: int, money: int) -> None:
    most = affordable_output(rates, bound, money)
    if most < 0:
        assert worst(rates, bound, 0) > money
    else:
        assert worst(rates, bound, most) <= money
    if 0 <= most < MAX_OUTPUT:
        assert worst(rates, bound, most + 1) > money


def test_a_cost_is_rounded_up_to_the_next_nano_dollar() -> None:
    assert cost(Rates(input=1, output=0), Usage(input=1)) == 1
    assert cost(Rates(input=1_000_000, output=0), Usage(input=3)) == 3


def test_cached_and_written_tokens_are_paid_once_and_at_their_own_rate() -> None:
    rates = Rates(input=10, output=0, cached_input=1, cache_write=20, cache_write_short=12)
    million = 1_000_000
    usage = Usage(input=10 * million, cached_input=4 * million, cache_write=3 * million, cache_write_short=1 * million)
    assert cost(rates, usage) == 3 * 10 + 4 * 1 + 2 * 20 + 1 * 12


def test_tokens_without_a_rate_of_their_own_cost_as_much_as_input() -> None:
    usage = Usage(input=3_000_000, cached_input=1_000_000, cache_write=1_000_000)
    assert cost(Rates(input=7, output=0), usage) == 21


def test_calls_and_searches_are_paid_by_the_piece() -> None:
    assert cost(Rates(input=0, output=0, per_call=5, web_search=100), Usage(web_searches=3)) == 305


def test_a_long_input_is_paid_at_its_tier_from_the_first_token_on() -> None:
    rates = Rates(input=1_000_000, output=1_000_000, tiers=(Tier(100, Rates(input=2_000_000, output=3_000_000)),))
    assert cost(rates, Usage(input=100, output=1)) == 101
    assert cost(rates, Usage(input=101, output=1)) == 205


def test_the_worst_case_counts_a_tier_from_the_first_token_that_reaches_it() -> None:
    rates = Rates(input=1_000_000, output=0, tiers=(Tier(100, Rates(input=2_000_000, output=0)),))
    assert worst(rates, 100, 0) == 100
    assert worst(rates, 101, 0) == 202


def names_of(match: MatchLogic) -> Iterator[str]:
    """Model names that a clause of the price data certainly matches."""
    if isinstance(match, ClauseEquals):
        yield match.equals
    elif isinstance(match, ClauseStartsWith):
        yield match.starts_with
    elif isinstance(match, ClauseOr):
        for clause in match.or_:
            yield from names_of(clause)


def published(model: ModelInfo) -> set[str]:
    return {name for name, value in vars(model.get_prices(datetime.fromtimestamp(NOW // SECOND, UTC))).items() if value is not None}


MODELS = [(source.id, model) for source in SOURCES.values() for model in source.models]
BY_TOKEN = [(source, model) for source, model in MODELS if "input_mtok" in published(model)]
TEXT = [(source, model) for source, model in BY_TOKEN if not any("audio" in name or "image" in name for name in published(model))]
"""Usage does not tell text from sound and images: models that price these apart are paid at the dearest of them, tested below."""


def reference(source: str, model: ModelInfo, usage: Usage) -> Decimal:
    """genai-prices' own price in nano-dollars, for what it has a price."""
    priced = published(model)
    values = {"input_tokens": usage.input, "output_tokens": usage.output, "web_searches": usage.web_searches}
    if "cache_read_mtok" in priced:
        values["cache_read_tokens"] = usage.cached_input
    if "cache_write_mtok" in priced:
        values["cache_write_tokens"] = usage.cache_write
    if "cache_write_1h_mtok" in priced:
        values["cache_write_1h_tokens"] = usage.cache_write - usage.cache_write_short
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        now = datetime.fromtimestamp(NOW // SECOND, UTC)
        return model.calc_price(PublishedUsage(**values), SOURCES[source], genai_request_timestamp=now).total_price * 10**9


@given(picked=st.sampled_from(TEXT), usage=usages(), searches=st.integers(0, 20))
def test_costs_agree_with_genai_prices_to_the_nano_dollar(picked: tuple[str, ModelInfo], usage: Usage, searches: int) -> None:
    source, model = picked
    rates = PriceList(provider=source).rates(next(names_of(model.match), model.id), NOW)
    assert rates is not None
    usage = Usage(**{name: getattr(usage, name) for name in usage.__struct_fields__} | {"web_searches": searches})
    assert 0 <= cost(rates, usage) - reference(source, model, usage) < 1


@given(picked=st.sampled_from([pair for pair in BY_TOKEN if pair not in TEXT]), usage=usages())
def test_models_for_sound_and_images_never_cost_less_than_their_text_price(picked: tuple[str, ModelInfo], usage: Usage) -> None:
    source, model = picked
    rates = PriceList(provider=source).rates(next(names_of(model.match), model.id), NOW)
    assert rates is not None
    assert cost(rates, Usage(input=usage.input, output=usage.output)) >= reference(
        source, model, Usage(input=usage.input, output=usage.output)
    )


@pytest.mark.parametrize(("source", "model"), [(source, model) for source, model in MODELS if (source, model) not in BY_TOKEN])
def test_models_that_are_not_paid_by_the_token_have_no_rates(source: str, model: ModelInfo) -> None:
    assert PriceList(provider=source).rates(next(names_of(model.match), model.id), NOW) is None


@pytest.mark.parametrize(
    ("source", "dated", "plain"),
    [
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "gpt-5.1-20251113", "gpt-5.1"),
        ("openai", "GPT-4o", "gpt-4o"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
    ],
)
def test_dated_names_cost_what_their_model_costs(source: str, dated: str, plain: str) -> None:
    prices = PriceList(provider=source)
    assert prices.rates(dated, NOW) == prices.rates(plain, NOW) is not None


@pytest.mark.parametrize("model", ["", "gpt-99-colossal", "claude-sonnet-4-5", "x" * 1_000_000, "gpt-4o\n", "*"])
def test_a_model_that_the_provider_does_not_list_has_no_rates(model: str) -> None:
    assert PriceList(provider="openai").rates(model, NOW) is None


@pytest.mark.parametrize(("source", "model"), TEXT)
@pytest.mark.parametrize("tier", ["default", "priority", "fast", "flex"])
def test_a_tier_is_never_cheaper_than_standard_and_never_cheaper_than_published(source: str, model: ModelInfo, tier: str) -> None:
    name = next(names_of(model.match), model.id)
    prices = PriceList(provider=source)
    standard, asked = prices.rates(name, NOW), prices.rates(name, NOW, tier)
    assert standard is not None
    assert asked is not None
    now = datetime.fromtimestamp(NOW // SECOND, UTC)
    for read in (1_000, 150_000, 250_000, 300_000):
        usage = Usage(input=read, output=read)
        variant = model.calc_price(
            PublishedUsage(input_tokens=read, output_tokens=read),
            SOURCES[source],
            genai_request_timestamp=now,
            price_context={"service_tier": tier, "speed": tier},
        )
        assert cost(asked, usage) >= max(cost(standard, usage), variant.total_price * 10**9)


def test_priority_costs_more_and_flex_is_not_counted_on() -> None:
    prices = PriceList(provider="openai")
    standard, priority, flex = (prices.rates("gpt-5.1", NOW, tier) for tier in ("", "priority", "flex"))
    assert standard is not None
    assert priority is not None
    assert flex is not None
    assert priority.output == 2 * standard.output
    assert (flex.input, flex.output, flex.cached_input) == (standard.input, standard.output, standard.cached_input)


def test_prices_change_on_the_day_that_the_data_names() -> None:
    source, model = next((s, m) for s, m in BY_TOKEN if isinstance(m.prices, list) and m.prices[-1].constraint is not None)
    start = model.prices[-1].constraint.start_date
    first = int(datetime(start.year, start.month, start.day, tzinfo=UTC).timestamp()) * SECOND
    prices = PriceList(provider=source)
    name = next(names_of(model.match))
    before, after = prices.rates(name, first - 1), prices.rates(name, first)
    assert before != after
    assert prices.rates(name, first + DAY) == after


def test_the_first_override_that_matches_counts_and_the_list_is_asked_last() -> None:
    mine, any_mini = Rates(input=1, output=1), Rates(input=2, output=2)
    prices = PriceList(overrides=(("gpt-4o", mine), ("*-mini*", any_mini)), provider="openai")
    assert prices.rates("gpt-4o", NOW) is mine
    assert prices.rates("gpt-4o-mini", NOW) is any_mini
    assert prices.rates("gpt-5.1", NOW) == PriceList(provider="openai").rates("gpt-5.1", NOW)
    assert PriceList(overrides=(("gpt-4o", mine),)).rates("gpt-5.1", NOW) is None


def test_memory_for_names_that_callers_invent_is_bounded() -> None:
    prices = PriceList(overrides=(("*", Rates(input=0, output=0)),))
    for number in range(10_000):
        prices.rates(f"model-{number}", NOW)
    assert len(prices._known) <= 1024


def test_price_lists_are_equal_whatever_they_were_asked() -> None:
    asked, fresh = PriceList(provider="openai"), PriceList(provider="openai")
    asked.rates("gpt-4o", NOW)
    assert asked == fresh


@given(parts=st.lists(st.text(max_size=5), min_size=1, max_size=4), fillings=st.lists(st.text(max_size=5), min_size=4, max_size=4))
def test_a_star_stands_for_any_text_and_everything_else_for_itself(parts: list[str], fillings: list[str]) -> None:
    parts = [part.replace("*", "") for part in parts]
    text = parts[0] + "".join(filling + part for filling, part in zip(fillings, parts[1:], strict=False))
    assert matches("*".join(parts), text)
    if len(parts) == 1:
        assert not matches(parts[0], text + "x")


TERMS = Terms(unasked=("priority", "fast"), tells_tier=True)
CLAUDE = Terms(geos=(("global", 100), ("us", 110)))


def at(prices: PriceList, usage: Usage, model: str = "gpt-5.1", tier: str = "", geo: str = "") -> int:
    rates = prices.rates(model, NOW, tier, geo)
    assert rates is not None
    return cost(rates, usage)


def bound(prices: PriceList, model: str = "gpt-5.1", tier: str = "", geo: str = "") -> int:
    rates = prices.rates(model, NOW, tier, geo)
    assert rates is not None
    return worst(rates, 1_000, 1_000)


def test_a_call_that_names_no_tier_is_bounded_by_the_dearest_and_settled_by_the_one_that_served() -> None:
    prices = PriceList(provider="openai", terms=TERMS)
    standard, asked = (bound(prices, tier=tier) for tier in ("default", ""))
    assert asked == bound(prices, tier="auto") == 2 * standard == bound(prices, tier="priority")
    served = {tier: at(prices, Usage(input=1_000, output=1_000, tier=tier)) for tier in ("default", "flex", "priority", "fast", "")}
    assert served == {"default": standard, "flex": standard // 2, "priority": asked, "fast": asked, "": asked}


def test_a_tier_that_nobody_reports_is_the_standard_one_only_where_it_may_be_left_out() -> None:
    silent = PriceList(provider="openai", terms=Terms(unasked=("priority",)))
    usage = Usage(input=1_000, output=1_000)
    assert bound(silent) == 2 * at(silent, usage) == 2 * bound(silent, tier="default")
    assert at(silent, usage, tier="priority") == bound(silent)
    assert at(silent, Usage(input=1_000, output=1_000, tier="priority")) == bound(silent)


@pytest.mark.parametrize("tier", ["flex", "scale", "standard_only", "batch"])
def test_a_cheaper_tier_is_bounded_by_the_standard_price(tier: str) -> None:
    prices = PriceList(provider="openai", terms=TERMS)
    assert bound(prices, tier=tier) == bound(prices, tier="default")


@pytest.mark.parametrize("tier", ["ultrafast", "x" * 300, "Priority"])
def test_a_tier_that_has_no_price_has_no_bound(tier: str) -> None:
    assert PriceList(provider="openai", terms=TERMS).rates("gpt-5.1", NOW, tier) is None


def test_a_tier_that_answers_invent_costs_what_was_reserved() -> None:
    prices = PriceList(provider="openai", terms=TERMS)
    assert at(prices, Usage(input=1_000, output=1_000, tier="ultrafast")) == bound(prices)


def test_a_geography_costs_what_is_published_and_an_unknown_one_more() -> None:
    prices = PriceList(provider="anthropic", terms=CLAUDE)
    plain, unnamed, us, unknown = (bound(prices, "claude-opus-4-8", geo=geo) for geo in ("global", "", "us", "mars"))
    assert unnamed == us == plain * 11 // 10
    assert unknown == plain * 3 // 2
    used = {
        geo: at(prices, Usage(input=1_000, output=1_000, cache_write=1_000, geo=geo), "claude-opus-4-8") for geo in ("global", "us", "")
    }
    assert used == {"global": plain, "us": us, "": plain}
    assert at(prices, Usage(input=1_000, output=1_000, cache_write=1_000), "claude-opus-4-8", geo="us") == us


def test_speed_and_geography_multiply() -> None:
    prices = PriceList(provider="anthropic", terms=CLAUDE)
    usage = Usage(input=1_000, output=1_000, tier="fast", geo="us")
    plain = Usage(input=1_000, output=1_000, tier="standard", geo="global")
    assert at(prices, usage, "claude-opus-4-8", "fast") == 2 * at(prices, plain, "claude-opus-4-8", "fast") * 11 // 10


def test_a_percentage_holds_for_every_tier_and_step() -> None:
    regional = PriceList(provider="openai", terms=Terms(percent=110))
    for read in (1_000, 300_000):
        usage = Usage(input=read, output=1_000, cached_input=500)
        assert at(regional, usage, "gpt-6.1-sol") == at(PriceList(provider="openai"), usage, "gpt-6.1-sol") * 11 // 10


@given(rates=tiered_rates(), usage=usages())
def test_rates_without_steps_bound_every_length(rates: Rates, usage: Usage) -> None:
    assert worst(without_steps(rates), usage.input, usage.output) >= worst(rates, usage.input, usage.output)
    assert without_steps(rates).tiers == ()


@given(picked=st.sampled_from(TEXT), usage=usages(), asked=st.sampled_from(["", "default", "priority", "flex", "fast"]), data=st.data())
def test_no_answer_of_a_tier_that_may_serve_costs_more_than_the_worst_case(
    picked: tuple[str, ModelInfo], usage: Usage, asked: str, data: st.DataObject
) -> None:
    source, model = picked
    rates = PriceList(provider=source, terms=TERMS).rates(next(names_of(model.match), model.id), NOW, asked)
    assert rates is not None
    may = {"": ("default", "priority", "fast", ""), "default": ("default", "")}.get(asked, (asked, "default", ""))
    served = replace(usage, tier=data.draw(st.sampled_from(may)))
    assert cost(rates, served) <= worst(rates, usage.input, usage.output)
