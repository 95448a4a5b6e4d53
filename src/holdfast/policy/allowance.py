"""What one process may take of a limit without asking: slots of the sliding window, the slice that the ledger granted, what refuses.

A window of `per_ns` is cut into 60 slots, and every amount is charged to a slot. Two calls less than `per_ns` apart are at most 60 slots
apart, so 61 slots together never hold more than the limit. A slice is granted at slot `first` against the sum of all slots from
`first - 60` on, without an upper bound, and charged to slot `last`; it may be used while the wall clock shows a slot from `first` to
`last`: not later, or it would leave the window too early, and not earlier, or older slots would have to be counted. That makes the sum
hold whichever way the wall clock steps, between restarts too.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from holdfast.policy.limit import Limit

SLOTS = 60
FOREVER_NS = 1 << 62
AHEAD_SHARE = 8
"""At most one part in so many of what remains is leased ahead of need: near the end a lease is exactly what is asked."""
NO_MARK = 1 << 100


class Window(Struct, frozen=True):
    """The slots of a window; slot_ns: length of one in nanoseconds. In total is one slot, number 0, that never ends."""

    slot_ns: int

    @classmethod
    def of(cls, per_ns: int | None) -> "Window":
        """The window of a limit: any 60 minutes are 60 slots of a minute."""
        return cls(FOREVER_NS if per_ns is None else max(1, -(-per_ns // SLOTS)))

    @property
    def total(self) -> bool:
        return self.slot_ns == FOREVER_NS

    def slot(self, wall_ns: int) -> int:
        return wall_ns // self.slot_ns

    def starts_ns(self, slot: int) -> int:
        return slot * self.slot_ns

    def leaves_ns(self, slot: int) -> int:
        """Wall time from which on the slot no longer counts."""
        return FOREVER_NS if self.total else (slot + SLOTS + 1) * self.slot_ns


class Rows(Struct, frozen=True):
    """What the ledger holds for an account. slots: (slot, amount) of those that count, oldest first. others: part of it that belongs to
    other holders, dead ones included. own: part of the slot of the grant that belongs to the one who asks."""

    slots: tuple[tuple[int, int], ...]
    others: int
    own: int = 0

    @property
    def used(self) -> int:
        return sum(amount for _, amount in self.slots)


def granted(limit: int, used: int, need: int, least: int, ahead: int) -> int:
    """How much of a limit to grant when `used` of it is gone.

    need: what waiting calls ask at most. least: what the smallest of them needs; less would help nobody. ahead: wanted beyond the need.
    """
    left = max(0, limit - used)
    if left < least:
        return 0
    if left <= need:
        return left
    return need + min(ahead, (left - need) // AHEAD_SHARE)


def resets_at_ns(window: Window, slots: Sequence[tuple[int, int]], excess: int) -> int | None:
    """Wall time at which slots that hold at least `excess` (> 0) together have left the window; None in total: never."""
    if window.total:
        return None
    at_ns = None
    for slot, amount in slots:
        at_ns = window.leaves_ns(slot)
        excess -= amount
        if excess <= 0:
            break
    return at_ns


class Cells(Protocol):
    """A sequence of integers, shared memory perhaps."""

    def __getitem__(self, at: int, /) -> int: ...

    def __setitem__(self, at: int, value: int, /) -> None: ...


class Slice:
    """What this process may use of an account while the wall clock shows the slots up to `slot`, to which it is charged.

    free: not taken. reserved: taken by calls that have not settled. cells[at]: all that was ever taken, less what was given back: reserved
    and settled together, kept where it outlives the process. report: number of the last report in which a change of it goes to the
    ledger. Plain attributes, because the limiter reads them for every call.
    """

    __slots__ = ("at", "cells", "ends_ns", "free", "from_ns", "renew_ns", "report", "reserved", "slot")

    def __init__(self, slot: int, cells: Cells, at: int) -> None:
        self.slot = slot
        self.cells = cells
        self.at = at
        self.free = self.reserved = self.report = 0
        self.from_ns = self.renew_ns = self.ends_ns = 0  # empty: no instant lies in it

    def holds(self, wall_ns: int) -> bool:
        """Whether it may be used at this moment."""
        return self.from_ns <= wall_ns < self.ends_ns

    def take(self, amount: int) -> None:
        self.free -= amount
        self.reserved += amount
        self.cells[self.at] += amount

    def give_back(self, amount: int) -> None:
        """End a taking as if it had not been; where the amount goes is the caller's to say."""
        self.reserved -= amount
        self.cells[self.at] -= amount


NO_SLICE = Slice(-1, [0], 0)
"""Stands where there is none: it holds at no instant, so nobody ever takes from it."""


