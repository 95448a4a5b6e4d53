"""Whether a model may think, and bill it, without a word of it in its stream."""

import re

import msgspec
from msgspec import Struct

from holdfast.wire.call import Call

_HIDING = re.compile(
    r"(?:^|[/:.])(?:o\d|gpt-(?!3|4|oss)|codex|computer-use|gemini|grok|claude-(?!v?[1-4](?!\d)|instant|(?:opus|sonnet|haiku)-[34](?!\d)))",
    re.IGNORECASE,
)
"""Families whose thoughts the provider keeps back, or gives away as summaries, unasked; behind a reseller's prefix too. Claude thinks
unasked from version 5 on."""


class _Params(Struct, gc=False):
    thinking: object = None


_read_params = msgspec.json.Decoder(_Params).decode


def may_be_hidden(call: Call, model: str) -> bool:
    """Whether an answer of `model` may be billed for more than its stream shows. Only in Anthropic's format does the request tell."""
    thinking = _read_params(call.params).thinking
    if isinstance(thinking, dict):
        return thinking.get("type") != "disabled"
    return _HIDING.search(model) is not None
