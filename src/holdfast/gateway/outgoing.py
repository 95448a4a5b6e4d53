"""The request that goes to a provider in place of the agent's."""

from collections.abc import Callable

from holdfast.execution.attempt import AttemptOptions
from holdfast.execution.upstream import UpstreamRequest
from holdfast.gateway.headers import upstream_headers
from holdfast.gateway.options import Timeouts
from holdfast.gateway.routing import Destination
from holdfast.http.message import Request


def upstream_request(
    request: Request, destination: Destination, body: bytes, timeouts: Timeouts, withdrawn: Callable[[], bool]
) -> UpstreamRequest:
    """The request to `destination`: its path behind the provider's prefix, the provider's key in place of the agent's."""
    path = request.path[3:] if request.path.startswith(b"/v1/") else request.path
    return UpstreamRequest(
        origin=destination.provider.origin,
        method=request.method,
        target=destination.prefix + path + (b"?" + request.query if request.query else b""),
        headers=upstream_headers(request.headers, destination.credentials),
        body=body,
        connect_timeout_ns=timeouts.connect_ns,
        withdrawn=withdrawn,
    )


def attempt_options(timeouts: Timeouts, total_at_ns: int, *, stream: bool) -> AttemptOptions:
    return AttemptOptions(first_token_ns=timeouts.first_token_ns if stream else None, idle_ns=timeouts.idle_ns, total_at_ns=total_at_ns)
