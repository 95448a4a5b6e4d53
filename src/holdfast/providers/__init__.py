"""Model providers, one file per kind: where it is, how it is paid for, how a key is presented. The file name is the kind in the config."""

from typing import Protocol

from holdfast.wire.call import Family


class ProviderKind(Protocol):
    """What a file of this package offers as `PLUGIN`.

    families: error and credential families whose formats it serves. key_variables: environment variables that hold its real key, the
    first being the default secret. base_url_variables: variables by which its SDKs are pointed elsewhere. base_url: the default; None
    when the config must name one. price_list: provider id in genai-prices, None for prices from the config alone.
    modern: knows `max_completion_tokens` and stream usage options.
    """

    families: tuple[Family, ...]
    key_variables: tuple[str, ...]
    base_url_variables: tuple[str, ...]
    base_url: str | None
    price_list: str | None
    modern: bool

    def credentials(self, key: str, family: Family) -> tuple[tuple[bytes, bytes], ...]:
        """The request headers that present `key`; empty for an empty key."""
