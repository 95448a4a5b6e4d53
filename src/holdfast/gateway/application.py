"""The gateway's front door: which agent, which endpoint, and then one `GuardedCall` per request."""

from collections.abc import Callable

from holdfast.gateway import refusals
from holdfast.gateway.call import GuardedCall
from holdfast.gateway.delivery import Delivery
from holdfast.gateway.endpoints import TOOLS, endpoint, guarded, is_relayable, tool_call, unread
from holdfast.gateway.identity import Caller, Identities
from holdfast.gateway.jobs import PREFIX as JOBS
from holdfast.gateway.jobs import Jobs
from holdfast.gateway.parts import Parts
from holdfast.gateway.tools import call_tool
from holdfast.http.message import Request, Response
from holdfast.wire.call import Family

_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)


class Gateway:
    """An `Application` for the HTTP server.

    trouble: why calls cannot be guarded now, "" when they can. answering: how many requests are being answered, this one included; set by
    whoever serves it. max_calls: that may be in progress at once. jobs: calls that are answered later; None where there are none.
    """

    def __init__(self, parts: Parts, trouble: Callable[[], str] = lambda: "", max_calls: int = 4096, jobs: Jobs | None = None) -> None:
        self.answering: Callable[[], int] = lambda: 0
        self._jobs = jobs
        self._parts = parts
        self._identities = Identities(parts.options.agents)
        self._trouble = trouble
        self._max_calls = max_calls

    def __call__(self, request: Request, response: Response) -> None:
        known = guarded(request.method, request.path)
        if known is None:
            self._other_path(request, response)
            return
        caller = self._identities.caller(request.headers, request.peer)
        if caller is None:
            Delivery(response, known).refusal(refusals.unknown_key())
        elif self._full():
            Delivery(response, known).refusal(refusals.too_many_calls(self._max_calls))
        elif self._jobs is None or not self._jobs.takes(caller, known, request, response):
            GuardedCall(self._parts, caller, known, request, response).start()

    def relayed(self, path: bytes) -> bool:
        """Whether requests of this path go to an API that is relayed unread, with bodies of any size; see `holdfast.http.server.serve`."""
        if not path.startswith(TOOLS):
            return False
        found = self._parts.routing.tools.get(tool_call(path)[0])
        return found is not None and found[1].mcp is None

    def kills_changed(self) -> None:
        """Carry out for the calls in progress what the kill switch says now. Those that begin later ask by themselves."""
        for call in list(self._parts.in_progress):
            call.kills_changed()

    def _full(self) -> bool:
        """Calls whose client left count as long as they wait: for the ledger, say."""
        return self.answering() > self._max_calls or self._parts.gate.waiting >= self._max_calls

    def _other_path(self, request: Request, response: Response) -> None:
        page = _own_page(request, self._trouble)
        if page is not None:
            response.send(page[0], _TEXT, page[1])
            return
        family: Family = "openai" if request.header(b"anthropic-version") is None else "anthropic"
        models = endpoint(request.method, request.path, family)
        caller = self._identities.caller(request.headers, request.peer)
        if caller is None:
            Delivery(response, models or unread(request.method, request.path, family)).refusal(refusals.unknown_key())
        elif self._full():
            Delivery(response, models or unread(request.method, request.path, family)).refusal(refusals.too_many_calls(self._max_calls))
        elif models is not None:
            GuardedCall(self._parts, caller, models, request, response).start()
        elif request.path.startswith(TOOLS):
            call_tool(self._parts, caller, request, response)
        elif self._jobs is not None and request.path.startswith(JOBS):
            self._jobs.page(caller, request, response)
        else:
            self._pass_through(family, caller, request, response)

    def _pass_through(self, family: Family, caller: Caller, request: Request, response: Response) -> None:
        """Other paths of a provider's API: only those that the configuration lets through."""
        asked = unread(request.method, request.path, family)
        allowed = self._parts.routing.passthrough(request.path.decode("latin-1"), family) if is_relayable(request.path) else None
        if request.header(b"sec-websocket-key") is not None:
            Delivery(response, asked).refusal(refusals.websocket(asked.api))
        elif allowed is None:
            Delivery(response, asked).refusal(refusals.unknown_path(asked.api))
        else:
            GuardedCall(self._parts, caller, asked, request, response).start_passthrough(*allowed)


def _own_page(request: Request, trouble: Callable[[], str]) -> tuple[int, bytes] | None:
    """What the gateway answers by itself: health, readiness, and the look at `/` with which some agents begin."""
    if request.method not in (b"GET", b"HEAD"):
        return None
    if request.path == b"/":
        return 200, b"Holdfast gateway\n"
    if request.path == b"/healthz":
        return 200, b"ok\n"
    if request.path == b"/readyz":
        why = trouble()
        return (503, f"not ready: {why}\n".encode()) if why else (200, b"ready\n")
    return None
