"""Takes the thoughts of other providers' models out of a request before it goes to a target of the caller's own format.

A fallback's thoughts reach the caller as its format has them, marked by `ids.FOREIGN`, and the caller sends them back with the next turn.
Anthropic would refuse a signature, and OpenAI an item, that it did not make.
"""

import msgspec
from msgspec import Raw, Struct

from holdfast.wire.request_body import NULL, Fields, with_changes
from holdfast.wire.translation.ids import FOREIGN


class _Mark(Struct, gc=False):
    type: str = ""
    id: object = None
    signature: object = None


class _Message(Struct, gc=False):
    content: Raw = NULL


_read_list = msgspec.json.Decoder(list[Raw]).decode
_read_mark = msgspec.json.Decoder(_Mark).decode
_read_message = msgspec.json.Decoder(_Message).decode
_read_fields = msgspec.json.Decoder(dict[str, Raw]).decode

_SIGNED = f'"{FOREIGN}"'.encode()
_ITEM = f'"rs_{FOREIGN}'.encode()
_RARE = FOREIGN[-1].encode()
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def without_foreign_thoughts(name: str, body: bytes) -> bytes:
    """The request body of the format of this name without them; the very same object where there are none. Raises MalformedRequest."""
    if _RARE not in body:
        return body
    if name == "anthropic-messages" and _SIGNED in body:
        return with_changes(body, _messages)
    if name == "openai-responses" and _ITEM in body:
        return with_changes(body, _input)
    return body


def _input(fields: Fields) -> dict[str, Raw]:
    items = _list(fields.get("input", NULL))
    kept = [item for item in items if not _is_foreign(item)]
    return {"input": _raw(kept)} if len(kept) < len(items) else {}


def _messages(fields: Fields) -> dict[str, Raw]:
    messages = _list(fields.get("messages", NULL))
    kept = [_cleaned(message) for message in messages]
    changed = any(new is not old for new, old in zip(kept, messages, strict=True))
    return {"messages": _raw([message for message in kept if message is not None])} if changed else {}


def _cleaned(message: Raw) -> Raw | None:
    """None for a message that was nothing but such thoughts."""
    if _SIGNED not in bytes(message):
        return message
    try:
        blocks = _list(_read_message(message).content)
        kept = [block for block in blocks if not _is_foreign(block)]
        if len(kept) == len(blocks):
            return message
        return _raw(_read_fields(message) | {"content": _raw(kept)}) if kept else None
    except _UNREADABLE:
        return message


def _is_foreign(raw: Raw) -> bool:
    try:
        mark = _read_mark(raw)
    except _UNREADABLE:
        return False
    if mark.type == "reasoning":
        return isinstance(mark.id, str) and mark.id.startswith(f"rs_{FOREIGN}")
    return mark.type == "thinking" and mark.signature == FOREIGN


def _list(raw: Raw) -> list[Raw]:
    try:
        return _read_list(raw)
    except _UNREADABLE:
        return []


def _raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))
