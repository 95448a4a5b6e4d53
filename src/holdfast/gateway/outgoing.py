"""The request that goes to a provider in place of the agent's."""

from collections.abc import Callable

from holdfast.execution.attempt import AttemptOptions
from holdfast.execution.upstream import Headers, UpstreamRequest
from holdfast.gateway.asked import Asked
from holdfast.gateway.gate import Entry
from holdfast.gateway.headers import translated_headers, upstream_headers
from holdfast.http.message import Request


def upstream_request(request: Request, asked: Asked, body: bytes, withdrawn: Callable[[], bool], idempotency_key: str) -> UpstreamRequest:
    """The request to a target: its path behind the provider's prefix, the credentials there in place of the agent's.

    idempotency_key: for providers that know such keys, where the agent has set none itself.
    """
    destination, query = asked.destination, request.query
    path: bytes = request.path
    headers: Headers = request.headers
    if asked.translation is not None:
        path, query, headers = asked.entry.endpoint.path, b"", translated_headers(headers, destination.family)
    elif path.startswith(b"/v1/"):
        path = path[3:]
    passed = upstream_headers(headers, destination.credentials)
    name = destination.provider.idempotency_header.encode("ascii")
    if name and not any(pair[0] == name for pair in passed):
        passed.append((name, idempotency_key.encode("ascii")))
    return UpstreamRequest(
        origin=destination.provider.origin,
        method=request.method,
        target=destination.prefix + path + (b"?" + query if query else b""),
        headers=passed,
        body=body,
        connect_timeout_ns=asked.entry.agent.timeouts.connect_ns,
        withdrawn=withdrawn,
    )


def attempt_options(entry: Entry, now_ns: int, *, last: bool) -> AttemptOptions:
    """last: no other target is left, so that this one may take all the time there is."""
    timeouts, stream, answer_ns = entry.agent.timeouts, entry.call.stream, entry.agent.timeouts.answer_ns
    if entry.endpoint.format is None:  # how long what passes unread may take is not known here
        answer_ns = None
    elif answer_ns is None and not last:
        answer_ns = (entry.total_at_ns - now_ns) // 2
    return AttemptOptions(
        first_token_ns=timeouts.first_token_ns if stream else None,
        idle_ns=timeouts.idle_ns,
        total_at_ns=entry.total_at_ns,
        min_tokens_per_s=entry.agent.fallback.min_tokens_per_s if stream else 0,
        answer_ns=answer_ns,
    )
