"""Calls below `/tools/`: of an API that is relayed unread, or of an MCP server, whose messages are read."""

from holdfast.errors import MalformedRequest
from holdfast.gateway import refusals
from holdfast.gateway.delivery import Delivery
from holdfast.gateway.endpoints import stays_below, tool_call, unread
from holdfast.gateway.identity import Caller
from holdfast.gateway.mcp_traffic import McpTraffic
from holdfast.gateway.options import ToolOptions
from holdfast.gateway.parts import Parts
from holdfast.gateway.routing import Destination
from holdfast.gateway.tool_call import ToolCall
from holdfast.gateway.tool_traffic import PlainTraffic
from holdfast.http.message import Request, Response
from holdfast.wire.call import Refusal
from holdfast.wire.mcp import Named, Posted, header_mismatch, read_posted

_MCP_METHODS = (b"GET", b"POST", b"DELETE")
_ROUTING = (b"mcp-method", b"mcp-name")


def call_tool(parts: Parts, caller: Caller, request: Request, response: Response) -> None:
    """Answer a request whose path is below `endpoints.TOOLS`."""
    (name, path), tools = tool_call(request.path), parts.routing.tools
    asked = unread(request.method, path or b"/", "openai")
    found = tools.get(name)
    if found is None:
        Delivery(response, asked).refusal(refusals.unknown_tool(name, tools))
    elif not stays_below(path):
        Delivery(response, asked).refusal(refusals.strange_path(asked.api))
    elif request.header(b"sec-websocket-key") is not None:
        Delivery(response, asked).refusal(refusals.websocket(asked.api))
    elif found[1].mcp is None:
        traffic = PlainTraffic(request, asked.api, found[0].secrets)
        ToolCall(parts, caller, asked, request, response, found, traffic).start()
    elif path not in (b"", b"/") or request.method not in _MCP_METHODS:
        why = f"{asked.api} is not the endpoint of an MCP server: send GET, POST or DELETE to /tools/{name} itself"
        Delivery(response, asked).refusal(refusals.not_mcp(why))
    else:
        _call_mcp(parts, caller, request, response, found, found[1].mcp)


def _call_mcp(
    parts: Parts, caller: Caller, request: Request, response: Response, target: tuple[Destination, ToolOptions], named: Named
) -> None:
    posted, refusal = _read(request, target[1].name, named)
    session = (request.header(b"mcp-session-id") or b"").decode("latin-1")[:128]
    traffic = McpTraffic(
        posted,
        request.method.decode("ascii"),
        session,
        named,
        target[0].secrets,
        parts.clock,
        keep_content=caller.agent.content == "full",
    )
    call = ToolCall(parts, caller, unread(request.method, b"/", "openai"), request, response, target, traffic)
    if refusal is not None:
        call.refuse(refusal)
    else:
        call.start()


def _read(request: Request, server: str, named: Named) -> tuple[Posted | None, Refusal | None]:
    """The messages of a POST, and why they must not go on."""
    if request.method != b"POST":
        return None, None
    encoding = request.header(b"content-encoding")
    try:
        if encoding not in (None, b"identity"):
            raise MalformedRequest("compressed")
        posted = read_posted(request.body)
    except MalformedRequest as error:
        return None, refusals.malformed(error, encoding)
    if any(sum(1 for name, _ in request.headers if name == each) > 1 for each in _ROUTING):
        return posted, refusals.header_mismatch("Mcp-Method and Mcp-Name come once each")
    mismatch = header_mismatch(posted, *(request.header(each) for each in _ROUTING))
    if mismatch:
        return posted, refusals.header_mismatch(mismatch)
    denied = next((call.name for call in posted.calls if not named.permits(call.name)), None)
    return posted, None if denied is None else refusals.tool_not_allowed(denied, server)
