"""Who may wait, and whose turn it is."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.clock import SECOND
from holdfast.policy.waiting_line import HEAD_START_NS, Priority, QueueBounds, Ticket, WaitingLine, WaitingRoom, rank_of

HIGH, NORMAL, LOW = range(3)
BOUNDS = QueueBounds(calls=6, bytes=60)
tickets = st.builds(Ticket, st.sampled_from("abc"), st.integers(HIGH, LOW), st.integers(0, 30), st.integers(0, 100 * SECOND))


def ticket(agent: str = "a", rank: int = NORMAL, size: int = 1, came_s: int = 0, *, returned: bool = False) -> Ticket:
    made = Ticket(agent, rank, size, came_s * SECOND)
    made.returned = returned
    return made


def room_of(*waiting: Ticket, bounds: QueueBounds = BOUNDS) -> WaitingRoom:
    room = WaitingRoom(bounds)
    for each in waiting:
        room.add(each)
    return room


def order(*waiting: Ticket) -> list[Ticket]:
    line = WaitingLine()
    for each in waiting:
        line.add(each)
    found = []
    while line:
        found.append(line.first())
        line.remove(found[-1])
    return found


@pytest.mark.parametrize(
    ("asked", "most", "rank"),
    [
        ("", "normal", NORMAL),
        ("low", "normal", LOW),
        ("high", "normal", NORMAL),
        ("high", "high", HIGH),
        ("normal", "low", LOW),
        ("urgent", "high", HIGH),
    ],
)
def test_an_agent_may_lower_its_priority_and_never_raise_it(asked: str, most: Priority, rank: int) -> None:
    assert rank_of(asked, most) == rank


def test_agents_take_turns_however_many_calls_one_of_them_has() -> None:
    noisy = [ticket("noisy") for _ in range(5)]
    quiet = [ticket("quiet") for _ in range(2)]
    assert order(*noisy, *quiet) == [noisy[0], quiet[0], noisy[1], quiet[1], *noisy[2:]]


def test_the_more_urgent_go_first_but_not_before_those_who_have_waited_long_enough() -> None:
    early, late = ticket(rank=HIGH, came_s=10), ticket(rank=HIGH, came_s=40)
    middle, patient = ticket("b", NORMAL, came_s=1), ticket("c", LOW, came_s=0)
    assert HEAD_START_NS == 15 * SECOND
    assert order(patient, middle, late, early) != [early, middle, patient, late]  # `late` stands before `early` in its agent's line
    assert order(patient, middle, early, late) == [early, middle, patient, late]


@given(st.lists(tickets, max_size=40))
def test_everybody_gets_a_turn_exactly_once_and_each_agent_in_its_order(waiting: list[Ticket]) -> None:
    found = order(*waiting)
    assert Counter(found) == Counter(waiting)
    for agent in "abc":
        for rank in range(3):
            own = [each for each in waiting if (each.agent, each.rank) == (agent, rank)]
            assert [each for each in found if each in own] == own


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_no_agent_is_let_out_twice_while_another_of_its_priority_waits(agents: list[str]) -> None:
    found = order(*(ticket(agent) for agent in agents))
    for at, (one, two) in enumerate(pairwise(found)):
        if one.agent == two.agent:
            assert all(later.agent == one.agent for later in found[at + 1 :])


@settings(deadline=None)
@given(st.lists(tickets, max_size=40), st.integers(1, 100))
def test_a_flood_of_urgent_calls_holds_nobody_up_for_longer_than_their_head_start(waiting: list[Ticket], every_s: int) -> None:
    """With an urgent call arriving at every turn, one of low priority goes before all that came 30 s after those of its own class."""
    patient = ticket("patient", LOW, came_s=0)
    line = WaitingLine()
    for each in sorted(waiting, key=lambda each: each.came_ns):
        line.add(each)
    line.add(patient)
    passed = []
    for turn in range(400):
        line.add(ticket("flood", HIGH, came_s=turn * every_s))
        passed.append(line.first())
        line.remove(passed[-1])
        if passed[-1] is patient:
            break
    assert passed[-1] is patient
    newest_s = max([each.came_ns for each in waiting if each.rank == LOW], default=0)  # of agents that may be ahead of it
    assert all(each.came_ns <= newest_s + 2 * HEAD_START_NS for each in passed if each.agent == "flood")


def test_a_full_room_lets_nobody_in_but_the_more_urgent_for_whom_the_newest_of_the_lowest_leaves() -> None:
    first, second = ticket("a", LOW), ticket("b", LOW)
    room = room_of(first, second, *(ticket(agent) for agent in "ab"), bounds=QueueBounds(calls=4))
    assert room.displaced_by(ticket("a", LOW)) is None
    assert room.displaced_by(ticket("c", NORMAL)) == [second]
    assert room.displaced_by(ticket("c", HIGH)) == [second]
    normals = room_of(*(oldest := [ticket(agent) for agent in "aabb"]), bounds=QueueBounds(calls=4))
    assert normals.displaced_by(ticket("a", NORMAL)) is None
    assert normals.displaced_by(ticket("c", HIGH)) == [oldest[-1]]


def test_who_was_let_out_in_vain_gets_its_place_back_from_the_newest_of_its_priority() -> None:
    room = room_of(*(waiting := [ticket(agent) for agent in "aabbcc"]))
    assert room.displaced_by(ticket("d", returned=True)) == [waiting[-1]]
    assert room.displaced_by(ticket("d", LOW, returned=True)) is None


def test_one_agent_may_fill_the_room_and_gives_way_to_others_until_the_shares_are_equal() -> None:
    room = room_of(*(noisy := [ticket("noisy") for _ in range(6)]))
    assert room.displaced_by(ticket("noisy")) is None
    assert room.displaced_by(ticket("noisy", HIGH)) == [noisy[5]]
    for left in (5, 4, 3):
        arriving = ticket("quiet")
        assert room.displaced_by(arriving) == [noisy[left]]
        room.remove(noisy[left])
        room.add(arriving)
    assert room.displaced_by(ticket("quiet")) is None


def test_a_less_urgent_call_displaces_nobody_and_an_agent_beyond_its_share_only_its_own() -> None:
    own = [ticket("a", LOW), *(ticket("a") for _ in range(4))]
    room = room_of(*own, ticket("b", LOW))
    assert room.displaced_by(ticket("c", LOW)) == [own[0]]
    assert room.displaced_by(ticket("a")) == [own[0]]
    assert room.displaced_by(ticket("a", LOW)) is None
    assert room_of(*own[1:], ticket("b"), ticket("b")).displaced_by(ticket("c", LOW)) is None


def test_bytes_are_bounded_and_shared_like_calls() -> None:
    room = room_of(large := ticket("a", size=40), ticket("a", size=0), ticket("b", size=15))
    assert room.displaced_by(ticket("b", size=5)) == []
    assert room.displaced_by(ticket("b", size=6)) == [large]
    assert room.displaced_by(ticket("b", size=16)) is None
    assert room.displaced_by(ticket("a", size=6)) is None
    assert room.displaced_by(ticket("c", HIGH, size=61)) is None
    others = [ticket("b", size=28), *(ticket("a", size=8) for _ in range(4))]
    assert room_of(*others).displaced_by(ticket("c", size=20)) == [others[4], others[3], others[0]]


@given(st.lists(st.tuples(tickets, st.booleans(), st.integers(0, 5)), max_size=60))
def test_the_bounds_are_never_passed_and_nobody_is_displaced_without_a_reason(steps: list[tuple[Ticket, bool, int]]) -> None:
    room = room_of()
    inside: list[Ticket] = []
    for arriving, returned, leaving in steps:
        arriving.returned = returned
        agents = {arriving.agent, *(each.agent for each in inside)}
        displaced = room.displaced_by(arriving)
        for other in displaced or ():
            own = [each for each in inside if each.agent == other.agent]
            beyond = len(own) > BOUNDS.calls // len(agents) or sum(each.size for each in own) > BOUNDS.bytes // len(agents)
            assert other.rank > arriving.rank or (other.rank == arriving.rank and (returned or beyond))
            room.remove(other)
            inside.remove(other)
        if displaced is not None:
            room.add(arriving)
            inside.append(arriving)
        if leaving < len(inside):
            room.remove(inside.pop(leaving))
        assert (room.calls, room.bytes) == (len(inside), sum(each.size for each in inside))
        assert room.calls <= BOUNDS.calls and room.bytes <= BOUNDS.bytes
        assert room.by_agent() == Counter(each.agent for each in inside)
        assert set(room) == set(inside)
