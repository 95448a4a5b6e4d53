"""Who calls, told from key and headers alone; which interaction, from headers, the provider's ids, or the history."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from holdfast.gateway.identity import Caller, Identities
from holdfast.gateway.options import AgentOptions
from holdfast.testing.memory_gateway import MemoryGateway

Build = Callable[[str], MemoryGateway]

KEYED = AgentOptions(name="support", key="hf-support", release="v1")
OTHER = AgentOptions(name="sales", key="hf-sales")
OPEN = AgentOptions(name="default")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SAY: Any = [{"role": "user", "content": "hello"}]
CHAT: Any = {"model": "m", "messages": SAY}


def caller(agents: tuple[AgentOptions, ...], headers: dict[str, str], peer: str = "127.0.0.1") -> Caller | None:
    return Identities(agents).caller([(name.encode(), value.encode()) for name, value in headers.items()], peer)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer hf-support"},
        {"authorization": "bearer  hf-support "},
        {"x-api-key": "hf-support"},
        {"api-key": "hf-support"},
        {"authorization": "Bearer hf-support", "x-api-key": "hf-sales"},
    ],
)
@pytest.mark.parametrize("peer", ["127.0.0.1", "192.0.2.7"])
def test_the_key_says_which_agent_calls_whatever_name_it_claims(headers: dict[str, str], peer: str) -> None:
    found = caller((KEYED, OTHER, OPEN), {**headers, "x-holdfast-agent": "sales"}, peer)
    assert found is not None
    assert (found.agent, found.name, found.release) == (KEYED, "support", "v1")


@pytest.mark.parametrize("key", ["", "Bearer ", "Bearer hf", "Bearer hf-support2", "Basic hf-support"])
def test_an_unknown_key_belongs_to_nobody(key: str) -> None:
    assert caller((KEYED, OTHER), {"authorization": key}) is None
    assert caller((KEYED, OPEN), {"authorization": key}, "192.0.2.7") is None


@pytest.mark.parametrize(
    ("peer", "local"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False)]
)
def test_an_agent_without_a_key_calls_from_loopback_alone(peer: str, local: bool) -> None:
    found = caller((OPEN,), {"authorization": "Bearer any"}, peer)
    assert (found is not None) == local


@pytest.mark.parametrize(
    ("origin", "served"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1", True),
        ("https://[::1]:8443", True),
        ("http://evil.example:8787", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_web_pages_of_other_sites_need_a_key(origin: str, served: bool) -> None:
    assert (caller((KEYED, OPEN), {"origin": origin}) is not None) == served
    assert caller((KEYED, OPEN), {"origin": origin, "authorization": "Bearer hf-support"}) is not None


def test_agents_without_keys_say_their_name() -> None:
    second = AgentOptions(name="second")
    for name, agent in (("second", second), ("unheard-of", OPEN), ("", OPEN)):
        found = caller((second, OPEN), {"x-holdfast-agent": name})
        assert found is not None
        assert (found.agent, found.name) == (agent, name or "default")


def test_nobody_without_its_key_goes_by_the_name_of_an_agent_that_has_one() -> None:
    found = caller((KEYED, OPEN), {"x-holdfast-agent": "support"})
    assert found is not None
    assert (found.agent, found.name) == (OPEN, "default")


@pytest.mark.parametrize(
    ("headers", "interaction", "by"),
    [
        ({}, "", ""),
        ({"x-holdfast-interaction": "ticket-7"}, "ticket-7", "header"),
        ({"x-claude-code-session-id": "s-1"}, "s-1", "session"),
        ({"session-id": "s-2"}, "s-2", "session"),
        ({"session_id": "s-3"}, "s-3", "session"),
        ({"traceparent": TRACE}, "0af7651916cd43dd8448eb211c80319c", "traceparent"),
        ({"traceparent": TRACE, "session-id": "s", "x-holdfast-interaction": "first"}, "first", "header"),
        ({"traceparent": TRACE, "session-id": "s"}, "s", "session"),
        ({"traceparent": "00-" + "0" * 32 + "-b7ad6b7169203331-01"}, "", ""),
        ({"traceparent": "00-short-b7-01"}, "", ""),
        ({"traceparent": "nonsense"}, "", ""),
    ],
)
def test_headers_name_the_interaction(headers: dict[str, str], interaction: str, by: str) -> None:
    found = caller((OPEN,), headers)
    assert found is not None
    assert (found.interaction, found.identified_by) == (interaction, by)


@pytest.mark.parametrize("value", ["../../etc/passwd", "a b", "x" * 129, "schlüssel", "<script>"])
def test_what_is_not_fit_to_be_an_id_is_hashed(value: str) -> None:
    found = caller((OPEN,), {"x-holdfast-interaction": value})
    again = caller((OPEN,), {"x-holdfast-interaction": value})
    assert found is not None and again is not None
    assert found.interaction == again.interaction != value
    assert len(found.interaction) == 32 and found.interaction.isalnum()


def test_a_release_that_the_operator_set_is_not_the_agents_to_change(gateway: Build) -> None:
    world = gateway("agents: {default: {release: v7}}\nlimits: [{calls: 1, scope: release}]")
    for _ in range(2):
        world.call("POST", "/v1/chat/completions", CHAT, {"x-holdfast-release": "v9"})
    assert len(world.upstream.exchanges) == 1
    assert [refusal.release for refusal in world.recorder.refusals] == ["v7"]


def test_release_and_user_come_from_headers(gateway: Build) -> None:
    world = gateway("")
    world.call("POST", "/v1/chat/completions", {**CHAT, "user": "body"}, {"x-holdfast-user": "ann", "x-holdfast-release": "v9"})
    world.upstream.latest.answer(b'{"choices":[{"message":{"content":"hi"}}]}')
    (decision,) = world.recorder.decisions
    assert (decision.user_id, decision.release, decision.agent) == ("ann", "v9", "default")
    world.call("POST", "/v1/chat/completions", {**CHAT, "user": "body"})
    world.upstream.latest.answer(b'{"choices":[{"message":{"content":"hi"}}]}')
    assert [decision.user_id for decision in world.recorder.decisions] == ["ann", "body"]


def test_neither_the_virtual_key_nor_holdfasts_own_headers_reach_a_provider(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}}}")
    mine = {"authorization": "Bearer v", "x-api-key": "v", "api-key": "v", "cookie": "v", "x-goog-api-key": "v", "accept-encoding": "br"}
    world.call("POST", "/v1/chat/completions?beta=true", CHAT, {**mine, "x-holdfast-user": "ann", "openai-beta": "x", "user-agent": "me"})
    sent = world.upstream.latest.request
    assert list(sent.headers) == [(b"openai-beta", b"x"), (b"user-agent", b"me"), (b"accept-encoding", b"identity")]
    assert sent.target == b"/v1/chat/completions?beta=true"


def test_an_agents_limits_hold_whatever_name_its_calls_go_by(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}, limits: [{calls: 2, per: hour}]}}")
    statuses = [world.call("POST", "/v1/chat/completions", CHAT, {"x-holdfast-agent": f"agent-{number}"}).status for number in range(4)]
    assert statuses == [0, 0, 402, 402]


def response_body(identifier: str) -> bytes:
    return msgspec.json.encode({"id": identifier, "status": "completed", "output": [], "model": "m"})


def test_previous_response_id_leads_back_to_its_interaction(gateway: Build) -> None:
    world = gateway("")
    for identifier, more in (("r1", {}), ("r2", {"previous_response_id": "r1"}), ("r3", {"previous_response_id": "r2"}), ("other", {})):
        world.call("POST", "/v1/responses", {"model": "m", "input": identifier, **more})
        world.upstream.latest.answer(response_body(identifier))
    interactions = [decision.interaction for decision in world.recorder.decisions]
    assert len(set(interactions[:3])) == 1 and interactions[3] != interactions[0]


def test_the_tokens_that_a_provider_reported_are_remembered_with_its_response_id(gateway: Build) -> None:
    world = gateway("")
    usage = {"input_tokens": 10, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 2}}
    for identifier, more in (("r1", {"usage": usage}), ("r2", {})):
        world.call("POST", "/v1/responses", {"model": "m", "input": "hello"})
        world.upstream.latest.answer(msgspec.json.encode({"id": identifier, "status": "completed", "output": [], "model": "m", **more}))
    world.call("POST", "/v1/responses", {"model": "m", "input": "more", "previous_response_id": "r1"})
    remembered = [world.conversations.of_response("default", identifier) for identifier in ("r1", "r2")]
    assert [known and known.tokens for known in remembered] == [15, 0]


def test_a_response_id_leads_no_other_agent_into_its_interaction(gateway: Build) -> None:
    world = gateway("agents: {a: {key: env:UPSTREAM_KEY, routes: {'*': [simulated/*]}}, b: {routes: {'*': [simulated/*]}}}")
    for key, more in (("sk-upstream", {}), ("any", {"previous_response_id": "r1"})):
        world.call("POST", "/v1/responses", {"model": "m", "input": key, **more}, {"authorization": f"Bearer {key}"})
        world.upstream.latest.answer(msgspec.json.encode({"id": "r1", "status": "completed", "output": []}))
    first, second = world.recorder.decisions
    assert (first.agent, second.agent) == ("a", "b")
    assert first.interaction != second.interaction


@pytest.mark.parametrize("field", ["conversation", "previous_response_id"])
def test_a_history_that_the_provider_keeps_is_one_interaction_even_when_its_beginning_was_not_seen(gateway: Build, field: str) -> None:
    world = gateway("")
    for number, conversation in enumerate(("conv_1", "conv_2", "conv_1")):
        world.call("POST", "/v1/responses", {"model": "m", "input": f"{number}", field: conversation})
        world.upstream.latest.answer(response_body(f"r{number}"))
    one, other, again = (decision.interaction for decision in world.recorder.decisions)
    assert one == again != other


def test_the_same_words_from_different_agents_and_users_are_different_interactions(gateway: Build) -> None:
    world = gateway("")
    history: Any = [*SAY, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "more"}]
    for body in (CHAT, {"model": "m", "messages": history}):
        for headers in ({"x-holdfast-agent": "b"}, {"x-holdfast-user": "u"}, {}):
            world.call("POST", "/v1/chat/completions", body, headers)
            world.upstream.latest.answer(b'{"choices":[{"message":{"role":"assistant","content":"hi"}}]}')
    interactions = [decision.interaction for decision in world.recorder.decisions]
    assert len(set(interactions[:3])) == 3 and interactions[:3] == interactions[3:]
