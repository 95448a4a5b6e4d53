"""OpenAI's `x-ratelimit-*` headers (https://platform.openai.com/docs/guides/rate-limits), which most APIs in its format send too."""

from holdfast.wire.quota import Pairs, Quota, QuotaUnit, amount, span_ns

_PREFIX = b"x-ratelimit-"
_FIELDS = (b"limit", b"remaining", b"reset")
_NAMES: tuple[tuple[bytes, QuotaUnit], ...] = ((b"-requests", "requests"), (b"-tokens", "tokens"))


def openai_quotas(headers: Pairs, *, refills: bool = True) -> tuple[Quota, ...]:
    """What is left of requests and of tokens, each with the time until it is whole again. refills: see `Quota`; OpenAI's do."""
    found = {name[12:]: value for name, value in headers if name.startswith(_PREFIX)}
    if not found:
        return ()
    quotas: list[Quota] = []
    for name, unit in _NAMES:
        limit, remaining, reset = (found.get(field + name, b"") for field in _FIELDS)
        most, left, resets_ns = amount(limit), amount(remaining), span_ns(reset)
        if most and left is not None and resets_ns is not None:
            quotas.append(Quota(unit, most, min(left, most), resets_ns, refills))
    return tuple(quotas)
