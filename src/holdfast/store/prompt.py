"""A decision's whole input, put together again from the new part that each decision of its conversation recorded."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import msgspec
from msgspec import Raw, Struct

from holdfast.events import Context, Decision


class FullInput(Struct, frozen=True, kw_only=True):
    """What the model was asked, as raw JSON. missing: what of it is not on record (any more), in words; empty when it is whole."""

    messages: tuple[Raw, ...]
    system: Raw | None = None
    tools: Raw | None = None
    params: Raw = Raw(b"{}")
    missing: tuple[str, ...] = ()


def rebuild(chain: Sequence[Decision], contexts: Mapping[str, Context]) -> FullInput:
    """The input of a decision, given it and its parents as far as they are on record, youngest first, and contexts by digest."""
    decision = chain[0]
    messages: list[Raw | str] = []  # a string: the id of the decision that should have recorded the message
    for link in reversed(chain):
        lacking = link.inherited_messages - len(messages)
        messages += [link.parent] * lacking
        messages = [*messages[: link.inherited_messages], *_messages(link)]
    parts = {context.role: context.content for digest in decision.context if (context := contexts.get(digest)) is not None}
    gaps = [f"system prompt or tools with digest {digest}" for digest in decision.context if digest not in contexts]
    return FullInput(
        messages=tuple(message for message in messages if not isinstance(message, str)),
        system=parts.get("system"),
        tools=parts.get("tools"),
        params=decision.input_params,
        missing=(*_gaps(messages), *gaps),
    )


def _messages(decision: Decision) -> list[Raw | str]:
    try:
        return [*msgspec.json.decode(decision.input_messages, type=list[Raw])]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return [decision.input_messages]  # not a list: shown as it is


def _source(message: Raw | str) -> str | None:
    return message if isinstance(message, str) else None


def _gaps(messages: Sequence[Raw | str]) -> list[str]:
    gaps, at = [], 1
    for source, run in groupby(messages, key=_source):
        count = len(list(run))
        if source is not None:
            span = f"message {at}" if count == 1 else f"messages {at} to {at + count - 1}"
            gaps.append(f"{span}, recorded with decision {source}")
        at += count
    return gaps
