"""Any other API in OpenAI's format: vLLM, Ollama, llama.cpp, resellers. Prices come from the config alone, a key is optional."""

from holdfast.pricing import PriceList
from holdfast.providers import ProviderKind
from holdfast.wire.call import Family
from holdfast.wire.openai_quota import openai_quotas
from holdfast.wire.quota import Pairs, Quota


class Compatible:
    families: tuple[Family, ...] = ("openai",)
    key_variables: tuple[str, ...] = ()
    base_url_variables: tuple[str, ...] = ()
    base_url: str | None = None
    prices = PriceList()
    modern = False

    def prices_at(self, host: str) -> PriceList:
        return self.prices

    def credentials(self, key: str, family: Family) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"authorization", b"Bearer " + key.encode()),) if key else ()

    def quotas(self, headers: Pairs, wall_ns: int) -> tuple[Quota, ...]:
        return openai_quotas(headers, refills=False)  # some count by the clock, and refill at once


PLUGIN: ProviderKind = Compatible()
