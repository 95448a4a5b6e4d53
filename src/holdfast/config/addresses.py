"""Base URLs, and the names that providers and agents go by."""

import ipaddress
import re
from urllib.parse import urlsplit

from msgspec import Struct

from holdfast.config.quantities import shown
from holdfast.execution.upstream import Origin

_TRANSPORTS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "keep-alive", "te", "trailer", "upgrade", "expect", "accept-encoding"}
    | {"proxy-connection", "proxy-authorization", "proxy-authenticate"}
)
"""Headers that Holdfast's own connection to the tool sets, or has no use for."""


class Address(Struct, frozen=True):
    """A base URL, taken apart. path: without a slash at its end."""

    origin: Origin
    path: str


def address(url: str, insecure: bool = False) -> Address:
    """The parts of a base URL; raises ValueError for what calls with a key must not be sent to."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("expected a URL such as https://api.example.com/v1") from None
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("a base URL has no user, no query and no fragment; a key belongs into api_key")
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[A-Za-z0-9._:-]+", host) or not re.fullmatch(r"[!-~]*", parts.path):
        raise ValueError("expected a URL such as https://api.example.com/v1")
    if parts.scheme == "http" and not insecure and not _is_loopback(host):
        raise ValueError(f"http to {host} sends keys and prompts readable over the network; use https, or set insecure: true")
    tls = parts.scheme == "https"
    return Address(Origin(host, port or (443 if tls else 80), tls), parts.path.rstrip("/"))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_name(text: str) -> str:
    """The name of a provider or an agent, as it stands in routes, headers, records and the ledger; raises ValueError for others."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise ValueError(f"a name is made of letters, digits, dots, dashes and underscores, not {shown(text)}")
    return text


def header_name(text: str) -> str:
    """A header that the configuration may set, in lower case."""
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", text):
        raise ValueError(f"not the name of a header: {shown(text)}")
    if text.lower() in _TRANSPORTS or text.lower().startswith("x-holdfast-"):
        raise ValueError("this header is Holdfast's own to set")
    return text.lower()
