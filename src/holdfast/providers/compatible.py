"""Any other API in OpenAI's format: vLLM, Ollama, llama.cpp, resellers. Prices come from the config alone, a key is optional."""

from holdfast.pricing import PriceList
from holdfast.providers import ProviderKind
from holdfast.wire.call import Family


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


PLUGIN: ProviderKind = Compatible()