class Allowance:
    """One account's slices in this process, and what is known of the account beyond them.

    slice: the one to take from. older: by slot, those whose calls have not all settled, or whose changes the ledger may not have yet;
    older_reserved: what these calls took. known: the ledger's sum when it last answered, brought forward by what was returned since; so
    `spent` = known - free - reserved. unseen: what was returned since the last question, which its answer cannot know yet. left: what the
    ledger had left after its last grant.
    """

    __slots__ = (
        "ahead",
        "known",
        "left",
        "low",
        "older",
        "older_reserved",
        "slice",
        "slots",
        "sure_until_mono_ns",
        "sure_until_ns",
        "unseen",
        "window",
    )

    def __init__(self, window: Window) -> None:
        self.window = window
        self.slice = NO_SLICE
        self.older: dict[int, Slice] = {}
        self.older_reserved = 0
        self.known = self.unseen = self.left = 0
        self.slots: tuple[tuple[int, int], ...] = ()
        self.low = -1
        self.ahead = 0 if window.total else 1
        self.sure_until_ns = self.sure_until_mono_ns = 0

    @property
    def reserved(self) -> int:
        """Taken by calls that have not settled, in whichever slot."""
        return self.slice.reserved + self.older_reserved

    @property
    def spent(self) -> int:
        """Settled by anyone, plus what other holders keep leased."""
        return self.known - self.slice.free - self.reserved

    def holds(self, wall_ns: int) -> bool:
        """Whether there is a slice that may be used at this moment."""
        return self.slice.holds(wall_ns)

    def drop(self) -> tuple[Slice, int]:
        """Give up the slice: (it, amount to return to the ledger in its slot)."""
        part, free = self.slice, self.slice.free
        if part is not NO_SLICE:
            part.free = part.from_ns = part.renew_ns = part.ends_ns = 0
            self.older[part.slot] = part
            self.older_reserved += part.reserved
            self.slice = NO_SLICE
            self.returned(free)
        self.low = -1
        return part, free

    def shrink(self, keep: int) -> int:
        """Give up what exceeds `keep`: the amount to return to the ledger, in the slice's slot."""
        surplus = max(0, self.slice.free - keep)
        self.slice.free -= surplus
        self.returned(surplus)
        return surplus

    def returned(self, amount: int) -> None:
        """Bring the knowledge forward by what goes back to the ledger; negative: by what was used beyond a reservation."""
        if amount:
            self.known -= amount
            self.unseen -= amount
            self.sure_until_ns = 0

    def next_slots(self, wall_ns: int) -> tuple[int, int]:
        """(first, last) of the slice to ask for now: the running one while it has more than its last slot to go."""
        first = self.window.slot(wall_ns)
        if self.holds(wall_ns) and (first < self.slice.slot or self.window.total):
            return first, self.slice.slot
        return first, first + self.ahead

    def install(self, part: Slice, first: int, amount: int, rows: Rows, limit: int) -> None:
        """Take a grant over into `part`; a slice of another slot must have been dropped before."""
        window = self.window
        if self.older.pop(part.slot, None) is not None:
            self.older_reserved -= part.reserved
        self.slice = part
        part.from_ns = max(part.from_ns, window.starts_ns(first))
        part.ends_ns = window.starts_ns(part.slot + 1)
        part.renew_ns = window.starts_ns(max(part.slot, first + 1))
        part.free += amount
        self.known = rows.used + amount + self.unseen
        self.slots = (*rows.slots, (part.slot, amount))
        self.left = max(0, limit - rows.used - amount)
        self.low = part.free // 4 if self.left and amount else -1

    def used_slots(self) -> list[tuple[int, int]]:
        """(slot, amount) of what counts, oldest first, less what this process has leased and not taken."""
        used = dict(self.slots)
        if self.slice.slot in used:
            used[self.slice.slot] -= self.slice.free
        return sorted(used.items())

    def be_sure(self, until_ns: int, until_mono_ns: int) -> None:
        """Until then `left` is what the ledger would answer: nothing else can have changed it, or too little time has passed to ask."""
        self.sure_until_ns = until_ns
        self.sure_until_mono_ns = until_mono_ns

    def is_sure(self, wall_ns: int, mono_ns: int) -> bool:
        return wall_ns < self.sure_until_ns and mono_ns < self.sure_until_mono_ns

    def next_chance_ns(self, limit: Limit, asked: int) -> int | None:
        """Wall time when `asked` will fit if no other call comes first; None: never."""
        if asked > limit.amount:
            return None
        return resets_at_ns(self.window, sorted(self.slots), self.known - self.slice.free + asked - limit.amount)
