"""Anthropic's `anthropic-ratelimit-*` headers (https://docs.anthropic.com/en/api/rate-limits): token buckets that refill steadily."""

from holdfast.wire.quota import Pairs, Quota, QuotaUnit, amount, until_ns

_PREFIX = b"anthropic-ratelimit-"
_FIELDS = (b"limit", b"remaining", b"reset")
_NAMES: tuple[tuple[bytes, QuotaUnit], ...] = (
    (b"requests-", "requests"),
    (b"tokens-", "tokens"),
    (b"input-tokens-", "input_tokens"),
    (b"output-tokens-", "output_tokens"),
)


def anthropic_quotas(headers: Pairs, wall_ns: int) -> tuple[Quota, ...]:
    """What is left of requests and of each kind of tokens. wall_ns: what `reset` is read against where the answer has no date."""
    found: dict[bytes, bytes] = {}
    dated = b""
    for name, value in headers:
        if name.startswith(_PREFIX):
            found[name[20:]] = value
        elif name == b"date":
            dated = value
    if not found:
        return ()
    quotas: list[Quota] = []
    for name, unit in _NAMES:
        limit, remaining, reset = (found.get(name + field, b"") for field in _FIELDS)
        most, left, resets_ns = amount(limit), amount(remaining), until_ns(reset, dated, wall_ns)
        if most and left is not None and resets_ns is not None:
            quotas.append(Quota(unit, most, min(left, most), resets_ns))
    return tuple(quotas)
