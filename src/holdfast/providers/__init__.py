"""Model providers, one file per kind: where it is, how it is paid for, how a key is presented. The file name is the kind in the config."""

from typing import Protocol

from holdfast.pricing import PriceList
from holdfast.wire.call import Family
from holdfast.wire.quota import Pairs, Quota


class ProviderKind(Protocol):
    """What a file of this package offers as `PLUGIN`.

    families: error and credential families whose formats it serves. key_variables: environment variables that hold its real key, the
    first being the default secret. base_url_variables: variables by which its SDKs are pointed elsewhere. base_url: the default; None
    when the config must name one. prices: for the models that the config names no price for.
    modern: knows `max_completion_tokens` and stream usage options.
    """

    families: tuple[Family, ...]
    key_variables: tuple[str, ...]
    base_url_variables: tuple[str, ...]
    base_url: str | None
    prices: PriceList
    modern: bool

    def prices_at(self, host: str) -> PriceList:
        """`prices` where `host` serves it, which may be another than its own."""

    def credentials(self, key: str, family: Family) -> tuple[tuple[bytes, bytes], ...]:
        """The request headers that present `key`; empty for an empty key."""

    def quotas(self, headers: Pairs, wall_ns: int) -> tuple[Quota, ...]:
        """What the headers of an answer say of the provider's own rate limits; nothing for nonsense. wall_ns: for instants in an answer
        that does not say what time it is."""
