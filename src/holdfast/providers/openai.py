"""OpenAI (https://platform.openai.com/docs/api-reference)."""

from holdfast.pricing import PriceList
from holdfast.providers import ProviderKind
from holdfast.wire.call import Family
from holdfast.wire.openai_quota import openai_quotas
from holdfast.wire.quota import Pairs, Quota


class OpenAI:
    families: tuple[Family, ...] = ("openai",)
    key_variables: tuple[str, ...] = ("OPENAI_API_KEY",)
    base_url_variables: tuple[str, ...] = ("OPENAI_BASE_URL",)
    base_url: str | None = "https://api.openai.com/v1"
    prices = PriceList(provider="openai")
    modern = True

    def credentials(self, key: str, family: Family) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"authorization", b"Bearer " + key.encode()),) if key else ()

    def quotas(self, headers: Pairs, wall_ns: int) -> tuple[Quota, ...]:
        return openai_quotas(headers)


PLUGIN: ProviderKind = OpenAI()
