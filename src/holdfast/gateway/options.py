"""What the gateway needs to know: agents, routes, time-outs. Secrets arrive resolved; nothing here is read from files."""

from typing import Literal

from msgspec import Struct

from holdfast.clock import SECOND
from holdfast.execution.upstream import Origin
from holdfast.policy.circuit_breaker import BreakerOptions
from holdfast.policy.limit import Limit
from holdfast.policy.loop_guard import LoopOptions
from holdfast.policy.rate import Rate
from holdfast.policy.retry import RetryOptions
from holdfast.policy.waiting_line import QueueOptions
from holdfast.pricing import PriceList, matches
from holdfast.providers import ProviderKind
from holdfast.wire.mcp import Named

UNRELEASED = "unreleased"
"""The release of an agent for which neither the operator nor the agent itself names one."""


class Timeouts(Struct, frozen=True, kw_only=True):
    """In nanoseconds. first_token: of a streamed call, from the beginning of an attempt to its first real token. answer: of any other, from
    the beginning of an attempt to its end; None: half of what is left of `total` where another target is left, else all of it. idle:
    between two pieces of a stream. total: everything, retries and fallbacks too."""

    connect_ns: int = 5 * SECOND
    first_token_ns: int = 60 * SECOND
    answer_ns: int | None = None
    idle_ns: int = 60 * SECOND
    total_ns: int = 600 * SECOND


class Passthrough(Struct, frozen=True, kw_only=True):
    """A path of a provider's API that is relayed unread. path: with `*` as wildcard. price: nano-dollars per call, None: not known."""

    path: str
    price: int | None = None


class HostedTool(Struct, frozen=True, kw_only=True):
    """The most that a tool which the provider runs may add to one call. usd: nano-dollars, for itself and for all that is read through it.
    tokens: read through it, None: not known."""

    usd: int
    tokens: int | None = None


class ProviderOptions(Struct, frozen=True, kw_only=True):
    """A configured provider.

    prefix: what stands in place of the `/v1` of an agent's request: the path of the base URL (`/v1` of `https://api.openai.com/v1`);
    also `/v1` for `https://api.anthropic.com`, whose base URL is written without. key: "" sends none. key_error: why there is no key
    although the provider needs one, and the way out; its calls are refused with it. "" otherwise. hosted_tools: types of tools that the
    provider runs itself, with `*` as wildcard; the first that matches counts. formats: wire formats that it is spoken to in, in order of
    preference, calls in others being translated; empty: all of its families'. idempotency_header: in lower case, by which it tells two
    requests of one call from two calls; "": it knows none. breaker: when calls to it, to one of its models or with its key are kept away,
    None: never.
    """

    name: str
    kind: ProviderKind
    origin: Origin
    prefix: str
    key: str
    key_error: str = ""
    prices: PriceList
    passthrough: tuple[Passthrough, ...] = ()
    hosted_tools: tuple[tuple[str, HostedTool], ...] = ()
    rates: tuple[Rate, ...] = ()
    formats: tuple[str, ...] = ()
    idempotency_header: str = ""
    breaker: BreakerOptions | None = BreakerOptions()

    def hosted_tool(self, kind: str) -> HostedTool | None:
        """What a tool of this type may add to a call, None when nobody said."""
        return next((price for pattern, price in self.hosted_tools if matches(pattern, kind)), None)


class ToolOptions(Struct, frozen=True, kw_only=True):
    """An API that agents call through `/tools/NAME`.

    prefix: of its paths. headers: that Holdfast sets, in place of the agent's of the same name. secrets: what of them nobody may see.
    error: why a secret is missing, and the way out; its calls are refused with it. "" otherwise. price: nano-dollars per call, None: not
    known. timeout_ns: of a whole call; connect_ns, idle_ns: see `Timeouts`; None: the agent's. first_byte_ns: from the end of a request to
    the beginning of its answer, None: what is left of the whole. retries: of what may be done twice. repeatable: methods that may be,
    beside those that change nothing. mcp: it is an MCP server, and these of its tools may be called; None: it is not. breaker: when
    calls are kept away, None: never.
    """

    name: str
    origin: Origin
    prefix: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    error: str = ""
    price: int | None = None
    timeout_ns: int | None = None
    breaker: BreakerOptions | None = BreakerOptions()
    connect_ns: int | None = None
    first_byte_ns: int | None = None
    idle_ns: int | None = None
    retries: RetryOptions = RetryOptions()
    repeatable: frozenset[bytes] = frozenset()
    mcp: Named | None = None


class Target(Struct, frozen=True):
    """Provider and model; model "*" is the one that the agent asked for."""

    provider: str
    model: str


class Reply(Struct, frozen=True):
    """The last resort: an answer of the gateway's own."""

    text: str


class FallbackOptions(Struct, frozen=True, kw_only=True):
    """When another target takes over, beyond errors and time-outs.

    content_filter: also when the model or its provider refuses for the content's sake. continue_streams: also after the first token of a
    stream, the fallback being told what was already said. min_tokens_per_s: of a stream that could be continued, over `RATE_WINDOW_NS`;
    0: any rate will do.
    """

    content_filter: bool = False
    continue_streams: bool = False
    min_tokens_per_s: float = 0


class AgentOptions(Struct, frozen=True, kw_only=True):
    """One agent.

    key: the virtual key that it sends; "" accepts any key, or none, from loopback. routes: model name as the agent sends it to
    targets in order; "*" is any other. Without a matching route a call goes to the first provider that speaks its format. hedge_after_ns:
    silence after which a second attempt is made beside the first, None: never. loop_guard: None: off.
    default_max_output: tokens assumed, and inserted, for a call without a bound under a spend limit. based_on: the agent of the
    configuration that this one is a copy of, "" for those of the configuration itself.
    """

    name: str
    based_on: str = ""
    key: str = ""
    release: str = UNRELEASED
    routes: dict[str, tuple[Target | Reply, ...]] = {}
    limits: tuple[Limit, ...] = ()
    rates: tuple[Rate, ...] = ()
    timeouts: Timeouts = Timeouts()
    retries: RetryOptions = RetryOptions()
    fallback: FallbackOptions = FallbackOptions()
    hedge_after_ns: int | None = None
    loop_guard: LoopOptions | None = LoopOptions()
    queue: QueueOptions = QueueOptions()
    default_max_output: int = 16_384
    content: Literal["full", "off"] = "full"


class GatewayOptions(Struct, frozen=True, kw_only=True):
    """All of it. limits, rates: for everything together. run, user: fixed by `holdfast run` for every call, "" otherwise."""

    agents: tuple[AgentOptions, ...]
    providers: tuple[ProviderOptions, ...]
    tools: tuple[ToolOptions, ...] = ()
    limits: tuple[Limit, ...] = ()
    rates: tuple[Rate, ...] = ()
    run: str = ""
    user: str = ""
