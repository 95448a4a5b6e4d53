"""The request that goes to a provider in place of the agent's."""

from collections.abc import Callable

from holdfast.execution.attempt import AttemptOptions
from holdfast.execution.upstream import UpstreamRequest
from holdfast.gateway.endpoints import tool_call
from holdfast.gateway.headers import upstream_headers
from holdfast.gateway.options import Timeouts
from holdfast.gateway.routing import Destination
from holdfast.http.message import Request


def upstream_request(
    request: Request, destination: Destination, body: bytes, timeouts: Timeouts, withdrawn: Callable[[], bool]
) -> UpstreamRequest:
    """The request to `destination`: its path behind the provider's or tool's prefix, the credentials there in place of the agent's."""
    path, headers = request.path, request.headers
    if destination.tool:
        path = tool_call(path)[1]
        own = {name for name, _ in destination.credentials}
        headers = [pair for pair in headers if pair[0] not in own]
        if not (destination.prefix or path):
            path = b"/"
    elif path.startswith(b"/v1/"):
        path = path[3:]
    return UpstreamRequest(
        origin=destination.provider.origin,
        method=request.method,
        target=destination.prefix + path + (b"?" + request.query if request.query else b""),
        headers=upstream_headers(headers, destination.credentials),
        body=body,
        connect_timeout_ns=timeouts.connect_ns,
        withdrawn=withdrawn,
    )


def attempt_options(timeouts: Timeouts, total_at_ns: int, *, stream: bool) -> AttemptOptions:
    return AttemptOptions(first_token_ns=timeouts.first_token_ns if stream else None, idle_ns=timeouts.idle_ns, total_at_ns=total_at_ns)
