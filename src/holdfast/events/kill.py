"""The kill switch was used: written once by the command that did it."""

from typing import Literal

from msgspec import Struct

from holdfast.events.instant import Instant


class KillChanged(Struct, frozen=True, kw_only=True, tag="kill_changed", tag_field="kind", omit_defaults=True):
    """Something was killed, or a kill was lifted. value: "" where the scope is all."""

    timestamp: Instant
    action: Literal["kill", "resume"]
    scope: Literal["all", "agent", "release", "model", "tool"]
    value: str = ""
    mode: Literal["drain", "cut"] = "drain"
    reason: str = ""
    author: str = ""
