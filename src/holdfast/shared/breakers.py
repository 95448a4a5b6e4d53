"""Circuit breakers in memory that all processes of a data directory share: what one worker counts or changes all others see at once.

An open-addressing table: a breaker lies in one of the `PROBED` places from its digest on. It has a place once a call of it has ended. Where
all of them are taken, the closed one that was used the longest ago gives way; where none is closed, calls of the new one pass uncounted:
a full table must not keep healthy targets from being called. What the calls of a moment say is written one word after the other, the state
last: a process that dies between two of them leaves counts that are one call off, or a probe's place that is free again after its lease.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from holdfast.execution.circuit import (
    PROBE_LEASE_NS,
    SUCCESS,
    Blocked,
    Breaker,
    Change,
    Guards,
    Instants,
    Report,
    Standing,
    breaker_digest,
)
from holdfast.policy.circuit_breaker import (
    MOST_PROBES,
    SLOTS,
    BreakerKind,
    Circuit,
    CircuitState,
    Counts,
    Place,
    Ticket,
    admit,
    after_innocent,
    asked,
    closed,
    is_innocent,
    opened,
    probed,
    renew,
    suspects_of,
    wait_ns,
    why_open,
)
from holdfast.shared.private_memory import Memory

PLACES = 512
"""Breakers that are known at a time, all processes together."""

PROBED = 16
NAME, REASON = 192, 128
"""Bytes that are kept of a name and of a reason; longer ones are told apart all the same."""

_HEADER = 8  # words: how often a breaker has changed, how many calls passed uncounted for want of a place
_STATE, _SINCE, _UNTIL, _REOPENED, _PASSED, _TICKETS, _ASKED, _TROUBLE, _KIND, _SLOT_NS, _SUSPECTS = range(2, 13)
_OPENING = 13  # calls, failures, suspicions, slow
_PLACES = 17
_SLOTS = _PLACES + 2 * MOST_PROBES
_SLOT = 6  # words: its number, calls, failures, suspicions, slow, sources
_REASON = _SLOTS + SLOTS * _SLOT
_NAME = _REASON + REASON // 8
WORDS = _NAME + NAME // 8
"""Of a place, 64 bits each: the digest's two halves, the state with the number of its changes, and what the names above say."""

SIZE = 8 * (_HEADER + WORDS * (PLACES + PROBED))
KIND = "breakers 1"

_STATES: tuple[CircuitState, ...] = get_args(CircuitState)
_KINDS: tuple[BreakerKind, ...] = get_args(BreakerKind)
_CODES = {state: code for code, state in enumerate(_STATES)}
_UNKNOWN = Circuit()
_NO_PLACE = Place(0, 0)
_NO_COUNTS = Counts()


