"""Pacing: when a limit will be reached if spending goes on as it did lately. It warns; it never refuses."""

from collections.abc import Sequence

from holdfast.policy.allowance import SLOTS, Window

RECENT_SLOTS = 5
"""What counts as lately: the last whole slots, a twelfth of the window, five minutes of an hour."""
LEAST_SHARE = 5
"""Below one part in so many of the limit nothing is foretold: the first calls of a day would make a bad forecast."""


def reaches_at_ns(window: Window, slots: Sequence[tuple[int, int]], limit: int, now_ns: int) -> int | None:
    """Wall time at which the limit is reached at the rate of the last slots; None: not within a window's length from now.

    slots: (slot, amount) of all that count, oldest first. What leaves the sliding window on the way is taken into account.
    """
    used = sum(amount for _, amount in slots)
    if window.total or used * LEAST_SHARE < limit:
        return None
    now_slot = window.slot(now_ns)
    recent = sum(amount for slot, amount in slots if now_slot - RECENT_SLOTS <= slot < now_slot)
    if recent <= 0:
        return None
    span_ns = RECENT_SLOTS * window.slot_ns
    at_ns, left = now_ns, limit - used
    horizon_ns = now_ns + SLOTS * window.slot_ns
    leaving = [(window.leaves_ns(slot), amount) for slot, amount in slots]
    for leaves_ns, amount in [*leaving, (horizon_ns, 0)]:
        reached_ns = at_ns + max(0, left) * span_ns // recent
        if reached_ns <= min(leaves_ns, horizon_ns):
            return reached_ns
        if leaves_ns > at_ns:
            left -= (leaves_ns - at_ns) * recent // span_ns
            at_ns = leaves_ns
        left += amount
    return None
