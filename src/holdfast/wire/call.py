"""What every wire format is read into: the call an agent makes, the answer a model gives, and the interface of a format.

A format is one file of this package with a module-level `FORMAT` that satisfies `WireFormat`. Same format in and out means that bytes
are relayed; what is read here is what guarding and recording need, nothing else, and unknown fields always pass unchanged.
"""

from typing import Literal, Protocol

from msgspec import Raw, Struct

from holdfast.events.usage import Usage

Family = Literal["openai", "anthropic"]
"""Whose error shapes, credentials and path layout a format uses."""


class Turn(Struct, frozen=True):
    """One message of a history. `digest` (16 bytes) is equal for messages that mean the same (see `wire.canonical`); it is empty for
    what agents may send back or leave out (reasoning items): those take no part in telling conversations apart."""

    role: str
    digest: bytes


class Call(Struct, kw_only=True):
    """A request as the guard needs it.

    turns: the history, one per message, system prompts that are messages included; empty for formats without a history.
    messages: the same messages as raw JSON, for the record.
    system, tools: raw JSON of the system prompt field and tool schemas where the format has them, else None.
    params: the rest of the request body as raw JSON object (no messages, system, tools), for the record.
    max_output: what the caller set as the bound of generated tokens, all choices together (n * max_tokens); None: no bound.
    newer_bound: `max_output` stands only under a name that older targets of the format do not read.
    choices: how many answers were asked for (n).
    unambiguous: no top-level field of the body comes twice, so that it may go out as it came.
    input_bound: upper bound of the input tokens: UTF-8 bytes + fixed overheads, media by a fixed bound each.
    pictures: how many of them are counted in `input_bound`, as `model` counts pictures; another model may count them dearer.
    unbounded: why the input or the price cannot be bounded at all (files and prompts kept by the provider, media by URL without a bound);
        empty when it can.
    hosted: types of the tools that the provider runs itself, one entry each; bounded only where the configuration bounds them.
    continues: the provider's id of the answer that the call continues without resending what led to it; bounded by that answer's usage.
    tier, geo: the service tier or speed, and the geography, that the request asks for; they have prices of their own. "": the provider's
        own choice.
    """

    model: str
    stream: bool = False
    turns: tuple[Turn, ...] = ()
    messages: tuple[Raw, ...] = ()
    system: Raw | None = None
    tools: Raw | None = None
    params: Raw = Raw(b"{}")
    max_output: int | None = None
    newer_bound: bool = False
    choices: int = 1
    unambiguous: bool = False
    generates: bool = True  # False: embeddings, token counting, model lists
    input_bound: int = 0
    pictures: int = 0
    unbounded: str = ""
    hosted: tuple[str, ...] = ()
    continues: str = ""
    tier: str = ""
    geo: str = ""
    user: str = ""  # the end user that the request's own fields name
    conversation: str = ""  # the provider's id of a history that it keeps (previous_response_id, conversation)


class ToolCall(Struct, frozen=True):
    """`arguments` is the JSON text as the model wrote it."""

    name: str
    arguments: str
    id: str = ""


class Answer(Struct, kw_only=True):
    """What a model answered, as far as it came.

    turns: what the caller will append to its history for this answer (empty when there is no answer to continue from).
    usage: None when the provider sent none ("not measured" is never zero).
    confidence: exp(mean log-probability of the answer's tokens), or None when no log-probabilities were sent.
    hosted: names of the tools that the provider ran for it; None where the format does not tell.
    other_tools: names of tools that are called beside `tool_calls`: by choices beyond the first, by the provider itself.
    complete: False when the answer ended before its own terminal marker.
    """

    model: str = ""
    response_id: str = ""
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = ""
    usage: Usage | None = None
    confidence: float | None = None
    turns: tuple[Turn, ...] = ()
    hosted: tuple[str, ...] | None = None
    complete: bool = True
    other_tools: tuple[str, ...] = ()

    @property
    def chosen_action(self) -> str:
        """Tool names joined by "+", or "refusal", "reply", "none" (nothing was said)."""
        if self.tool_calls:
            return "+".join(call.name for call in self.tool_calls)
        if self.refusal:
            return "refusal"
        return "reply" if self.text else "none"


