"""The promise, attacked: whatever two processes, the ledger, the clock and crashes do, no window ever holds more than its limit."""

from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from holdfast.clock import SECOND
from holdfast.errors import StorageError
from holdfast.execution.limiter import Ask, Limiter, Outcome, Reservation
from holdfast.policy.allowance import Window
from holdfast.policy.limit import Limit
from holdfast.testing import FakeClock
from holdfast.testing.ledger import AccountRows, MemoryLedger, MemorySlate

SLOT_NS = SECOND // 10
"""Shorter than the limiter's sweep: nobody tidies up behind a slice that has run out."""

LIMITS = (
    Limit(scope="all", unit="usd", amount=1_000, per_ns=60 * SLOT_NS),
    Limit(scope="agent", unit="calls", amount=7, per_ns=120 * SLOT_NS),
    Limit(scope="run", unit="usd", amount=2_500),
    Limit(scope="user", unit="usd", amount=300, per_ns=60 * SLOT_NS),
)
WHICH = st.sampled_from([0, 0, 0, 1])
LEAST = st.sampled_from([0, 1, 40, 100, 150])
EXTRA = st.sampled_from([0, 0, 0, 30, 400])
TIMES = st.sampled_from([1, 1, 3, 12])


class Seen:
    """One call as the provider saw it."""

    def __init__(self, wall_ns: int, monotonic_ns: int, usd: int) -> None:
        self.wall_ns = wall_ns
        self.monotonic_ns = monotonic_ns
        self.usd = usd
        self.calls = 1

    def amount(self, limit: Limit) -> int:
        return self.usd if limit.unit == "usd" else self.calls


class Process:
    """A limiter with its ledger; dies with everything that it holds."""

    def __init__(self, clock: FakeClock, rows: AccountRows, name: str) -> None:
        self.clock = clock
        self.ledger = MemoryLedger(clock, name, rows=rows)
        self.name = name
        self.slate = MemorySlate()
        self.limiter = Limiter(self.ledger, clock, self.slate)
        self.open: list[tuple[Reservation, Seen]] = []


