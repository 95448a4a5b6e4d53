"""Which paths the gateway serves, and in which wire format each speaks."""

from urllib.parse import unquote_to_bytes

from msgspec import Struct

from holdfast.wire import anthropic_count_tokens, anthropic_messages, openai_chat, openai_embeddings, openai_responses
from holdfast.wire.call import Family, WireFormat


class Endpoint(Struct, frozen=True):
    """api: method and path, for people. format: how bodies are read; None: relayed unread. free: the provider bills nothing for it.
    path: behind a provider's prefix, of what may be translated."""

    api: str
    family: Family
    format: WireFormat | None
    free: bool = False
    path: bytes = b""


_EXACT = {
    (b"POST", b"/v1/chat/completions"): Endpoint("POST /v1/chat/completions", "openai", openai_chat.FORMAT, path=b"/chat/completions"),
    (b"POST", b"/v1/responses"): Endpoint("POST /v1/responses", "openai", openai_responses.FORMAT, path=b"/responses"),
    (b"POST", b"/v1/embeddings"): Endpoint("POST /v1/embeddings", "openai", openai_embeddings.FORMAT),
    (b"POST", b"/v1/messages"): Endpoint("POST /v1/messages", "anthropic", anthropic_messages.FORMAT, path=b"/messages"),
    (b"POST", b"/v1/messages/count_tokens"): Endpoint(
        "POST /v1/messages/count_tokens", "anthropic", anthropic_count_tokens.FORMAT, free=True
    ),
}

GENERATING = {found.format.name: found for found in _EXACT.values() if found.format is not None and found.path}
"""Endpoints that can be translated, by the name of their format."""

_FORMATS_FOR_ERRORS: dict[Family, WireFormat] = {"openai": openai_chat.FORMAT, "anthropic": anthropic_messages.FORMAT}


def guarded(method: bytes, path: bytes) -> Endpoint | None:
    """The endpoint whose requests and answers are read, or None for any other path.

    Some clients leave `/v1` out (the Vercel AI SDK appends `/messages` to its base URL); the upstream's own prefix stands in for it anyway.
    """
    return _EXACT.get((method, path)) or _EXACT.get((method, b"/v1" + path))


def endpoint(method: bytes, path: bytes, family: Family) -> Endpoint | None:
    """The guarded endpoint of a request, the provider's list of models, or None for any other path of its API."""
    found = guarded(method, path)
    if found is None and method == b"GET" and (path == b"/v1/models" or (path.startswith(b"/v1/models/") and _is_plain(path))):
        return unread(method, path, family, free=True)
    return found


def unread(method: bytes, path: bytes, family: Family, *, free: bool = False) -> Endpoint:
    """An endpoint whose requests and answers pass without being read."""
    return Endpoint(f"{method.decode('latin-1')} {path.decode('latin-1')}", family, None, free)


def is_relayable(path: bytes) -> bool:
    """Whether a path may be relayed unread at all: written plainly, and no guarded path in disguise.

    What the upstream would fold into another path (`..`, `%63hat`, `//`, a trailing slash, capitals) would be a route around the guard.
    """
    if b"%" in path or not _is_plain(path):
        return False
    folded = path.lower()
    # An upstream gets a path without `/v1` behind its own prefix, which may well end in one.
    return not any(folded.endswith(guarded) or folded == guarded.removeprefix(b"/v1") for _, guarded in _EXACT)


TOOLS = b"/tools/"
"""What the paths of calls through tools begin with."""


def tool_call(path: bytes) -> tuple[str, bytes]:
    """The tool that a path under `TOOLS` names, and the path of its API that is asked for, "" or with a slash in front."""
    name, slash, rest = path[len(TOOLS) :].partition(b"/")
    return name.decode("latin-1"), slash + rest


def stays_below(path: bytes) -> bool:
    """Whether a path, as `tool_call` gives it, leads to nothing outside the prefix that it is put behind, however a server folds it.

    A slash at its end is its own, and so are encoded ones within.
    """
    inner = path.removesuffix(b"/")
    return not inner or (_is_plain(inner) and all(31 < byte != 127 for byte in unquote_to_bytes(inner)))


def _is_plain(path: bytes) -> bool:
    """Whether nothing in a path can be folded away, not even after decoding: names of models may hold an encoded slash."""
    decoded = unquote_to_bytes(path)
    return not any(mark in decoded for mark in (b"%", b"\\", b";")) and not any(
        part in (b"", b".", b"..") for part in decoded[1:].split(b"/")
    )


def error_format(family: Family) -> WireFormat:
    """The format whose error bodies the SDKs of a family read."""
    return _FORMATS_FOR_ERRORS[family]
