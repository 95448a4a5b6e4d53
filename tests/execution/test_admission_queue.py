"""Calls that wait until one of their targets may be worth trying again."""

from collections import Counter
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from holdfast.clock import MILLISECOND, SECOND
from holdfast.execution.admission_queue import AdmissionQueue, Outcome, Place
from holdfast.policy.slow_start import LARGEST_ROUND, ROUND_NS
from holdfast.policy.waiting_line import QueueBounds
from holdfast.testing import FakeClock

NORMAL = 1
MINUTE = 60 * SECOND


class World:
    """A queue under a test's hand, and what its calls have heard, with when."""

    def __init__(self, bounds: QueueBounds = QueueBounds(), jitter: float = 0.5) -> None:  # noqa: B008 - frozen
        self.clock = FakeClock()
        self.queue = AdmissionQueue(self.clock, lambda: jitter, bounds)
        self.heard: list[tuple[Place, Outcome, int]] = []
        self.then: Callable[[Place], None] = lambda place: None

    def arrive(self, *keys: str, agent: str = "a", rank: int = NORMAL, size: int = 1, wait_ns: int = MINUTE) -> Place:
        place = Place(agent, rank, size, self.clock.monotonic_ns())
        self.wait(place, *keys, until_ns=self.clock.monotonic_ns() + wait_ns, tried=False)
        return place

    def wait(self, place: Place, *keys: str, until_ns: int, tried: bool = True, cooldown_ns: int = 0) -> None:
        def done(outcome: Outcome) -> None:
            self.heard.append((place, outcome, self.clock.monotonic_ns()))
            if outcome == "go":
                self.then(place)

        self.queue.wait(place, dict.fromkeys(keys or ("m",), cooldown_ns), until_ns, done, tried=tried)

    def answered(self, key: str = "m") -> None:
        self.queue.recovered(key, self.clock.monotonic_ns())

    def failed(self, key: str = "m", cooldown_ns: int = 0) -> None:
        self.queue.failed(key, self.clock.monotonic_ns(), cooldown_ns)

    def out(self) -> list[Place]:
        return [place for place, outcome, _ in self.heard if outcome == "go"]

    def answering(self, key: str = "m") -> None:
        """From now on whoever is let out gets an answer at once, and ends."""

        def answer(place: Place) -> None:
            self.answered(key)
            self.queue.leave(place, tried=True)

        self.then = answer


