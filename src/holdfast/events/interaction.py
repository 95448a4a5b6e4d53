"""An interaction: one task or conversation from start to outcome."""

from msgspec import Struct

from holdfast.events.instant import Instant


class InteractionStarted(Struct, frozen=True, kw_only=True, tag="interaction_started", tag_field="kind", omit_defaults=True):
    """Written once, with the interaction's first call, whose id it takes unless the agent gave it one.

    `identified_by` says how it was told from others.
    """

    interaction: str
    timestamp: Instant
    agent: str
    release: str
    run: str = ""
    user_id: str = ""
    identified_by: str  # "header", "session", "traceparent", "conversation", "history"
