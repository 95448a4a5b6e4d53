"""The simulated provider itself: routes requests, checks the key, decides which calls fail, keeps account."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from random import Random
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from holdfast.clock import SECOND, Clock
from holdfast.errors import MalformedRequest
from holdfast.execution.upstream import Headers
from holdfast.http.message import Request, Response
from holdfast.system_clock import SystemClock
from holdfast.testing.simulated_provider import chat, embeddings, messages, models, responses
from holdfast.testing.simulated_provider.answer import Answer, Reply, Streamed, limited, stopped
from holdfast.testing.simulated_provider.author import write
from holdfast.testing.simulated_provider.behaviour import Behaviour, behaviour
from holdfast.testing.simulated_provider.control import PATHS, Control
from holdfast.testing.simulated_provider.delivery import StreamDelivery, WholeDelivery
from holdfast.testing.simulated_provider.errors import JSON_HEADERS, error_body, error_headers, too_long
from holdfast.testing.simulated_provider.faults import Faults
from holdfast.testing.simulated_provider.prompt import Prompt
from holdfast.testing.simulated_provider.rate import RequestRate
from holdfast.testing.simulated_provider.requests import Requests
from holdfast.testing.simulated_provider.responses_stream import streamed as responses_streamed
from holdfast.testing.simulated_provider.script import Scripts
from holdfast.testing.simulated_provider.stats import OpenCall, Stats
from holdfast.wire.call import Family

_KEPT_RESPONSES = 10_000
_UNREADABLE = "(unreadable request)"
_KEY_REFUSED: dict[Family, str] = {"openai": "Incorrect API key provided.", "anthropic": "invalid x-api-key"}


class _Endpoint(Struct, frozen=True):
    """One path. generates: a model writes the answer. billed: its input costs something. history: the field that is the prompt."""

    family: Family
    read: Callable[[bytes], Prompt]
    whole: Callable[[Reply], bytes]
    streamed: Callable[[Reply], Streamed] | None = None
    generates: bool = True
    billed: bool = True
    history: str = "messages"


_ENDPOINTS = {
    b"/v1/chat/completions": _Endpoint("openai", chat.read, chat.whole, chat.streamed),
    b"/v1/responses": _Endpoint("openai", responses.read, responses.whole, responses_streamed, history="input"),
    b"/v1/embeddings": _Endpoint("openai", embeddings.read, embeddings.whole, generates=False, history="input"),
    b"/v1/messages": _Endpoint("anthropic", messages.read, messages.whole, messages.streamed),
    b"/v1/messages/count_tokens": _Endpoint("anthropic", messages.read_count, messages.whole_count, generates=False, billed=False),
}


class _Past(Struct, frozen=True):
    """What the Responses API keeps of an earlier response."""

    turns: int
    tokens: int
    has_tool_result: bool


class SimulatedProvider:
    """A model provider that fails on demand; `application` is what an HTTP server serves.

    clock: paces streams. seed: of the calls that `sim-flaky-…` lets fail. scripts: what real agents are answered. key: the only one
    accepted, "" accepts all. stats: what was served and billed so far. faults: what is switched on now. requests: the latest ones.
    """

    def __init__(self, *, clock: Clock | None = None, seed: int = 0, scripts: Scripts | None = None, key: str = "") -> None:
        self.stats = Stats()
        self._clock: Clock = clock or SystemClock()
        self.faults = Faults()
        self.requests = Requests(self._clock)
        self._control = Control(self.faults, self.requests)
        self._random = Random(seed)  # noqa: S311 - which calls fail has to be repeatable, not secret
        self._scripts = scripts or Scripts()
        self._key = key.encode()
        self._replies = 0
        self._rates: dict[tuple[str, int], RequestRate] = {}
        self._failed: Counter[tuple[str, str]] = Counter()
        self._past: OrderedDict[str, _Past] = OrderedDict()

    def application(self, request: Request, response: Response) -> None:
        """Answer one request."""
        path = request.path
        endpoint = _ENDPOINTS.get(path)
        family = endpoint.family if endpoint else _family(request)
        if path in {b"/", b"/stats"}:
            response.send(200, JSON_HEADERS, msgspec.json.encode(self.stats) if path == b"/stats" else b"{}")
        elif path in PATHS:
            self._control.answer(request, response)
        elif not self._admits(request):
            _refuse(response, family, 401, _KEY_REFUSED[family])
        elif endpoint and request.method == b"POST":
            self._answer(endpoint, request, response)
        elif request.method == b"GET" and (path == b"/v1/models" or path.startswith(b"/v1/models/")):
            _list_models(family, path, response)
        else:
            _refuse(response, family, 404, f"Unknown request URL: {request.method.decode()} {path.decode('latin-1')}.")

    def _admits(self, request: Request) -> bool:
        if not self._key:
            return True
        bearer = request.header(b"authorization") or b""
        return self._key in {request.header(b"x-api-key"), bearer.removeprefix(b"Bearer ")}

    def _answer(self, endpoint: _Endpoint, request: Request, response: Response) -> None:
        try:
            prompt = self._with_past(endpoint.read(request.body))
        except MalformedRequest as error:
            self._begin(request, _UNREADABLE).end("failed")
            _refuse(response, endpoint.family, 400, str(error), error.param)
            return
        manner = self.faults.behaviour(prompt.model)
        call = self._begin(request, prompt.model)
        headers: Headers = ()
        if manner.per_minute:
            rate = self._rates.setdefault((prompt.model, manner.per_minute), RequestRate(manner.per_minute))
            wait_ns = rate.take(self._clock.monotonic_ns())
            headers = rate.headers(endpoint.family, self._clock.monotonic_ns(), self._clock.wall_ns())
            if wait_ns:
                call.end("failed")
                _refuse_rate(response, endpoint.family, wait_ns, headers)
                return
        if status := self._failure(manner, prompt):
            call.end("failed")
            _refuse(response, endpoint.family, status, f"The simulated provider answers {prompt.model} with {status}.")
            return
        if manner.context is not None and prompt.input_tokens > manner.context and endpoint.billed:
            call.end("failed")
            response.send(400, JSON_HEADERS, too_long(endpoint.family, prompt.input_tokens, manner.context, endpoint.history))
            return
        reply = self._reply(endpoint, prompt, manner)
        if prompt.stream and endpoint.streamed:
            StreamDelivery(response, self._clock, self.stats, call, reply, manner, headers).begin(endpoint.streamed)
        else:
            WholeDelivery(response, self._clock, self.stats, call, reply, manner, headers).begin(endpoint.whole, endpoint.family)

    def _begin(self, request: Request, model: str) -> OpenCall:
        call = self.stats.begin(model)
        call.ended = self.requests.arrived(request, model)
        return call

    def _with_past(self, prompt: Prompt) -> Prompt:
        """The prompt with the history that its `previous_response_id` stands for, which is billed like any other."""
        if not prompt.previous:
            return prompt
        past = self._past.get(prompt.previous)
        if past is None:
            raise MalformedRequest(f"Previous response with id '{prompt.previous}' not found.", "previous_response_id")
        return msgspec.structs.replace(
            prompt,
            assistant_turns=prompt.assistant_turns + past.turns,
            input_tokens=prompt.input_tokens + past.tokens,
            has_tool_result=prompt.has_tool_result or past.has_tool_result,
        )

    def _failure(self, manner: Behaviour, prompt: Prompt) -> int:
        """The status with which this call fails, 0 when it does not."""
        if manner.flaky_percent:
            return 500 if self._random.random() * 100 < manner.flaky_percent else 0
        if manner.fail_first:
            key = (prompt.model, prompt.first_text)
            self._failed[key] += 1
            return 500 if self._failed[key] <= manner.fail_first else 0
        return manner.status

    def _reply(self, endpoint: _Endpoint, prompt: Prompt, manner: Behaviour) -> Reply:
        self._replies += 1
        answers: tuple[Answer, ...] = ()
        if endpoint.generates:
            answer = stopped(self._scripts.answer(prompt) or write(prompt, manner), prompt.stops)
            answers = (limited(answer, prompt.max_output),) * prompt.choices
        created_s = self._clock.wall_ns() // SECOND
        cached = min(manner.cached, prompt.input_tokens)
        reply = Reply(
            prompt=prompt, answers=answers, number=self._replies, created_s=created_s, billed=endpoint.billed, cached_tokens=cached
        )
        if endpoint.whole is responses.whole:
            self._keep(reply)
        return reply

    def _keep(self, reply: Reply) -> None:
        prompt = reply.prompt
        past = _Past(prompt.assistant_turns + 1, prompt.input_tokens + reply.output_tokens, prompt.has_tool_result)
        self._past[responses.identifier(reply)] = past
        if len(self._past) > _KEPT_RESPONSES:
            self._past.popitem(last=False)


def _family(request: Request) -> Family:
    return "anthropic" if request.header(b"anthropic-version") else "openai"


def _refuse(response: Response, family: Family, status: int, message: str, param: str | None = None) -> None:
    response.send(status, error_headers(status), error_body(family, status, message, param))


def _refuse_rate(response: Response, family: Family, wait_ns: int, headers: Headers) -> None:
    seconds = -(-wait_ns // SECOND)
    message = f"Rate limit reached for requests. Please try again in {seconds}s."
    response.send(429, (*error_headers(429, seconds), *headers), error_body(family, 429, message))


def _list_models(family: Family, path: bytes, response: Response) -> None:
    name = unquote(path.removeprefix(b"/v1/models").removeprefix(b"/").decode("latin-1"))
    if not name:
        response.send(200, JSON_HEADERS, models.listed(family))
    elif status := behaviour(name).status:
        _refuse(response, family, status, f"The simulated provider answers {name} with {status}.")
    else:
        response.send(200, JSON_HEADERS, models.one(family, name))