def test_one_goes_out_as_a_probe_and_the_others_follow_in_growing_rounds_once_it_was_answered() -> None:
    world = World()
    places = [world.arrive() for _ in range(20)]
    world.clock.advance(SECOND)
    assert world.out() == places[:1]
    world.answering()
    world.answered()
    world.clock.advance(10 * ROUND_NS)
    assert world.out() == places
    assert [*Counter(at for _, _, at in world.heard).items()] == [
        (SECOND // 2, 1),
        *((SECOND + at * ROUND_NS, calls) for at, calls in enumerate([1, 2, 4, 8, 4])),
    ]


def test_while_probes_fail_the_others_go_on_waiting_and_the_probe_comes_back_behind_them() -> None:
    world = World()
    first, second = world.arrive(), world.arrive()
    world.clock.advance(SECOND // 2)
    assert world.out() == [first]
    world.failed()
    world.wait(first, until_ns=MINUTE)
    world.clock.advance(SECOND)
    assert world.out() == [first, second]
    assert world.queue.waiting == 1


def test_a_call_that_failed_stands_aside_for_its_own_back_off() -> None:
    world = World()
    poison = Place("a", NORMAL, 1, 0)
    world.wait(poison, until_ns=MINUTE)
    assert not world.queue.holds_back(["m"])  # nobody stands in line: who comes now may try
    world.answered()
    healthy = [world.arrive(), world.arrive()]
    assert world.out() == healthy[:1]
    assert world.queue.holds_back(["m"])
    world.clock.advance(SECOND // 2 - 1)
    assert world.out() == healthy
    world.clock.advance(1)
    assert world.out() == [*healthy, poison]


def test_whoever_waits_for_several_targets_goes_as_soon_as_one_of_them_is_back() -> None:
    world = World()
    both, other = world.arrive("m", "n"), world.arrive("m")
    world.answered("n")
    assert world.out() == [both]
    assert world.queue.waiting == 1
    world.queue.leave(both, tried=True)
    assert not world.queue.holds_back(["n"])
    assert world.queue.holds_back(["m"]) and not world.queue.holds_back(["m", "n"])
    world.answered("m")
    assert world.out() == [both, other]


def test_who_has_waited_as_long_as_it_may_is_told_and_when_to_come_again() -> None:
    world = World()
    place = world.arrive(wait_ns=3 * SECOND)
    world.queue.failed("m", 0, 20 * SECOND)
    world.clock.advance(3 * SECOND - 1)
    assert world.heard == []
    world.clock.advance(1)
    assert world.heard == [(place, "late", 3 * SECOND)]
    assert (place.waited_ns, place.retry_after_ns) == (3 * SECOND, 17 * SECOND)
    assert (world.queue.waiting, world.clock.pending) == (0, 0)


def test_no_hope_where_every_target_asked_to_be_left_alone_for_longer_than_the_call_may_wait() -> None:
    world = World()
    assert not world.queue.is_hopeful({}, MINUTE)
    assert not world.queue.is_hopeful({"m": MINUTE}, MINUTE)
    assert world.queue.is_hopeful({"m": MINUTE, "n": 0}, MINUTE)
    world.arrive("n")
    world.failed("n", 2 * MINUTE)
    assert not world.queue.is_hopeful({"m": MINUTE, "n": 0}, MINUTE)


def test_a_cooldown_is_kept() -> None:
    world = World()
    first, _ = world.arrive(), world.arrive()
    world.failed(cooldown_ns=20 * SECOND)
    world.clock.advance(20 * SECOND - 1)
    assert world.out() == []
    world.clock.advance(1)
    assert world.out() == [first]


def test_a_client_that_leaves_is_out_at_once_and_leaves_nothing_behind() -> None:
    world = World()
    gone, stays = world.arrive("m", "n"), world.arrive("m")
    world.queue.leave(gone, tried=False)
    world.queue.leave(gone, tried=False)
    assert world.queue.by_agent() == {"a": 1}
    world.clock.advance(SECOND)
    assert world.out() == [stays]
    world.queue.leave(stays, tried=True)
    assert (world.clock.pending, world.queue.awaited) == (0, {})


def test_a_probe_whose_call_ended_without_trying_makes_room_for_the_next_at_once() -> None:
    world = World()
    places = [world.arrive(agent=str(at)) for at in range(800)]
    world.then = lambda place: world.queue.leave(place, tried=place is places[-1])
    world.clock.advance(SECOND // 2)
    assert world.out() == places


def test_a_call_that_is_not_let_through_after_all_waits_without_storming() -> None:
    world = World()
    place = world.arrive()
    world.then = lambda place: world.wait(place, until_ns=MINUTE, tried=False)
    world.clock.advance(10 * SECOND)
    assert len(world.out()) == 20
    world.answered()
    world.clock.advance(ROUND_NS)
    assert len(world.out()) == 21
    assert place.waiting


def test_a_full_queue_refuses_and_the_more_urgent_take_the_place_of_the_newest() -> None:
    world = World(QueueBounds(calls=2))
    places = [world.arrive() for _ in range(3)]
    assert [(place, outcome) for place, outcome, _ in world.heard] == [(places[2], "full")]
    assert places[2].retry_after_ns == SECOND
    world.arrive(rank=0)
    assert [(place, outcome) for place, outcome, _ in world.heard[1:]] == [(places[1], "full")]
    assert world.queue.waiting == 2


def test_a_probe_that_failed_does_not_lose_its_place_to_those_who_came_meanwhile() -> None:
    world = World(QueueBounds(calls=1))
    first = world.arrive()
    world.clock.advance(SECOND // 2)
    newcomer = world.arrive()
    world.failed()
    world.wait(first, until_ns=MINUTE)
    assert [(place, outcome) for place, outcome, _ in world.heard] == [(first, "go"), (newcomer, "full")]
    assert first.waiting


def test_at_the_end_of_the_process_nobody_waits_any_more() -> None:
    world = World()
    places = [world.arrive() for _ in range(3)]
    world.queue.close()
    places.append(world.arrive())
    assert [(place, outcome) for place, outcome, _ in world.heard] == [(place, "closing") for place in places]
    assert world.clock.pending == 0


def test_agents_take_turns_while_a_flood_of_one_of_them_waits() -> None:
    world = World()
    for _ in range(100):
        world.arrive(agent="noisy")
    for _ in range(5):
        world.arrive(agent="quiet")
    world.answering()
    world.answered()
    world.clock.advance(5 * ROUND_NS)
    assert [place.agent for place in world.out()[:10]] == ["noisy", "quiet"] * 5


BOUNDS = QueueBounds(calls=8, bytes=100)
PAUSES = [0, 1, 10 * MILLISECOND, ROUND_NS, SECOND, 7 * SECOND]
events = st.sampled_from(["answered", "failed", "cool down", "leave"])


class Arrival(Struct, frozen=True):
    agent: str
    rank: int
    size: int
    keys: tuple[str, ...]


arrivals = st.builds(Arrival, st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 20), st.sampled_from([("m",), ("n",), ("m", "n")]))


class Fates(World):
    """Calls that are let out end, come back without having tried, or come back after a failure."""

    def __init__(self, fate: str) -> None:
        super().__init__(BOUNDS)
        self.places: list[Place] = []
        self.then = {"end": self._end, "back": self._come_back, "fail": self._fail}[fate]

    def come(self, what: Arrival) -> None:
        now = self.clock.monotonic_ns()
        place = Place(what.agent, what.rank, what.size, now)
        self.places.append(place)
        self.wait(place, *what.keys, until_ns=now + 10 * SECOND, tried=False)

    def happen(self, what: str, key: str, number: int) -> None:
        if what == "leave":
            for place in self.places[number : number + 1]:
                self.queue.leave(place, tried=False)
        else:
            {
                "answered": lambda: self.answered(key),
                "failed": lambda: self.failed(key),
                "cool down": lambda: self.failed(key, 3 * SECOND),
            }[what]()

    def check(self) -> None:
        waiting = [place for place in self.places if place.waiting]
        assert self.queue.waiting == len(waiting) <= BOUNDS.calls
        assert sum(place.size for place in waiting) <= BOUNDS.bytes
        assert self.queue.by_agent() == Counter(place.agent for place in waiting)

    def _end(self, place: Place) -> None:
        self.queue.leave(place, tried=True)

    def _come_back(self, place: Place) -> None:
        self.wait(place, "m", until_ns=place.until_ns, tried=False)

    def _fail(self, place: Place) -> None:
        self.failed()
        self.wait(place, "m", until_ns=place.until_ns)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(arrivals, st.tuples(events, st.sampled_from("mn"), st.integers(0, 30))), st.sampled_from(PAUSES)), max_size=60
    ),
    st.sampled_from(["end", "back", "fail"]),
)
def test_nobody_is_lost_or_answered_twice_and_every_bound_holds(steps: list[tuple[Arrival | tuple[str, str, int], int]], fate: str) -> None:
    world = Fates(fate)
    for what, pause in steps:
        if isinstance(what, Arrival):
            world.come(what)
        else:
            world.happen(*what)
        world.check()
        world.clock.advance(pause)
    world.clock.advance(10 * SECOND)
    assert not any(place.waiting for place in world.places)
    ends = Counter(place for place, outcome, _ in world.heard if outcome != "go")
    assert all(count == 1 for count in ends.values())
    assert all(at <= place.until_ns for place, _, at in world.heard)
    for place in world.places:
        world.queue.leave(place, tried=True)
    assert (world.queue.waiting, world.clock.pending, world.queue.awaited) == (0, 0, {})


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["answered", "failed", "arrive", "arrive 50"]), st.sampled_from(PAUSES)), max_size=60))
def test_the_release_never_exceeds_its_rate(steps: list[tuple[str, int]]) -> None:
    world = World()
    for what, pause in steps:
        if what == "answered":
            world.answered()
        elif what == "failed":
            world.failed()
        else:
            for _ in range(50 if what == "arrive 50" else 1):
                world.arrive(wait_ns=20 * SECOND)
        world.clock.advance(pause)
    out = [at for _, outcome, at in world.heard if outcome == "go"]
    for begin in out:
        assert sum(begin <= at < begin + ROUND_NS for at in out) <= 2 * LARGEST_ROUND
        assert sum(begin <= at < begin + SECOND for at in out) <= (SECOND // ROUND_NS + 1) * LARGEST_ROUND


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 50), st.floats(0, 1, exclude_max=True))
def test_once_a_target_answers_everybody_is_let_out_in_time(waiting: int, outage_s: int, jitter: float) -> None:
    world = World(jitter=jitter)

    def fail(place: Place) -> None:
        world.failed()
        world.wait(place, until_ns=10 * MINUTE)

    world.then = fail
    places = [world.arrive(wait_ns=10 * MINUTE) for _ in range(waiting)]
    world.clock.advance(outage_s * SECOND)
    world.answering()
    world.clock.advance(MINUTE)
    assert set(world.out()) == set(places)
    assert (world.queue.waiting, world.clock.pending) == (0, 0)
