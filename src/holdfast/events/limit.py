"""What limits did: refusals, and marks passed on the way there."""

from typing import Literal

from msgspec import Struct

from holdfast.events.instant import Instant


class LimitRefusal(Struct, frozen=True, kw_only=True, tag="limit_refusal", tag_field="kind", omit_defaults=True):
    """A call denied by a limit before it cost anything. Amounts in nano-dollars for `usd`, else a count."""

    timestamp: Instant
    agent: str
    release: str = ""
    run: str = ""
    user_id: str = ""
    interaction: str = ""
    limit: str  # e.g. "agent support: 500 USD per day"
    scope: str
    unit: Literal["usd", "calls", "tokens"]
    amount: int
    spent: int
    reserved: int
    asked: int
    resets_at: int | None = None  # wall clock, ns


class LimitMark(Struct, frozen=True, kw_only=True, tag="limit_mark", tag_field="kind", omit_defaults=True):
    """Spending passed a mark (80 %, COST_THRESHOLD_ALERT); once per mark and window.

    `reaches_at`: when the limit will be reached at the present rate, if that is within its window's length.
    """

    timestamp: Instant
    limit: str
    scope: str
    unit: Literal["usd", "calls", "tokens"]
    mark: int
    amount: int
    spent: int
    reaches_at: int | None = None  # wall clock, ns


class LimitForecast(Struct, frozen=True, kw_only=True, tag="limit_forecast", tag_field="kind", omit_defaults=True):
    """At the rate of the last minutes the limit is reached at `reaches_at`; once per window."""

    timestamp: Instant
    limit: str
    scope: str
    unit: Literal["usd", "calls", "tokens"]
    amount: int
    spent: int
    reaches_at: int  # wall clock, ns
