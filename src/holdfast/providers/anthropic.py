"""Anthropic (https://docs.anthropic.com/en/api)."""

from holdfast.pricing import PriceList, Terms
from holdfast.providers import ProviderKind
from holdfast.wire.anthropic_quota import anthropic_quotas
from holdfast.wire.call import Family
from holdfast.wire.quota import Pairs, Quota


class Anthropic:
    """A workspace's settings choose the geography of calls that name none
    (https://platform.claude.com/docs/en/manage-claude/data-residency)."""

    families: tuple[Family, ...] = ("anthropic",)
    key_variables: tuple[str, ...] = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
    base_url_variables: tuple[str, ...] = ("ANTHROPIC_BASE_URL",)
    base_url: str | None = "https://api.anthropic.com"
    prices = PriceList(provider="anthropic", terms=Terms(geos=(("global", 100), ("not_available", 100), ("us", 110))))
    modern = True

    def prices_at(self, host: str) -> PriceList:
        return self.prices

    def credentials(self, key: str, family: Family) -> tuple[tuple[bytes, bytes], ...]:
        if not key:
            return ()
        if key.startswith("sk-ant-oat"):  # an OAuth access token, which Anthropic takes in no other header
            return ((b"authorization", b"Bearer " + key.encode()),)
        return ((b"x-api-key", key.encode()),)

    def quotas(self, headers: Pairs, wall_ns: int) -> tuple[Quota, ...]:
        return anthropic_quotas(headers, wall_ns)


PLUGIN: ProviderKind = Anthropic()
