"""What a provider's own rate limit leaves, from what its last answer said and what was sent since."""

from msgspec import Struct

from holdfast.clock import SECOND
from holdfast.wire.quota import Quota

LONGEST_NS = 86_400 * SECOND
"""Resets further off are nonsense; nor is a meter ever closed for longer."""


class Meter(Struct, frozen=True):
    """One limit of a provider, as GCRA where it refills steadily: `whole_ns` is the monotonic instant at which it is whole again, each unit
    costs `unit_ns` (rounded up) of it. unit_ns 0: all comes back at `whole_ns`, and `left` may be used until then."""

    limit: int
    left: int
    whole_ns: int
    unit_ns: int


def learn(quota: Quota, sent_since: int, now_ns: int) -> Meter | None:
    """The meter after an answer that arrived now; None while nothing is used that this could be told from.

    sent_since: units sent after the request of this answer, which the provider had not counted when it spoke.
    """
    used = quota.limit - quota.remaining
    if used <= 0 or not 0 < quota.resets_ns <= LONGEST_NS:
        return None
    if not quota.refills:
        return Meter(quota.limit, quota.remaining - sent_since, now_ns + quota.resets_ns, 0)
    unit_ns = -(-quota.resets_ns // used)
    return Meter(quota.limit, 0, now_ns + min(quota.resets_ns + sent_since * unit_ns, LONGEST_NS), unit_ns)


def wait_ns(meter: Meter, cost: int, now_ns: int) -> int:
    """How long until `cost` units are there, 0 when they are; more than the whole limit is taken for the whole."""
    if meter.unit_ns:
        return max(0, meter.whole_ns - now_ns - (meter.limit - min(cost, meter.limit)) * meter.unit_ns)
    return max(0, meter.whole_ns - now_ns) if meter.left < min(cost, meter.limit) else 0


def sent(meter: Meter, cost: int, now_ns: int) -> Meter:
    """The meter after so much was sent, or after it came back (below zero): nothing went out after all."""
    if meter.unit_ns:
        whole_ns = min(max(meter.whole_ns, now_ns) + cost * meter.unit_ns, now_ns + LONGEST_NS)
        return Meter(meter.limit, 0, max(0, whole_ns), meter.unit_ns)
    return Meter(meter.limit, meter.left - cost, meter.whole_ns, 0)
