"""A decision: one choice, as a model's answer or as recorded by the agent itself."""

from typing import Literal

from msgspec import Raw, Struct

from holdfast.events.instant import Instant
from holdfast.events.usage import Usage

CostSource = Literal["provider", "bound", "per_call", "free", "unpriced"]
"""provider: from the usage that the provider reported; bound: the reserved upper bound, because no usage came; per_call: the configured
price of a call through a tool; free: nothing was billed; unpriced: the model has no price, or no usage came and nothing bounded it, so the
cost is not known (never shown as $0)."""


class Decision(Struct, frozen=True, kw_only=True, tag="decision", tag_field="kind", omit_defaults=True):
    """One decision with the checklist's fields.

    The full prompt is kept without repeating it: `input_messages` holds only what is new since the decision `parent` of the same
    interaction, which covers the first `inherited_messages` messages. `input_params` is the rest of the request (model, temperature, …);
    system prompt and tools are `Context` events named by their content hash.
    """

    decision_id: str
    timestamp: Instant
    agent: str
    release: str
    run: str = ""
    user_id: str = ""
    interaction: str
    model: str
    served_by: str = ""  # provider/model that gave the answer
    format: str
    parent: str = ""
    inherited_messages: int = 0
    input_messages: Raw = Raw(b"[]")
    input_params: Raw = Raw(b"{}")
    context: tuple[str, ...] = ()
    answer: str = ""
    reasoning_chain: str = ""
    chosen_action: str  # tool names joined by "+", or "reply", "refusal", "none"
    tool_calls: Raw = Raw(b"[]")  # [{name, arguments, id}]
    finish_reason: str = ""
    confidence_score: float | None = None
    confidence_source: str = "none"  # "logprobs" where the provider sent log-probabilities
    usage: Usage | None = None
    cost: int | None = None  # nano-dollars; None: not known
    cost_source: CostSource = "unpriced"
    latency_ns: int = 0
    first_token_ns: int | None = None
    attempts: int = 1
    complete: bool = True  # False: the answer was cut before its end
    error_id: str = ""
    recovery_action: str = "none"
    job: str = ""  # that was answered with it
