"""OpenAI (https://platform.openai.com/docs/api-reference)."""

from msgspec.structs import replace

from holdfast.pricing import PriceList, Terms
from holdfast.providers import ProviderKind
from holdfast.wire.call import Family
from holdfast.wire.openai_quota import openai_quotas
from holdfast.wire.quota import Pairs, Quota

_PRICES = PriceList(provider="openai", terms=Terms(unasked=("priority", "fast"), tells_tier=True))
"""A project's settings choose the tier of calls that name none."""
_REGIONAL_PERCENT = 110
"""Of data residency, see https://developers.openai.com/api/docs/guides/data-residency."""


class OpenAI:
    families: tuple[Family, ...] = ("openai",)
    key_variables: tuple[str, ...] = ("OPENAI_API_KEY",)
    base_url_variables: tuple[str, ...] = ("OPENAI_BASE_URL",)
    base_url: str | None = "https://api.openai.com/v1"
    prices = _PRICES
    modern = True

    def prices_at(self, host: str) -> PriceList:
        if host == "api.openai.com":
            return _PRICES
        if host.endswith(".api.openai.com"):
            return replace(_PRICES, terms=replace(_PRICES.terms, percent=_REGIONAL_PERCENT))
        return replace(_PRICES, terms=replace(_PRICES.terms, tells_tier=False))

    def credentials(self, key: str, family: Family) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"authorization", b"Bearer " + key.encode()),) if key else ()

    def quotas(self, headers: Pairs, wall_ns: int) -> tuple[Quota, ...]:
        return openai_quotas(headers)


PLUGIN: ProviderKind = OpenAI()
