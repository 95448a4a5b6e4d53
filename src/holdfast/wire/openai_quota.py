"""OpenAI's `x-ratelimit-*` headers (https://platform.openai.com/docs/guides/rate-limits), which most APIs in its format send too."""

from holdfast.wire.quota import Pairs, Quota, QuotaUnit, amount, span_ns

_NAMES: tuple[tuple[bytes, QuotaUnit], ...] = ((b"-requests", "requests"), (b"-tokens", "tokens"))


def openai_quotas(headers: Pairs, *, refills: bool = True) -> tuple[Quota, ...]:
    """What is left of requests and of tokens, each with the time until it is whole again. refills: see `Quota`; OpenAI's do."""
    found = dict(headers)
    quotas: list[Quota] = []
    for name, unit in _NAMES:
        most = amount(found.get(b"x-ratelimit-limit" + name, b""))
        if most:
            left, resets_ns = amount(found.get(b"x-ratelimit-remaining" + name, b"")), span_ns(found.get(b"x-ratelimit-reset" + name, b""))
            if left is not None and resets_ns is not None:
                quotas.append(Quota(unit, most, min(left, most), resets_ns, refills))
    return tuple(quotas)
