"""Instants of events, as the journal holds them."""

from typing import Annotated

from msgspec import Meta

Instant = Annotated[int, Meta(ge=0, le=2**62)]
"""Nanoseconds since the Unix epoch, up to the year 2116; a line with any other time is not read."""
