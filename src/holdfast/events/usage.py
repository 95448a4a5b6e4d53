"""Token counts as every provider's usage is normalised to; part of decisions and api calls."""

from msgspec import Struct
from msgspec.structs import replace

MOST_TOKENS = 10**9
"""No call can use as many; a provider that reports more reports nonsense, which is not measured and must not enter any sum."""

_LONGEST_LABEL = 32


class Usage(Struct, frozen=True, omit_defaults=True):
    """Tokens of one answer.

    input: everything that was read, cached and cache-writing tokens included.
    cached_input: the part of `input` served from the provider's cache.
    cache_write: the part of `input` written to the provider's cache.
    cache_write_short: the part of `cache_write` known to be kept for the shortest time on offer, which is billed cheaper.
    output: everything that was generated, reasoning included.
    reasoning: the part of `output` spent on reasoning.
    web_searches: searches the provider itself ran and bills by the piece.
    tier, geo: the service tier or speed at which the answer was made, and the geography, in the provider's words; "" where it does not say.
    """

    input: int = 0
    output: int = 0
    cached_input: int = 0
    cache_write: int = 0
    cache_write_short: int = 0
    reasoning: int = 0
    web_searches: int = 0
    tier: str = ""
    geo: str = ""

    def counts(self) -> dict[str, int]:
        """Every count by its name, zeros too."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name not in ("tier", "geo")}

    def __add__(self, other: "Usage") -> "Usage":
        """The sum of all counts; of no tier and no geography."""
        more = other.counts()
        return replace(Usage(), **{name: count + more[name] for name, count in self.counts().items()})


def label(value: object) -> str:
    """A provider's name of a tier or a geography; "" for what is none."""
    return value if isinstance(value, str) and len(value) <= _LONGEST_LABEL else ""
