"""Whom a kill stops: exactly those that it names."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.kill import NONE, SCOPES, Kill, Kills

NAMES = st.sampled_from(["support", "billing", "v1", "v2", "gpt", "openai/gpt", "Support", "support ", ""])
KILLS = st.builds(
    lambda scope, value, mode: Kill(scope=scope, value="" if scope == "all" else value or "x", mode=mode),
    st.sampled_from(SCOPES),
    NAMES,
    st.sampled_from(["drain", "cut"]),
)


@given(kills=st.lists(KILLS, max_size=6), agents=st.lists(NAMES, min_size=1, max_size=3), release=NAMES, models=st.lists(NAMES, max_size=3))
def test_a_call_is_stopped_if_and_only_if_a_kill_names_it(kills: list[Kill], agents: list[str], release: str, models: list[str]) -> None:
    named = {("all", ""), ("release", release)} | {("agent", name) for name in agents} | {("model", name) for name in models}
    matching = [kill for kill in kills if (kill.scope, kill.value) in named]
    held = Kills(())
    for kill in kills:
        held = held.with_kill(kill)
    matching = [kill for kill in held.active if kill in matching]
    found = held.stopping(agents, release, models)
    assert (found is None) == (not matching)
    if found is not None:
        assert found in matching
        assert found.mode == "cut" or all(kill.mode == "drain" for kill in matching)


@given(kills=st.lists(KILLS, max_size=6), called=st.sets(NAMES, max_size=4))
def test_a_tool_is_forbidden_if_and_only_if_a_kill_names_it(kills: list[Kill], called: set[str]) -> None:
    found = Kills(kills).forbidden_tool(called)
    assert (found is None) == called.isdisjoint(kill.value for kill in kills if kill.scope == "tool")


@given(kills=st.lists(KILLS, max_size=8))
def test_a_later_kill_of_the_same_thing_takes_the_place_of_the_earlier_one(kills: list[Kill]) -> None:
    held = NONE
    for kill in kills:
        held = held.with_kill(kill)
    assert {(kill.scope, kill.value): kill for kill in held.active} == {(kill.scope, kill.value): kill for kill in kills}
    assert len({(kill.scope, kill.value) for kill in held.active}) == len(held.active)


@given(kills=st.lists(KILLS, min_size=1, max_size=8), data=st.data())
def test_lifting_one_leaves_the_others(kills: list[Kill], data: st.DataObject) -> None:
    held = NONE
    for kill in kills:
        held = held.with_kill(kill)
    lifted = data.draw(st.sampled_from(held.active))
    assert held.without(lifted.scope, lifted.value).active == tuple(kill for kill in held.active if kill != lifted)


def test_a_kill_says_who_and_why() -> None:
    assert Kill(scope="agent", value="support", author="ann@host", reason="it refunds.").why == " by ann@host: it refunds"
    assert Kill(scope="all").describe() + Kill(scope="all").why == "everything"
