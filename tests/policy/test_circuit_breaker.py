"""The state machine of a circuit breaker, under any interleaving of calls, probes, crashes and time."""

from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.clock import SECOND
from holdfast.policy.circuit_breaker import (
    CLOSED,
    KEY_REJECTIONS,
    LONGEST_ASKED_NS,
    BreakerKind,
    BreakerOptions,
    Circuit,
    Counts,
    Isolation,
    Isolations,
    Outcome,
    Ticket,
    admit,
    after_innocent,
    asked,
    cooldown_ns,
    give_back,
    is_innocent,
    opened,
    probed,
    renew,
    suspects_of,
    wait_ns,
    why_open,
)

LEASE = 5 * SECOND
OPTIONS = BreakerOptions(probes=3, cooldown_ns=10 * SECOND, longest_cooldown_ns=60 * SECOND)
KINDS: tuple[BreakerKind, ...] = ("provider", "model", "key", "tool")


class Interleavings(RuleBasedStateMachine):
    """Calls that ask, end, are given back or crash in any order; what must hold is checked after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.now = SECOND
        self.circuit = CLOSED
        self.flying: dict[Ticket, int] = {}
        self.crashed: dict[Ticket, int] = {}
        self.opened_at = 0
        self.must_stay_open_until = 0

    @rule(ns=st.sampled_from([1, SECOND, LEASE - 1, LEASE, 10 * SECOND, 70 * SECOND]))
    def time_passes(self, ns: int) -> None:
        for ticket in list(self.flying):  # every living process renews its probes in time
            renewed = renew(self.circuit, ticket, self.now + ns + LEASE)
            if renewed is None:
                del self.flying[ticket]
            else:
                self.circuit = renewed
        self.now += ns
        self.crashed = {ticket: until for ticket, until in self.crashed.items() if until > self.now}

    @rule()
    def a_call_asks(self) -> None:
        before = self.circuit
        expected = wait_ns(before, OPTIONS, self.now)
        self.circuit, ticket = admit(before, OPTIONS, self.now, LEASE)
        assert (ticket is not None) == (expected == 0)
        if before.state == "closed":
            assert ticket == Ticket(before.epoch)
        elif ticket is None:
            assert self.circuit is before or before.state == "open"
        else:
            assert self.now >= self.must_stay_open_until and ticket.number
            self.flying[ticket] = self.now

    @rule(jitter=st.floats(0, 1, exclude_max=True))
    @precondition(lambda self: self.circuit.state == "closed")
    def too_many_calls_fail(self, jitter: float) -> None:
        self._opens(opened(self.circuit, OPTIONS, self.now, jitter))

    @rule(data=st.data(), outcome=st.sampled_from(["success", "success", "failure", "suspicion", None]), slow=st.booleans())
    @precondition(lambda self: self.flying)
    def a_probe_ends(self, data: st.DataObject, outcome: Outcome | None, slow: bool) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.flying, key=lambda each: each.number)))
        del self.flying[ticket]
        before = self.circuit
        self.circuit, why = probed(before, OPTIONS, ticket, outcome, slow)
        current = before.state == "half_open" and ticket.epoch == before.epoch
        if not current:
            assert self.circuit is before and not why
        elif why:
            assert outcome == "failure" or (outcome == "suspicion" and not before.passed) or (slow and outcome)
            self._opens(opened(self.circuit, OPTIONS, self.now, 0.5))
        elif self.circuit.state == "closed":
            assert before.passed == OPTIONS.probes - 1 and outcome == "success"

    @rule(data=st.data())
    @precondition(lambda self: self.flying)
    def a_client_leaves(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.flying, key=lambda each: each.number)))
        del self.flying[ticket]
        before = self.circuit
        self.circuit = give_back(before, ticket)
        assert self.circuit.state == before.state and self.circuit.passed == before.passed

    @rule(data=st.data())
    @precondition(lambda self: self.flying)
    def a_process_crashes(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.flying, key=lambda each: each.number)))
        del self.flying[ticket]
        self.crashed[ticket] = next((place.until_ns for place in self.circuit.places if place.ticket == ticket.number), 0)

    @rule(after=st.sampled_from([0, SECOND, 30 * SECOND, 10**18]))
    @precondition(lambda self: self.circuit.state != "half_open")
    def the_upstream_asks_to_be_left_alone(self, after: int) -> None:
        self.circuit = asked(self.circuit, self.now, after)
        self.must_stay_open_until = max(self.must_stay_open_until, self.now + min(after, LONGEST_ASKED_NS))
        if self.circuit.state == "open":
            assert self.circuit.until_ns >= self.must_stay_open_until

    def _opens(self, after: Circuit) -> None:
        self.circuit = after
        self.must_stay_open_until = max(after.asked_until_ns, self.now + OPTIONS.cooldown_ns)

    @invariant()
    def never_more_probes_at_once_than_allowed(self) -> None:
        current = [ticket for ticket in self.flying if self.circuit.state == "half_open" and ticket.epoch == self.circuit.epoch]
        assert len(current) <= OPTIONS.probes
        assert len(self.circuit.places) <= OPTIONS.probes

    @invariant()
    def a_crashed_probe_gives_its_place_back_after_its_lease(self) -> None:
        if self.circuit.state == "half_open":
            living = [place for place in self.circuit.places if place.until_ns > self.now]
            mine = {ticket.number for ticket in (*self.flying, *self.crashed)}
            assert {place.ticket for place in living} <= mine

    @invariant()
    def an_open_one_lasts_as_long_as_it_was_asked_to(self) -> None:
        if self.circuit.state == "open":
            assert self.circuit.until_ns >= self.must_stay_open_until


TestInterleavings = Interleavings.TestCase


@pytest.mark.parametrize(
    ("outcome", "slow", "why"),
    [
        ("failure", False, "a probe failed"),
        ("failure", True, "a probe failed"),
        ("suspicion", False, "a probe failed"),
        ("success", True, "a probe was slow"),
        ("success", False, ""),
        (None, True, ""),
        (None, False, ""),
    ],
)
def test_what_a_probe_says(outcome: Outcome | None, slow: bool, why: str) -> None:
    circuit, ticket = half_open()
    after, found = probed(circuit, OPTIONS, ticket, outcome, slow)
    assert found == why and not after.places
    assert after.passed == (outcome == "success" and not slow)


def test_a_success_refutes_the_suspicion_of_a_later_probe() -> None:
    circuit, first = half_open()
    circuit, second = admit(circuit, OPTIONS, 20 * SECOND, LEASE)
    assert second is not None
    circuit, _ = probed(circuit, OPTIONS, first, "success", False)
    assert probed(circuit, OPTIONS, second, "suspicion", False)[1] == ""


def half_open() -> tuple[Circuit, Ticket]:
    circuit, ticket = admit(opened(CLOSED, OPTIONS, 0, 0), OPTIONS, 20 * SECOND, LEASE)
    assert ticket is not None and circuit.state == "half_open"
    return circuit, ticket


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=12))
def test_each_probe_that_fails_doubles_the_cooldown_up_to_its_cap(jitters: list[float]) -> None:
    circuit, now = opened(CLOSED, OPTIONS, 0, jitters[0]), 0
    for number in range(len(jitters)):
        least = min(OPTIONS.longest_cooldown_ns, OPTIONS.cooldown_ns * 2**number)
        assert least <= circuit.until_ns - now <= least * 1.1
        now = circuit.until_ns
        circuit, ticket = admit(circuit, OPTIONS, now, LEASE)
        assert ticket is not None
        circuit, why = probed(circuit, OPTIONS, ticket, "failure", False)
        following = jitters[(number + 1) % len(jitters)]
        assert why
        circuit = opened(circuit, OPTIONS, now, following)


def test_a_cooldown_is_never_shorter_than_configured_nor_longer_than_64_bits_hold() -> None:
    assert cooldown_ns(BreakerOptions(cooldown_ns=10 * SECOND, longest_cooldown_ns=SECOND), 0, 0) == 10 * SECOND
    assert cooldown_ns(BreakerOptions(longest_cooldown_ns=3_153_600_000 * SECOND), 10**9, 0.999) < 2**62


counts = st.builds(
    lambda calls, failures, suspicions, slow, sources: Counts(
        calls, min(failures, calls), min(suspicions, calls), min(slow, calls), sources
    ),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 7),
)
options = st.builds(
    BreakerOptions,
    failure_rate=st.integers(1, 100),
    slow_rate=st.integers(1, 100),
    minimum_calls=st.integers(1, 30),
    slow_call_ns=st.sampled_from([None, SECOND]),
)


@example(BreakerOptions(failure_rate=50), "model", Counts(10, 5))
@example(BreakerOptions(slow_rate=80, slow_call_ns=SECOND), "tool", Counts(10, 0, 0, 8))
@example(BreakerOptions(), "provider", Counts(10, 0, 10, 0, 0b11))
@example(BreakerOptions(), "provider", Counts(10, 0, 10, 0, 0b10))
@given(options, st.sampled_from(KINDS), counts)
def test_it_opens_exactly_when_enough_calls_failed_or_were_slow(wanted: BreakerOptions, kind: BreakerKind, seen: Counts) -> None:
    failed = seen.calls > 0 and Fraction(seen.failures, seen.calls) >= Fraction(wanted.failure_rate, 100)
    slow = wanted.slow_call_ns is not None and seen.calls > 0 and Fraction(seen.slow, seen.calls) >= Fraction(wanted.slow_rate, 100)
    suspects = bin(seen.sources).count("1")
    nothing_else = seen.suspicions > 0 and seen.failures + seen.suspicions == seen.calls and suspects >= 2
    opens = seen.calls >= wanted.minimum_calls and (failed or slow or nothing_else)
    assert bool(why_open(wanted, kind, seen)) == opens


def test_an_innocent_passes_what_others_are_suspected_for_and_its_end_clears_or_condemns() -> None:
    suspected = opened(CLOSED, OPTIONS, 0, 0, suspects=0b011)
    assert is_innocent(suspected, 0b100) and not is_innocent(suspected, 0b010)
    assert not is_innocent(opened(CLOSED, OPTIONS, 0, 0), 0b100) and not is_innocent(CLOSED, 0b100)
    assert after_innocent(suspected, 0b100, "success").state == "closed"
    assert after_innocent(suspected, 0b100, "suspicion").suspects == 0b111
    assert not is_innocent(after_innocent(suspected, 0b100, "failure"), 0b1000)
    assert after_innocent(suspected, 0b100, None) is suspected


@given(options, st.sampled_from(KINDS), counts)
def test_only_what_suspicions_alone_have_opened_has_innocents(wanted: BreakerOptions, kind: BreakerKind, seen: Counts) -> None:
    assume(seen.calls)
    failed = Fraction(seen.failures, seen.calls) >= Fraction(wanted.failure_rate, 100)
    assert suspects_of(wanted, kind, seen) == (0 if kind == "key" or failed else seen.sources)


def test_a_key_is_given_up_after_fewer_calls() -> None:
    assert BreakerOptions(minimum_calls=10).of_kind("key").minimum_calls == KEY_REJECTIONS
    assert BreakerOptions(minimum_calls=1).of_kind("key").minimum_calls == 1
    assert BreakerOptions(minimum_calls=10).of_kind("model").minimum_calls == 10


def test_isolations_are_found_by_name_and_the_last_of_a_name_counts() -> None:
    one, other = Isolation(name="openai", reason="first"), Isolation(name="openai", reason="second")
    both = Isolations([one]).with_isolation(Isolation(name="tool/crm")).with_isolation(other)
    assert both.first(("openai/gpt", "openai")) == other
    assert both.first(("openai/gpt",)) is None
    assert [each.name for each in both.without("openai").active] == ["tool/crm"]
