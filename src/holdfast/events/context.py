"""Large parts of requests that repeat from call to call (system prompts, tool schemas), stored once per content hash and journal file."""

from typing import Literal

from msgspec import Raw, Struct


class Context(Struct, frozen=True, kw_only=True, tag="context", tag_field="kind"):
    """`digest` is the hexadecimal BLAKE2b-128 of `content`, the JSON text as the agent sent it."""

    digest: str
    role: Literal["system", "tools"]
    content: Raw
