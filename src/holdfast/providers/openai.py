"""OpenAI (https://platform.openai.com/docs/api-reference)."""

from holdfast.pricing import PriceList
from holdfast.providers import ProviderKind
from holdfast.wire.call import Family


class OpenAI:
    families: tuple[Family, ...] = ("openai",)
    key_variables: tuple[str, ...] = ("OPENAI_API_KEY",)
    base_url_variables: tuple[str, ...] = ("OPENAI_BASE_URL",)
    base_url: str | None = "https://api.openai.com/v1"
    prices = PriceList(provider="openai")
    modern = True

    def credentials(self, key: str, family: Family) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"authorization", b"Bearer " + key.encode()),) if key else ()


PLUGIN: ProviderKind = OpenAI()
