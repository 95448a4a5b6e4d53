"""The request that goes to a tool in place of the agent's, and the way back for what its answer points at."""

import re
from collections.abc import Callable

from holdfast.execution.upstream import Headers, UpstreamRequest
from holdfast.gateway.endpoints import TOOLS, tool_call
from holdfast.gateway.headers import upstream_headers
from holdfast.gateway.masking import masked_headers
from holdfast.gateway.routing import Destination
from holdfast.gateway.tool_traffic import Traffic
from holdfast.http.message import Request

_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


def tool_request(
    request: Request, destination: Destination, traffic: Traffic, connect_ns: int, withdrawn: Callable[[], bool], *, once: bool
) -> UpstreamRequest:
    """Path and query behind the tool's prefix, byte for byte, the tool's own headers in place of the agent's of the same name.

    once: its second time might do a thing twice.
    """
    path = tool_call(request.path)[1]
    if not (destination.prefix or path):
        path = b"/"
    own = {name for name, _ in destination.credentials}
    headers = traffic.headers([pair for pair in request.headers if pair[0] not in own])
    return UpstreamRequest(
        origin=destination.provider.origin,
        method=request.method,
        target=destination.prefix + path + (b"?" + request.query if request.query else b""),
        headers=upstream_headers(headers, destination.credentials, gzip=_takes_gzip(headers)),
        body=traffic.body,
        connect_timeout_ns=connect_ns,
        upload=traffic.upload,
        once=once,
        withdrawn=withdrawn,
    )


def returned_headers(headers: Headers, destination: Destination) -> Headers:
    """What the agent gets of a tool's headers: without secrets, and with redirects within the tool's API leading back through here.

    Others are left as they are: whoever follows them goes without the tool's secrets.
    """
    if any(name == b"location" for name, _ in headers):
        headers = [(name, _location(value, destination) if name == b"location" else value) for name, value in headers]
    return masked_headers(headers, destination.secrets)


def content_length(headers: Headers) -> int | None:
    """The length of a body that is passed on as it is."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 19 else None
    return None


def _location(value: bytes, destination: Destination) -> bytes:
    absolute = _ABSOLUTE.match(value)
    if absolute is not None:
        scheme, authority, rest = absolute.groups()
        origin = destination.provider.origin
        known = (origin.authority, f"{origin.authority}:{origin.port}")
        if (scheme.lower() == b"https") is not origin.tls or authority.lower().decode("latin-1") not in known:
            return value
        rest = rest if rest.startswith(b"/") else b"/" + rest
    elif value.startswith(b"/") and not value.startswith(b"//"):
        rest = value
    else:
        return value
    prefix = destination.prefix
    if not rest.startswith(prefix) or rest[len(prefix) : len(prefix) + 1] not in (b"/", b"?", b"#", b""):
        return value
    return TOOLS + destination.tool.encode("ascii") + rest[len(prefix) :]


def _takes_gzip(headers: Headers) -> bool:
    """A coding that is passed on must be one that errors can be read in."""
    for name, value in headers:
        if name == b"accept-encoding":
            for coding in value.lower().split(b","):
                name, _, quality = coding.partition(b";")
                if name.strip() == b"gzip":
                    return quality.replace(b" ", b"").rstrip(b"0.") != b"q="
    return False