class StreamReader(Protocol):
    """Reads one streamed answer as it passes; never raises on what an upstream sends (it stops understanding instead)."""

    @property
    def committed(self) -> bool:
        """The first real token was seen (text, reasoning, refusal or tool call; not a role or an empty delta)."""

    @property
    def ended(self) -> bool:
        """The format's own terminal marker was seen ([DONE], message_stop, response.completed/incomplete/failed)."""

    @property
    def error(self) -> bytes | None:
        """The data of an error event that the upstream sent inside the stream."""

    @property
    def generated_bytes(self) -> int:
        """UTF-8 bytes of generated content so far: an upper bound of the visible tokens."""

    @property
    def tools(self) -> set[str]:
        """Names of the tools called so far, whoever runs them; there before the event that names one leaves `feed`. A name that comes
        in pieces is there in every length that it had."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes, in any split; returns the bytes to pass on (`data` itself unless something is filtered out, such as a
        usage chunk that only the guard asked for). An incomplete event may be held back until its end comes; `flush` returns the rest."""

    def flush(self) -> bytes:
        """What was held back, when the stream is over."""

    def answer(self) -> Answer:
        """The answer as far as it came; `complete` is `ended` without `error`."""


class Refusal(Struct, frozen=True, kw_only=True):
    """A denial in the words of the guard, to be put into the caller's format.

    status: 402, 403, 429, 503, or 4xx/5xx for requests that cannot be served. kind: e.g. "spend_limit_reached". details: JSON-able numbers.
    retry_after_s: when the call may be sent again, None: nothing says that it may. by_sdk: then also by the agent's SDK, unasked.
    """

    status: int
    kind: str
    message: str
    details: dict[str, str | int | float | None] = {}
    param: str | None = None
    retry_after_s: int | None = None
    by_sdk: bool = True


class Rewrite(Struct, frozen=True, kw_only=True):
    """Changes to a request body; None leaves a field as the agent sent it.

    max_output: bound of generated tokens *per choice* to insert or lower to. modern: the target knows the newest name of that field
    (`max_completion_tokens`); else the oldest is inserted. usage_in_stream: make a stream report its usage.
    """

    model: str | None = None
    max_output: int | None = None
    modern: bool = True
    usage_in_stream: bool = False

    def leaves(self, call: Call) -> bool:
        """Whether the body of `call` may go out as it came, without a look into it."""
        understood = self.modern or not call.newer_bound
        return call.unambiguous and understood and self.model is None and self.max_output is None and not self.usage_in_stream


class WireFormat(Protocol):
    name: str
    """e.g. "openai-chat"; also the value of a decision's `format`."""
    family: Family
    resumable: bool
    """Whether a later request may name an answer of this format in place of the history that led to it."""

    def parse(self, body: bytes) -> Call:
        """Raises MalformedRequest naming the field; never anything else, whatever the bytes."""

    def answer(self, body: bytes) -> Answer:
        """A complete, non-streamed 2xx body; raises MalformedAnswer when it is not one."""

    def stream(self, call: Call, rewrite: Rewrite) -> StreamReader:
        """A reader for one streamed answer to `call` as it was sent with `rewrite`."""

    def rewrite(self, body: bytes, call: Call, rewrite: Rewrite) -> bytes:
        """The body with the changes; the very same object when nothing changes, and every other byte of a field as it was."""

    def refusal(self, refusal: Refusal) -> bytes:
        """The error body that the format's own SDK reads."""

    def error_event(self, message: str, kind: str = "upstream_failed") -> bytes:
        """The SSE bytes with which a started stream of this format reports a failure; kind: as of a `Refusal`."""

    def canned(self, call: Call, text: str, response_id: str, created_s: int) -> bytes | None:
        """An answer of the gateway's own in this format, for `{reply: …}` routes: a JSON body or, for a stream, its SSE bytes."""
