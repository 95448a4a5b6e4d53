"""Conversations are told apart by what was said, however many begin alike."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.history import Conversations, Remembered
from holdfast.wire.call import Turn
from holdfast.wire.canonical import turn

SYSTEM = turn("system", ["be brief"])


def say(role: str, text: str) -> Turn:
    return turn(role, [text])


scripts = st.lists(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), min_size=1, max_size=5),  # (what the user says, what is answered)
    min_size=1,
    max_size=8,
)


@given(scripts=scripts, order=st.randoms(use_true_random=False))
def test_every_conversation_is_one_interaction_in_any_interleaving(scripts: list[list[tuple[str, str]]], order) -> None:
    known = Conversations()
    histories: list[list[Turn]] = [[SYSTEM] for _ in scripts]
    sizes: dict[str, int] = {}
    steps = [who for who, script in enumerate(scripts) for _ in script]
    order.shuffle(steps)
    done = [0] * len(scripts)
    for number, who in enumerate(steps):
        asked, answered = scripts[who][done[who]]
        done[who] += 1
        histories[who].append(say("user", asked))
        claim = known.claim("agent", histories[who], f"new-{number}")
        sizes[claim.interaction] = sizes.get(claim.interaction, 0) + 1
        answer = say("assistant", answered)
        known.answered(claim, [answer], f"decision-{number}")
        histories[who].append(answer)
    assert len(sizes) == len(scripts)
    assert sum(sizes.values()) == len(steps)


def test_two_equal_conversations_at_once_stay_two() -> None:
    known = Conversations()
    first = [SYSTEM, say("user", "hello")]
    claims = [known.claim("agent", first, f"new-{n}") for n in range(2)]
    answer = say("assistant", "hi")
    for number, claim in enumerate(claims):
        known.answered(claim, [answer], f"decision-{number}")
    second = [*first, answer, say("user", "go on")]
    assert {known.claim("agent", second, "other").interaction for _ in range(2)} == {"new-0", "new-1"}


def test_a_branch_of_a_continued_state_stays_in_its_interaction() -> None:
    known = Conversations()
    first = [say("user", "hello")]
    known.answered(known.claim("agent", first, "one"), [say("assistant", "hi")], "d1")
    for tail in ("go on", "go elsewhere"):
        branch = [*first, say("assistant", "hi"), say("user", tail)]
        assert known.claim("agent", branch, "other").interaction == "one"


def test_a_failed_request_sent_again_continues_where_it_was() -> None:
    known = Conversations()
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


def test_a_system_prompt_with_the_time_of_day_does_not_split_a_conversation() -> None:
    known = Conversations()
    history = [say("system", "it is 12:00"), say("user", "hello")]
    known.answered(known.claim("agent", history, "one"), [say("assistant", "hi")], "d1")
    later = [say("system", "it is 12:01"), *history[1:], say("assistant", "hi"), say("user", "go on")]
    claim = known.claim("agent", later, "other")
    assert (claim.interaction, claim.inherited) == ("one", 0), "nothing is inherited, for the record must hold the new prompt"


def test_equal_states_under_different_system_prompts_are_told_apart() -> None:
    known = Conversations()
    for prompt in ("red", "blue"):
        known.answered(known.claim("agent", [say("system", prompt), say("user", "hello")], prompt), [say("assistant", "hi")], "d")
    for prompt in ("red", "blue"):
        history = [say("system", prompt), say("user", "hello"), say("assistant", "hi"), say("user", "on")]
        assert known.claim("agent", history, "other").interaction == prompt


def test_agents_do_not_share_conversations() -> None:
    known = Conversations()
    history = [say("user", "hello")]
    known.answered(known.claim("one agent", history, "one"), [say("assistant", "hi")], "d1")
    longer = [*history, say("assistant", "hi"), say("user", "go on")]
    assert known.claim("another agent", longer, "two").interaction == "two"


def test_an_interaction_given_from_outside_wins_and_still_inherits() -> None:
    known = Conversations()
    history = [say("user", "hello")]
    known.answered(known.claim("agent", history, "given", fixed=True), [say("assistant", "hi")], "d1")
    longer = [*history, say("assistant", "hi"), say("user", "go on")]
    claim = known.claim("agent", longer, "given", fixed=True)
    assert (claim.interaction, claim.inherited) == ("given", 1)
    assert known.claim("agent", longer, "elsewhere", fixed=True).continues is None


def test_an_answer_is_remembered_for_its_own_agent_with_the_most_tokens_ever_reported_for_it() -> None:
    known = Conversations()
    assert known.of_response("agent", "r1") is None
    known.remember_response("agent", "r1", "one", 15)
    known.remember_response("agent", "r1", "one")
    assert known.of_response("agent", "r1") == Remembered("one", 15)
    known.remember_response("agent", "r1", "two", 20)
    assert known.of_response("agent", "r1") == Remembered("two", 20)
    assert known.of_response("another agent", "r1") is None


def test_memory_of_answers_is_bounded_and_loses_the_longest_untouched_first() -> None:
    known = Conversations(capacity=10)
    for number in range(11):
        known.remember_response("agent", "kept", "one")
        known.remember_response("agent", f"r{number}", "other", number)
    assert known.of_response("agent", "kept") == Remembered("one", 0)
    assert [number for number in range(11) if known.of_response("agent", f"r{number}") is not None] == list(range(2, 11))


def test_memory_is_bounded_by_states_and_by_places_in_one_state() -> None:
    known = Conversations(capacity=10, per_state=3)
    for number in range(100):
        known.answered(known.claim("agent", [say("user", "same")], f"s{number}"), [say("assistant", "same")], "d")
        known.answered(known.claim("agent", [say("user", str(number))], f"n{number}"), [say("assistant", "hi")], "d")
    assert len(known._known) == 10
    assert all(len(entry.free) <= 3 for entry in known._known.values())