class BreakerTable:
    """Implements `holdfast.execution.circuit.BreakerTable` in `memory` of `SIZE` bytes, all zero at first."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._words = memory.view.cast("Q")
        self._changes: list[Change] = []

    def known_closed(self, guards: Guards) -> tuple[Ticket, ...] | None:
        return guards.tickets if guards.serial == self._words[0] else None

    def enter(self, guards: Guards, now_ns: int, wall_ns: int) -> tuple[Ticket, ...] | Blocked:
        words = self._words
        serial = words[0]
        if guards.serial == serial:
            return guards.tickets
        tickets: list[Ticket] = []
        known = True
        for breaker in guards.breakers:
            at = self._find(breaker)
            state = words[at + _STATE] if at >= 0 else 0
            if state & 3:
                return self._enter_under_lock(guards, now_ns, wall_ns)
            known = known and at >= 0
            tickets.append(Ticket(state >> 2))
        found = tuple(tickets)
        if known:  # until a breaker changes, or loses its place
            guards.serial, guards.tickets = serial, found
        return found

    def succeed(self, guards: Guards, tickets: Sequence[Ticket], now_ns: int, at: Callable[[], Instants]) -> None:
        words = self._words
        self._memory.lock()
        try:
            if tickets is not guards.tickets or guards.serial != words[0]:
                self._report_all(guards, tickets, [SUCCESS] * len(tickets), at(), None)
                return
            for breaker in guards.breakers:
                place, number = breaker.place, now_ns // breaker.slot_ns
                slot = place + _SLOTS + number % SLOTS * _SLOT
                if words[slot] != number:
                    self._begin_slot(place, slot, number, breaker)
                words[slot + 1] += 1
                if words[place + _TROUBLE] + SLOTS > number:
                    self._judge(place, breaker, at())
        finally:
            self._memory.unlock()

    def report(self, guards: Guards, tickets: Sequence[Ticket], reports: Sequence[Report], at: Instants, asked_ns: int | None) -> None:
        self._memory.lock()
        try:
            self._report_all(guards, tickets, reports, at, asked_ns)
        finally:
            self._memory.unlock()

    def renew(self, guards: Guards, tickets: Sequence[Ticket], now_ns: int) -> bool:
        held = False
        self._memory.lock()
        try:
            for breaker, ticket in zip(guards.breakers, tickets, strict=True):
                at = self._find(breaker) if ticket.number else -1
                renewed = renew(self._read(at), ticket, now_ns + PROBE_LEASE_NS) if at >= 0 else None
                if renewed is not None:
                    self._write(at, renewed)
                    held = True
        finally:
            self._memory.unlock()
        return held

    def look(self, guards: Guards, now_ns: int) -> Blocked | None:
        words = self._words
        if guards.serial == words[0]:
            return None
        blocked: tuple[int, int] | None = None
        for breaker in guards.breakers:
            at = self._find(breaker)
            if at < 0 or not words[at + _STATE] & 3:
                continue
            circuit = self._read(at)
            wait = 0 if is_innocent(circuit, guards.source) else wait_ns(circuit, breaker.options, now_ns)
            if wait:
                blocked = max(blocked or (0, at), (wait, at))
        return None if blocked is None else Blocked(self._standing(blocked[1], now_ns), blocked[0])

    def changes(self) -> list[Change]:
        changes, self._changes = self._changes, []
        return changes

    @property
    def uncounted(self) -> int:
        """Calls that ended without being counted: the table was full of breakers that were not closed."""
        return self._words[1]

    def standings(self, now_ns: int) -> list[Standing]:
        """All that have a place, by name."""
        self._memory.lock()
        try:
            return sorted((self._standing(at, now_ns) for at in self._rows()), key=lambda standing: standing.name)
        finally:
            self._memory.unlock()

    def reset(self, name: str, now_ns: int, wall_ns: int) -> Change | None:
        """Close it and forget what was counted; None when it was closed. Calls of before say nothing any more."""
        high, low = breaker_digest(name)
        words = self._words
        self._memory.lock()
        try:
            at = next((at for at in self._rows() if words[at] == high and words[at + 1] == low), -1)
            if at < 0:
                return None
            circuit, counts = self._read(at), self._counts(at, now_ns // max(1, words[at + _SLOT_NS]))
            kind = _KINDS[words[at + _KIND] % len(_KINDS)]
            self._write(at, closed(circuit))
            if circuit.state == "closed":
                return None
            self._tell(at, "reset", wall_ns)
            return Change(name=name, kind=kind, before=circuit.state, after="closed", reason="reset", counts=counts)
        finally:
            self._memory.unlock()

    def release(self) -> None:
        """Let go of the memory, which stays."""
        self._words.release()
        self._memory.close()

    def _enter_under_lock(self, guards: Guards, now_ns: int, wall_ns: int) -> tuple[Ticket, ...] | Blocked:
        self._memory.lock()
        try:
            entered: list[tuple[Breaker, int, Circuit, Circuit]] = []
            tickets: list[Ticket] = []
            blocked: tuple[int, int] | None = None
            for breaker in guards.breakers:
                at = self._find(breaker)
                before = self._read(at) if at >= 0 else _UNKNOWN
                if is_innocent(before, guards.source):
                    tickets.append(Ticket(before.epoch))
                    continue
                after, ticket = admit(before, breaker.options, now_ns, PROBE_LEASE_NS)
                if ticket is None:
                    blocked = max(blocked or (0, at), (wait_ns(before, breaker.options, now_ns), at))
                else:
                    tickets.append(ticket)
                    entered.append((breaker, at, before, after))
            if blocked is not None:
                return Blocked(self._standing(blocked[1], now_ns), max(1, blocked[0]))
            for breaker, at, before, after in entered:
                if after is not before:
                    self._write(at, after)
                if after.state != before.state:
                    self._changed(at, breaker, (before, after), "its cooldown is over", wall_ns)
            return tuple(tickets)
        finally:
            self._memory.unlock()

    def _report_all(self, guards: Guards, tickets: Sequence[Ticket], reports: Sequence[Report], at: Instants, asked_ns: int | None) -> None:
        for breaker, ticket, said in zip(guards.breakers, tickets, reports, strict=True):
            place = self._find(breaker)
            if place < 0 and said.outcome is not None and (place := self._claim(breaker)) < 0:
                self._words[1] += 1
            if place < 0:
                continue
            if asked_ns is not None and said.outcome in ("failure", "suspicion"):
                self._write(place, asked(self._read(place), at.now_ns, asked_ns))
            if ticket.number:
                self._report_probe(place, breaker, ticket, said, at)
            else:
                self._report_call(place, breaker, ticket, said, at)

    def _report_probe(self, place: int, breaker: Breaker, ticket: Ticket, said: Report, at: Instants) -> None:
        before = self._read(place)
        after, why = probed(before, breaker.options, ticket, said.outcome, said.slow)
        if why:
            suspects = after.suspects | said.sources if said.outcome == "suspicion" else 0
            after = opened(after, breaker.options, at.now_ns, at.jitter, suspects)
        self._write(place, after)
        if after.state != before.state:
            self._changed(place, breaker, (before, after), why or "its probes succeeded", at.wall_ns)

    def _report_call(self, place: int, breaker: Breaker, ticket: Ticket, said: Report, at: Instants) -> None:
        words, state = self._words, self._words[place + _STATE]
        if state >> 2 != ticket.epoch:
            words[0] += 1  # whoever goes by what they saw before, because a process died while it changed this, looks again
        elif state & 3:
            self._report_innocent(place, breaker, said, at)
        elif said.outcome is not None:
            number = self._count(place, breaker, at.now_ns, said)
            if said.outcome != "success" or said.slow:
                words[place + _TROUBLE] = number
            if words[place + _TROUBLE] + SLOTS > number:
                self._judge(place, breaker, at)

    def _report_innocent(self, place: int, breaker: Breaker, said: Report, at: Instants) -> None:
        """A call that passed a breaker that was opened on the suspicion of others."""
        before = self._read(place)
        after = after_innocent(before, said.sources, said.outcome)
        if after is not before:
            self._write(place, after)
        if after.state != before.state:
            self._changed(place, breaker, (before, after), "another model answered", at.wall_ns)

    def _judge(self, place: int, breaker: Breaker, at: Instants) -> None:
        """Open a closed breaker where its counts say so."""
        counts = self._counts(place, at.now_ns // breaker.slot_ns)
        why = why_open(breaker.options, breaker.kind, counts)
        if why:
            before = self._read(place)
            suspects = suspects_of(breaker.options, breaker.kind, counts)
            after = opened(before, breaker.options, at.now_ns, at.jitter, suspects)
            words = self._words
            words[place + _OPENING], words[place + _OPENING + 1] = counts.calls, counts.failures
            words[place + _OPENING + 2], words[place + _OPENING + 3] = counts.suspicions, counts.slow
            self._write(place, after)
            self._changed(place, breaker, (before, after), why, at.wall_ns, counts)

    def _count(self, place: int, breaker: Breaker, now_ns: int, said: Report) -> int:
        """Count a call; returns the number of its slot."""
        words = self._words
        number: int = now_ns // breaker.slot_ns
        slot = place + _SLOTS + number % SLOTS * _SLOT
        if words[slot] != number:
            self._begin_slot(place, slot, number, breaker)
        words[slot + 1] += 1
        words[slot + 2] += said.outcome == "failure"
        words[slot + 4] += said.slow
        if said.outcome == "suspicion":
            words[slot + 3] += 1
            words[slot + 5] |= said.sources
        return number

    def _begin_slot(self, place: int, slot: int, number: int, breaker: Breaker) -> None:
        words = self._words
        for word in range(slot, slot + _SLOT):
            words[word] = 0
        words[place + _SLOT_NS] = breaker.slot_ns
        words[slot] = number

    def _counts(self, place: int, number: int) -> Counts:
        """Of the slots that lie within the window that ends with the slot of this number."""
        words = self._words
        calls = failures = suspicions = slow = sources = 0
        for slot in range(place + _SLOTS, place + _SLOTS + SLOTS * _SLOT, _SLOT):
            if words[slot] + SLOTS > number:
                calls += words[slot + 1]
                failures += words[slot + 2]
                suspicions += words[slot + 3]
                slow += words[slot + 4]
                sources |= words[slot + 5]
        return Counts(calls, failures, suspicions, slow, sources)

    def _changed(
        self, place: int, breaker: Breaker, circuits: tuple[Circuit, Circuit], reason: str, wall_ns: int, counts: Counts = _NO_COUNTS
    ) -> None:
        before, after = circuits
        self._tell(place, reason, wall_ns)
        self._changes.append(
            Change(
                name=breaker.name,
                kind=breaker.kind,
                before=before.state,
                after=after.state,
                reason=reason,
                counts=counts,
                until_ns=after.until_ns if after.state == "open" else 0,
            )
        )

    def _tell(self, place: int, reason: str, wall_ns: int) -> None:
        words = self._words
        words[place + _SINCE] = wall_ns
        self._put_text(place + _REASON, reason, REASON)
        words[0] += 1

    def _find(self, breaker: Breaker) -> int:
        words, high, low = self._words, breaker.high, breaker.low
        at = breaker.place
        if at >= 0 and words[at] == high and words[at + 1] == low:
            return at
        for at in _places(low):
            if words[at] == high and words[at + 1] == low:
                breaker.place = at
                return at
        return -1

    def _claim(self, breaker: Breaker) -> int:
        """A place for it, or -1."""
        words = self._words
        free = [at for at in _places(breaker.low) if not words[at] or not words[at + _STATE] & 3]
        if not free:
            return -1
        at = min(free, key=lambda place: self._last_used_ns(place) if words[place] else -1)
        words[0] += words[at] > 0  # who knew the breaker that gives way looks for it again
        words[at] = 0  # nobody's, should this process die before the end of the next lines
        for word in range(at + 1, at + WORDS):
            words[word] = 0
        self._put_text(at + _NAME, breaker.name, NAME)
        words[at + _KIND] = _KINDS.index(breaker.kind)
        words[at + 1] = breaker.low
        words[at] = breaker.high
        breaker.place = at
        return at

    def _last_used_ns(self, at: int) -> int:
        words = self._words
        return max(words[slot] for slot in range(at + _SLOTS, at + _REASON, _SLOT)) * words[at + _SLOT_NS]

    def _rows(self) -> Iterator[int]:
        return (at for at in range(_HEADER, _HEADER + WORDS * (PLACES + PROBED), WORDS) if self._words[at])

    def _read(self, at: int) -> Circuit:
        words = self._words
        state = words[at + _STATE]
        places = [(words[word], words[word + 1]) for word in range(at + _PLACES, at + _SLOTS, 2)]
        return Circuit(
            state=_STATES[min(state & 3, 2)],
            epoch=state >> 2,
            until_ns=words[at + _UNTIL],
            reopened=words[at + _REOPENED],
            passed=words[at + _PASSED],
            places=tuple(Place(ticket, until) for ticket, until in places if ticket),
            tickets=words[at + _TICKETS],
            asked_until_ns=words[at + _ASKED],
            suspects=words[at + _SUSPECTS],
        )

    def _write(self, at: int, circuit: Circuit) -> None:
        """The state last; a breaker that closes begins to count anew."""
        words = self._words
        words[at + _UNTIL], words[at + _REOPENED], words[at + _PASSED] = circuit.until_ns, circuit.reopened, circuit.passed
        words[at + _TICKETS], words[at + _ASKED], words[at + _SUSPECTS] = circuit.tickets, circuit.asked_until_ns, circuit.suspects
        for number in range(MOST_PROBES):
            place = circuit.places[number] if number < len(circuit.places) else _NO_PLACE
            word = at + _PLACES + 2 * number
            words[word] = 0
            words[word + 1] = place.until_ns
            words[word] = place.ticket
        state = circuit.epoch << 2 | _CODES[circuit.state]
        if circuit.state == "closed" and words[at + _STATE] != state:
            words[at + _TROUBLE] = 0
            for word in range(at + _SLOTS, at + _REASON):
                words[word] = 0
        words[at + _STATE] = state

    def _standing(self, at: int, now_ns: int) -> Standing:
        words, circuit = self._words, self._read(at)
        opening = [words[at + _OPENING + number] for number in range(4)]
        return Standing(
            name=self._text(at + _NAME, NAME),
            kind=_KINDS[words[at + _KIND] % len(_KINDS)],
            state=circuit.state,
            since=words[at + _SINCE],
            until_ns=circuit.until_ns if circuit.state == "open" else 0,
            reason=self._text(at + _REASON, REASON),
            counts=self._counts(at, now_ns // max(1, words[at + _SLOT_NS])),
            at_opening=Counts(*opening),
            probes=sum(place.until_ns > now_ns for place in circuit.places),
        )

    def _put_text(self, word: int, text: str, size: int) -> None:
        kept = text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore").encode()
        self._memory.view[8 * word : 8 * word + size] = kept.ljust(size, b"\0")

    def _text(self, word: int, size: int) -> str:
        return bytes(self._memory.view[8 * word : 8 * word + size]).rstrip(b"\0").decode("utf-8", "replace")


def _places(low: int) -> range:
    home = _HEADER + (low % PLACES) * WORDS
    return range(home, home + PROBED * WORDS, WORDS)
