"""Anthropic's `anthropic-ratelimit-*` headers (https://docs.anthropic.com/en/api/rate-limits): token buckets that refill steadily."""

from holdfast.wire.quota import Pairs, Quota, QuotaUnit, amount, until_ns

_PREFIX = b"anthropic-ratelimit-"
_NAMES: tuple[tuple[bytes, QuotaUnit], ...] = (
    (_PREFIX + b"requests-", "requests"),
    (_PREFIX + b"tokens-", "tokens"),
    (_PREFIX + b"input-tokens-", "input_tokens"),
    (_PREFIX + b"output-tokens-", "output_tokens"),
)


def anthropic_quotas(headers: Pairs, wall_ns: int) -> tuple[Quota, ...]:
    """What is left of requests and of each kind of tokens. wall_ns: what `reset` is read against where the answer has no date."""
    found = dict(headers)
    quotas: list[Quota] = []
    for name, unit in _NAMES:
        most = amount(found.get(name + b"limit", b""))
        if most:
            left = amount(found.get(name + b"remaining", b""))
            resets_ns = until_ns(found.get(name + b"reset", b""), found.get(b"date", b""), wall_ns)
            if left is not None and resets_ns is not None:
                quotas.append(Quota(unit, most, min(left, most), resets_ns))
    return tuple(quotas)
