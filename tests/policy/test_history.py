"""Conversations are told apart by what was said, however many begin alike."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.history import Conversations, OwnPlaces, Places, Remembered
from holdfast.wire.call import Turn
from holdfast.wire.canonical import turn

Make = Callable[..., list[Places]]

SYSTEM = turn("system", ["be brief"])


def say(role: str, text: str) -> Turn:
    return turn(role, [text])


@pytest.fixture
def known(places_of_workers: Make) -> Conversations:
    return Conversations(places_of_workers()[0])


scripts = st.lists(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), min_size=1, max_size=5),  # (what the user says, what is answered)
    min_size=1,
    max_size=8,
)


@given(scripts=scripts, order=st.randoms(use_true_random=False))
def test_every_conversation_is_one_interaction_in_any_interleaving_whichever_worker_is_asked(
    scripts: list[list[tuple[str, str]]], order, places_of_workers: Make
) -> None:
    workers = [Conversations(places) for places in places_of_workers(2)]
    histories: list[list[Turn]] = [[SYSTEM] for _ in scripts]
    sizes: dict[str, int] = {}
    steps = [who for who, script in enumerate(scripts) for _ in script]
    order.shuffle(steps)
    done = [0] * len(scripts)
    for number, who in enumerate(steps):
        asked, answered = scripts[who][done[who]]
        done[who] += 1
        histories[who].append(say("user", asked))
        known = order.choice(workers)
        claim = known.claim("agent", histories[who], f"new-{number}")
        sizes[claim.interaction] = sizes.get(claim.interaction, 0) + 1
        answer = say("assistant", answered)
        known.answered(claim, [answer], f"decision-{number}")
        histories[who].append(answer)
    assert len(sizes) == len(scripts)
    assert sum(sizes.values()) == len(steps)


def test_two_equal_conversations_at_once_stay_two(known: Conversations) -> None:
    first = [SYSTEM, say("user", "hello")]
    claims = [known.claim("agent", first, f"new-{n}") for n in range(2)]
    answer = say("assistant", "hi")
    for number, claim in enumerate(claims):
        known.answered(claim, [answer], f"decision-{number}")
    second = [*first, answer, say("user", "go on")]
    assert {known.claim("agent", second, "other").interaction for _ in range(2)} == {"new-0", "new-1"}


def test_a_branch_of_a_continued_state_stays_in_its_interaction(known: Conversations) -> None:
    first = [say("user", "hello")]
    known.answered(known.claim("agent", first, "one"), [say("assistant", "hi")], "d1")
    for tail in ("go on", "go elsewhere"):
        branch = [*first, say("assistant", "hi"), say("user", tail)]
        assert known.claim("agent", branch, "other").interaction == "one"


def test_a_failed_request_sent_again_continues_where_it_was(known: Conversations) -> None:
    first = [say("user", "hello")]
    known.failed(known.claim("agent", first, "one"))
    again = known.claim("agent", first, "other")
    assert again.interaction == "one"
    known.answered(again, [say("assistant", "hi")], "d1")
    second = [*first, say("assistant", "hi"), say("user", "go on")]
    known.failed(known.claim("agent", second, "other"))
    retried = known.claim("agent", second, "other")
    assert (retried.interaction, retried.inherited) == ("one", 1)
    assert retried.continues is not None
    assert retried.continues.decision == "d1"


def test_after_a_failure_only_the_next_call_that_begins_alike_is_its_repetition(known: Conversations) -> None:
    first = [say("user", "hello")]
    known.failed(known.claim("agent", first, "one"))
    for name, expected in (("two", "one"), ("three", "three"), ("four", "four")):
        claim = known.claim("agent", first, name)
        assert claim.interaction == expected
        known.answered(claim, [say("assistant", "hi")], "d")


def test_a_system_prompt_with_the_time_of_day_does_not_split_a_conversation(known: Conversations) -> None:
    history = [say("system", "it is 12:00"), say("user", "hello")]
    known.answered(known.claim("agent", history, "one"), [say("assistant", "hi")], "d1")
    later = [say("system", "it is 12:01"), *history[1:], say("assistant", "hi"), say("user", "go on")]
    claim = known.claim("agent", later, "other")
    assert (claim.interaction, claim.inherited) == ("one", 0), "nothing is inherited, for the record must hold the new prompt"


def test_equal_states_under_different_system_prompts_are_told_apart(known: Conversations) -> None:
    for prompt in ("red", "blue"):
        known.answered(known.claim("agent", [say("system", prompt), say("user", "hello")], prompt), [say("assistant", "hi")], "d")
    for prompt in ("red", "blue"):
        history = [say("system", prompt), say("user", "hello"), say("assistant", "hi"), say("user", "on")]
        assert known.claim("agent", history, "other").interaction == prompt


def test_agents_do_not_share_conversations(known: Conversations) -> None:
    history = [say("user", "hello")]
    known.answered(known.claim("one agent", history, "one"), [say("assistant", "hi")], "d1")
    longer = [*history, say("assistant", "hi"), say("user", "go on")]
    assert known.claim("another agent", longer, "two").interaction == "two"


def test_an_interaction_given_from_outside_wins_and_still_inherits(known: Conversations) -> None:
    history = [say("user", "hello")]
    known.answered(known.claim("agent", history, "given", fixed=True), [say("assistant", "hi")], "d1")
    longer = [*history, say("assistant", "hi"), say("user", "go on")]
    claim = known.claim("agent", longer, "given", fixed=True)
    assert (claim.interaction, claim.inherited) == ("given", 1)
    assert known.claim("agent", longer, "elsewhere", fixed=True).continues is None


def test_an_answer_is_remembered_for_its_own_agent_with_the_most_tokens_ever_reported_for_it(known: Conversations) -> None:
    assert known.of_response("agent", "r1") is None
    known.remember_response("agent", "r1", "one", 15)
    known.remember_response("agent", "r1", "one")
    assert known.of_response("agent", "r1") == Remembered("one", 15)
    known.remember_response("agent", "r1", "two", 20)
    assert known.of_response("agent", "r1") == Remembered("two", 20)
    assert known.of_response("another agent", "r1") is None


def test_ids_of_answers_are_bounded_and_the_longest_untouched_is_forgotten_first(places_of_workers: Make) -> None:
    known = Conversations(places_of_workers(capacity=20)[0])
    for number in range(11):
        known.remember_response("agent", "kept", "one")
        known.remember_response("agent", f"r{number}", "other", number)
    for number in range(11, 100):
        known.remember_response("agent", f"r{number}", "other", number)
        known.remember_response("agent", "kept", "one")
    assert known.of_response("agent", "kept") == Remembered("one", 0)
    kept = [number for number in range(100) if known.of_response("agent", f"r{number}") is not None]
    assert kept == list(range(100 - len(kept), 100))
    assert 9 <= len(kept) <= 19


def test_conversations_are_bounded_and_the_oldest_is_forgotten_first(places_of_workers: Make) -> None:
    known = Conversations(places_of_workers(capacity=10)[0])
    histories = [[say("user", str(number))] for number in range(30)]
    for number, history in enumerate(histories):
        known.answered(known.claim("agent", history, f"n{number}"), [say("assistant", "hi")], "d")
    found = [known.claim("agent", [*history, say("assistant", "hi"), say("user", "on")], "forgotten").interaction for history in histories]
    assert found == ["forgotten"] * 20 + [f"n{number}" for number in range(20, 30)]


def test_equal_beginnings_are_bounded_too(places_of_workers: Make) -> None:
    known = Conversations(places_of_workers(capacity=10)[0])
    history = [say("user", "same")]
    for number in range(30):
        known.answered(known.claim("agent", history, f"n{number}"), [say("assistant", "same")], "d")
    longer = [*history, say("assistant", "same"), say("user", "on")]
    found = [known.claim("agent", longer, "forgotten").interaction for _ in range(11)]
    assert found == [f"n{number}" for number in range(29, 19, -1)] + ["n20"], "the youngest first, then branches of the one continued last"


def test_the_memory_of_one_process_is_bounded_by_states_places_and_places_in_one_state() -> None:
    places = OwnPlaces(capacity=10, per_state=3)
    known = Conversations(places)
    for number in range(100):
        known.answered(known.claim("agent", [say("user", "same")], f"s{number}"), [say("assistant", "same")], "d")
        known.answered(known.claim("agent", [say("user", str(number // 2))], f"n{number}"), [say("assistant", "hi")], "d")
    assert all(len(state.free) <= 3 for state in places._states.values())
    assert places._free == sum(len(state.free) for state in places._states.values()) <= 10
    for number in range(100):
        known.claim("agent", [say("user", str(number // 2)), say("assistant", "hi"), say("user", "on")], "other")
    assert len(places._states) <= 10
