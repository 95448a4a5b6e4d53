"""The simulated provider of `holdfast sim`: both formats, no key needed, every model at 1 USD per million input tokens and 4 USD output."""

from holdfast.money import from_usd
from holdfast.pricing import PriceList, Rates
from holdfast.providers import ProviderKind
from holdfast.wire.anthropic_quota import anthropic_quotas
from holdfast.wire.call import Family
from holdfast.wire.openai_quota import openai_quotas
from holdfast.wire.quota import Pairs, Quota


class Simulated:
    families: tuple[Family, ...] = ("openai", "anthropic")
    key_variables: tuple[str, ...] = ()
    base_url_variables: tuple[str, ...] = ()
    base_url: str | None = None
    prices = PriceList(overrides=(("*", Rates(input=from_usd(1), output=from_usd(4))),))
    modern = True

    def prices_at(self, host: str) -> PriceList:
        return self.prices

    def credentials(self, key: str, family: Family) -> tuple[tuple[bytes, bytes], ...]:
        if not key:
            return ()
        return ((b"x-api-key", key.encode()),) if family == "anthropic" else ((b"authorization", b"Bearer " + key.encode()),)

    def quotas(self, headers: Pairs, wall_ns: int) -> tuple[Quota, ...]:
        return openai_quotas(headers) or anthropic_quotas(headers, wall_ns)


PLUGIN: ProviderKind = Simulated()
