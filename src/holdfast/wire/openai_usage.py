"""The `usage` object of Chat Completions and Embeddings, normalised."""

import msgspec
from msgspec import Raw, Struct

from holdfast.events.usage import MOST_TOKENS, Usage, label


class _Details(Struct, gc=False):
    cached_tokens: object = None
    cache_write_tokens: object = None
    reasoning_tokens: object = None


class _Usage(Struct, gc=False):
    prompt_tokens: object = None
    completion_tokens: object = None
    total_tokens: object = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: object = None  # DeepSeek's name of cached_tokens


_NONE = _Details()
_decode = msgspec.json.Decoder(_Usage | None).decode


def read_usage(raw: Raw, tier: object = None) -> Usage | None:
    """The tokens that a provider reported, or None where it reported none, or nonsense (negative, not whole, beyond all measure).

    Some servers leave reasoning out of `completion_tokens` and bill it, with or without it in `total_tokens`: the larger reading is taken.
    tier: the `service_tier` that stands beside the usage.
    """
    try:
        usage = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if usage is None or (read := _count(usage.prompt_tokens)) is None:
        return None
    total, generated = _count(usage.total_tokens), _count(usage.completion_tokens)
    if generated is None and (total is None or usage.completion_tokens is not None):
        return None
    output = max(generated or 0, (total or 0) - read)
    if usage.prompt_tokens_details is None and usage.completion_tokens_details is None and usage.prompt_cache_hit_tokens is None:
        return Usage(input=read, output=output, tier=label(tier))
    prompt, completion = usage.prompt_tokens_details or _NONE, usage.completion_tokens_details or _NONE
    reasoning = _count(completion.reasoning_tokens) or 0
    if reasoning > (generated or 0) or total is None:
        output = max(output, (generated or 0) + reasoning)
    cached = min(_count(prompt.cached_tokens) or _count(usage.prompt_cache_hit_tokens) or 0, read)
    return Usage(
        input=read,
        output=output,
        cached_input=cached,
        cache_write=min(_count(prompt.cache_write_tokens) or 0, read - cached),
        reasoning=min(reasoning, output),
        tier=label(tier),
    )


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
