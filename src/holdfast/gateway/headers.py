"""Which headers pass: the agent's to the provider less what is Holdfast's own, the provider's to the agent less what the transport sets."""

from holdfast.execution.upstream import Headers
from holdfast.money import Nano, to_usd
from holdfast.wire.call import Family

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer"}
    | {b"transfer-encoding", b"upgrade"}
)

_NOT_UPSTREAM = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"accept-encoding"}
"""Set anew for the upstream. Answers are asked for without a content coding: usage must be read, and streams gain nothing from one."""

_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"cookie"})
"""The virtual key must not reach a provider, whatever header it came in."""

_NOT_DOWNSTREAM = _HOP_BY_HOP | {b"content-length", b"content-encoding"}

_OF_ONE_PROVIDER = (b"anthropic-", b"openai-", b"x-stainless-", b"idempotency-key")

_MOST_RETRIES = 100

_OURS = b"x-holdfast-"
_IDENTITY = (b"accept-encoding", b"identity")
_GZIP = (b"accept-encoding", b"gzip")


def upstream_headers(headers: Headers, credentials: Headers, *, gzip: bool = False) -> list[tuple[bytes, bytes]]:
    """What the provider gets of an agent's request; `gzip`: the answer may be compressed."""
    passed = [pair for pair in headers if pair[0] not in _NOT_UPSTREAM and pair[0] not in _CREDENTIALS and not pair[0].startswith(_OURS)]
    passed.append(_GZIP if gzip else _IDENTITY)
    passed.extend(credentials)
    return passed


def translated_headers(headers: Headers, family: Family) -> list[tuple[bytes, bytes]]:
    """What of an agent's headers goes along with a request that was translated into a format of `family`: none that speak of the
    agent's own provider or SDK."""
    passed = [pair for pair in headers if not pair[0].startswith(_OF_ONE_PROVIDER) and pair[0] != b"content-type"]
    passed.append((b"content-type", b"application/json"))
    if family == "anthropic":
        passed.append((b"anthropic-version", b"2023-06-01"))
    return passed


def downstream_headers(headers: Headers, *, encoded: bool = False) -> list[tuple[bytes, bytes]]:
    """What the agent gets of a provider's answer; `encoded`: the body passes with its content coding still on."""
    return [
        pair
        for pair in headers
        if (pair[0] not in _NOT_DOWNSTREAM or (encoded and pair[0] == b"content-encoding")) and not pair[0].startswith(_OURS)
    ]


def own_headers(
    served_by: str, attempts: int, decision: str, interaction: str, max_output: int | None, cost: Nano | None
) -> list[tuple[bytes, bytes]]:
    """In which Holdfast says what it did. "" and None leave their header out."""
    own = [(b"x-holdfast-served-by", _value(served_by)), (b"x-holdfast-attempts", b"%d" % attempts)]
    if decision:
        own.append((b"x-holdfast-decision", decision.encode("ascii")))
    if interaction:
        own.append((b"x-holdfast-interaction", interaction.encode("ascii")))
    if max_output is not None:
        own.append((b"x-holdfast-clamped-max-tokens", b"%d" % max_output))
    if cost is not None:
        own.append((b"x-holdfast-cost-usd", to_usd(cost).encode("ascii")))
    return own


def retries_by_sdk(headers: Headers) -> int:
    """How often the agent's own SDK says to have sent this call already."""
    for name, value in headers:
        if name == b"x-stainless-retry-count":
            return min(int(value), _MOST_RETRIES) if value.isdigit() and len(value) < 4 else 0
    return 0


def _value(text: str) -> bytes:
    """Model names are the agents': nothing in them may end a header."""
    encoded = text.encode("ascii", "replace")
    return encoded if text.isprintable() else bytes(byte if 32 < byte < 127 else 63 for byte in encoded)