class TwoProcesses(RuleBasedStateMachine):
    forward_steps = True

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.rows: AccountRows = {}
        self.started = 0
        self.processes = [self.start(), self.start()]
        self.dead: list[Process] = []
        self.seen: list[Seen] = []
        self.limits: list[Limit] = []

    def start(self) -> Process:
        self.started += 1
        return Process(self.clock, self.rows, f"process {self.started}")

    @initialize(limits=st.lists(st.sampled_from(LIMITS), min_size=1, max_size=2, unique=True))
    def choose(self, limits: list[Limit]) -> None:
        self.limits = limits

    @rule(which=WHICH, least=LEAST, extra=EXTRA, times=TIMES)
    def reserve(self, which: int, least: int, extra: int, times: int) -> None:
        process = self.processes[which]

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Reservation):
                assert least <= outcome.usd <= least + extra
                seen = Seen(self.clock.wall_ns(), self.clock.monotonic_ns(), outcome.usd)
                self.seen.append(seen)
                process.open.append((outcome, seen))

        for _ in range(times):
            process.limiter.reserve([(limit, "") for limit in self.limits], Ask(usd_least=least, usd_most=least + extra), done)

    @rule(which=WHICH, least=LEAST, extra=EXTRA, times=TIMES)
    def reserve_and_hear(self, which: int, least: int, extra: int, times: int) -> None:
        self.reserve(which, least, extra, times)
        for _ in range(3):
            self.clock.advance(self.processes[which].ledger.delay_ns)

    @rule(which=WHICH, percent=st.sampled_from([0, 30, 100]))
    def settle_all(self, which: int, percent: int) -> None:
        while self.processes[which].open:
            self.settle(which, 0, percent)

    @rule(which=WHICH, at=st.integers(0, 50), percent=st.integers(0, 100))
    def settle(self, which: int, at: int, percent: int) -> None:
        held = self.processes[which].open
        if held:
            reservation, seen = held.pop(at % len(held))
            seen.usd = reservation.usd * percent // 100
            assert reservation.settle(seen.usd, 0) == 0

    @rule(which=WHICH, at=st.integers(0, 50))
    def cancel(self, which: int, at: int) -> None:
        held = self.processes[which].open
        if held:
            reservation, seen = held.pop(at % len(held))
            seen.usd = seen.calls = 0
            reservation.cancel()
            reservation.settle(10, 0)

    @rule(slots=st.sampled_from([0, 0, 0, 1, 2, 58, 59, 60, 61, 120]), percent=st.sampled_from([0, 1, 50, 99]))
    def advance(self, slots: int, percent: int) -> None:
        self.clock.advance((slots * 100 + percent) * SLOT_NS // 100)

    @rule(slots=st.sampled_from([-120, -61, -60, -59, -2, -1, 0, 1, 2, 59, 60, 61]), percent=st.sampled_from([0, 1, 50, 99]))
    def step_wall(self, slots: int, percent: int) -> None:
        step = (slots * 100 + percent) * SLOT_NS // 100
        self.clock.step_wall(step if self.forward_steps else -abs(step))

    @rule(which=WHICH, percent=st.sampled_from([0, 0, 0, 1, 90, 250, 1_000]))
    def delay_the_ledger(self, which: int, percent: int) -> None:
        self.processes[which].ledger.delay_ns = percent * SLOT_NS // 100

    @rule(which=WHICH)
    def ask_a_broken_ledger(self, which: int) -> None:
        ledger = self.processes[which].ledger
        ledger.failing = StorageError("no")
        self.clock.advance(SLOT_NS // 2)
        ledger.failing = None

    @rule(which=WHICH)
    def crash(self, which: int) -> None:
        dead = self.processes[which]
        dead.ledger.crash()
        self.processes[which] = self.start()
        self.dead.append(dead)

    @rule(which=WHICH)
    def settle_what_the_dead_left(self, which: int) -> None:
        """As often as anybody likes: what was settled once is not settled differently the next time."""
        self.processes[which].ledger.recover([each.slate.remains(each.name) for each in self.dead], lambda _: None)

    @rule(which=WHICH)
    def restart(self, which: int) -> None:
        """A clean end; calls still open may have cost what they reserved."""
        process = self.processes[which]
        process.limiter.close(lambda _: None)
        self.clock.advance(process.ledger.delay_ns)
        self.processes[which] = self.start()

    @invariant()
    def no_window_holds_more_than_its_limit(self) -> None:
        for limit in self.limits:
            assert most_in_a_window(limit, [(seen.wall_ns, seen.amount(limit)) for seen in self.seen]) <= limit.amount
            if not self.forward_steps:
                assert most_in_a_window(limit, [(seen.monotonic_ns, seen.amount(limit)) for seen in self.seen]) <= limit.amount

    @invariant()
    def nothing_leaves_the_ledger_before_it_has_left_the_window(self) -> None:
        for limit in self.limits:
            window = Window.of(limit.per_ns)
            seen = [(window.slot(each.wall_ns), each.amount(limit)) for each in self.seen]
            rows = [(slot, amount) for (slot, _), amount in self.rows.get(limit.account(""), {}).items()]
            for since, _ in seen:
                assert sum(amount for slot, amount in seen if slot >= since) <= sum(amount for slot, amount in rows if slot >= since)


class TwoProcessesWhoseClockOnlyStepsBack(TwoProcesses):
    """Then the promise holds in true time too: a step back reopens nothing."""

    forward_steps = False


def most_in_a_window(limit: Limit, amounts: list[tuple[int, int]]) -> int:
    if limit.per_ns is None:
        return sum(amount for _, amount in amounts)
    return max((sum(a for t, a in amounts if begin <= t < begin + limit.per_ns) for begin, _ in amounts), default=0)


@pytest.mark.parametrize("seed", range(60))
def test_the_promise_holds_over_a_long_random_life(seed: int) -> None:
    random = Random(seed)
    world = random.choice([TwoProcesses, TwoProcessesWhoseClockOnlyStepsBack])()
    world.choose(limits=random.sample(LIMITS, random.choice([1, 1, 2])))
    steps_are_rare = random.random() < 0.5
    for step in range(250):
        which = random.choice([0, 0, 0, 1])
        wish = {"which": which, "least": random.choice([0, 1, 40, 100, 150]), "extra": random.choice([0, 0, 30, 400])}
        acts: list[tuple[int, Callable[[], None]]] = [
            (30, partial(world.reserve_and_hear, times=random.choice([1, 2, 12]), **wish)),
            (8, partial(world.reserve, times=random.choice([1, 12]), **wish)),
            (15, partial(world.settle, which=which, at=random.randrange(50), percent=random.choice([0, 30, 100]))),
            (8, partial(world.settle_all, which=which, percent=random.choice([0, 0, 30, 100]))),
            (3, partial(world.cancel, which=which, at=random.randrange(50))),
            (30, partial(world.advance, slots=random.choice([0, 0, 0, 1, 1, 2, 58, 60]), percent=random.choice([0, 1, 50, 99]))),
            (
                1 if steps_are_rare else 8,
                partial(world.step_wall, slots=random.choice([-60, -2, -1, 0, 1, 60]), percent=random.randrange(100)),
            ),
            (3, partial(world.delay_the_ledger, which=which, percent=random.choice([0, 0, 0, 1, 90, 250]))),
            (1, partial(world.ask_a_broken_ledger, which=which)),
            (1, partial(world.crash, which=which)),
            (1, partial(world.settle_what_the_dead_left, which=which)),
            (1, partial(world.restart, which=which)),
        ]
        random.choices([act for _, act in acts], [weight for weight, _ in acts])[0]()
        if step % 5 == 0:
            world.nothing_leaves_the_ledger_before_it_has_left_the_window()
    world.no_window_holds_more_than_its_limit()


TestTwoProcesses = TwoProcesses.TestCase
TestTwoProcesses.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestTwoProcessesWhoseClockOnlyStepsBack = TwoProcessesWhoseClockOnlyStepsBack.TestCase
TestTwoProcessesWhoseClockOnlyStepsBack.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
