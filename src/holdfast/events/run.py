"""A run: one `holdfast run` from the start of the agent's process to its end."""

from typing import Literal

from msgspec import Struct

from holdfast.events.instant import Instant

EndReason = Literal["exited", "timeout", "limit", "killed", "signal"]


class RunStarted(Struct, frozen=True, kw_only=True, tag="run_started", tag_field="kind", omit_defaults=True):
    run: str
    timestamp: Instant
    agent: str
    release: str
    user_id: str = ""
    command: tuple[str, ...]


class RunEnded(Struct, frozen=True, kw_only=True, tag="run_ended", tag_field="kind", omit_defaults=True):
    """`exit_code` is what `holdfast run` itself exited with."""

    run: str
    timestamp: Instant
    agent: str
    release: str
    exit_code: int
    reason: EndReason
    calls: int
    decisions: int
    refusals: int
    errors: int
    cost: int
