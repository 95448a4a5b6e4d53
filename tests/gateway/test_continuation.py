"""Streams that break off after their first token and are gone on with by another target: one stream for the agent, one decision."""

from collections.abc import Callable, Iterator

import msgspec
import pytest
from anthropic import Anthropic
from openai import APIError, OpenAI

from holdfast.clock import SECOND
from holdfast.errors import ConnectionCut
from holdfast.policy.circuit_breaker import Isolation
from holdfast.testing.gateway import gateway_in_thread, options_for
from holdfast.testing.memory_gateway import MemoryGateway
from holdfast.testing.simulated_provider import Address, SimulatedProvider, running_in_thread

Build = Callable[[str], MemoryGateway]

CHAT = "/v1/chat/completions"
QUESTION = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "tell me"}]}
AGENT = "routes: {'*': [simulated/first, openai/gpt-4o, simulated/third]}, retries: {max: 0}"
CONTINUED = f"agents: {{a: {{{AGENT}, fallback: {{continue_streams: true, min_tokens_per_second: 1}}}}}}"
END = b'data: {"id":"%s","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def piece(text: str, name: str = "c1", **delta: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text, **delta}, "finish_reason": None}
    return b"data: %b\n\n" % msgspec.json.encode({"id": name, "created": 1, "model": name, "choices": [choice]})


def chunks(body: bytes) -> list[dict[str, object]]:
    return [msgspec.json.decode(event[6:]) for event in body.split(b"\n\n") if event.startswith(b"data: {")]


def text(body: bytes) -> str:
    deltas = [choice["delta"] for chunk in chunks(body) for choice in chunk["choices"]]  # type: ignore[attr-defined]
    return "".join(delta.get("content") or "" for delta in deltas)


def begun(world: MemoryGateway, *pieces: bytes) -> None:
    world.upstream.latest.start()
    world.upstream.latest.data(*pieces)


def test_another_target_goes_on_where_the_first_was_cut_and_the_agent_reads_one_stream(gateway: Build) -> None:
    world = gateway(CONTINUED)
    response = world.call("POST", CHAT, QUESTION)
    begun(world, piece("", role="assistant"), piece("Once upon "), b'data: {"choi')
    world.upstream.latest.fail(ConnectionCut("reset"))
    asked = msgspec.json.decode(world.upstream.latest.request.body)["messages"]
    assert [(each["role"], each["content"][:9]) for each in asked] == [
        ("user", "tell me"),
        ("assistant", "Once upon"),
        ("user", "Your last"),
    ]
    begun(world, piece("", "c2", role="assistant"), piece("a time.", "c2"))
    world.upstream.latest.data(END % b"c2")
    world.upstream.latest.end()
    assert response.ended and text(response.body) == "Once upon a time."
    assert {chunk["id"] for chunk in chunks(response.body)} == {"c1"} and response.body.count(b"[DONE]") == 1
    assert sum("role" in choice["delta"] for chunk in chunks(response.body) for choice in chunk["choices"]) == 1  # type: ignore[attr-defined]
    (decision,) = world.recorder.decisions
    assert (decision.answer, decision.recovery_action, decision.served_by) == ("Once upon a time.", "continued", "openai/gpt-4o")
    assert [error.recovery_action for error in world.recorder.errors] == ["continued"]
    assert decision.cost_source == "bound", "nobody said what the stream that broke off has cost"
    assert decision.cost == sum(call.cost or 0 for call in world.recorder.api_calls)


def test_the_continuation_may_itself_be_continued(gateway: Build) -> None:
    world = gateway(CONTINUED)
    response = world.call("POST", CHAT, QUESTION)
    for number, said in enumerate(("One, ", "two, ", "three.")):
        begun(world, piece("", f"c{number}", role="assistant"), piece(said, f"c{number}"))
        if number < 2:
            world.upstream.latest.fail(ConnectionCut("reset"))
    asked = msgspec.json.decode(world.upstream.latest.request.body)["messages"]
    assert asked[-2]["content"] == "One, two, "
    world.upstream.latest.data(END % b"c2")
    world.upstream.latest.end()
    assert text(response.body) == world.recorder.decisions[0].answer == "One, two, three."


def test_unless_the_agent_asks_for_it_a_cut_is_a_cut(gateway: Build) -> None:
    world = gateway(f"agents: {{a: {{{AGENT}}}}}")
    response = world.call("POST", CHAT, QUESTION)
    begun(world, piece("Once"))
    world.upstream.latest.fail(ConnectionCut("reset"))
    assert response.aborted and len(world.upstream.exchanges) == 1


def test_a_tool_call_that_has_begun_is_not_gone_on_with(gateway: Build) -> None:
    world = gateway(CONTINUED)
    response = world.call("POST", CHAT, QUESTION)
    begun(world, piece("", tool_calls=[{"index": 0, "id": "t", "function": {"name": "pay", "arguments": "{"}}]))
    world.upstream.latest.fail(ConnectionCut("reset"))
    assert response.aborted and len(world.upstream.exchanges) == 1


def test_when_nobody_can_go_on_the_agent_gets_an_error_event_and_no_end(gateway: Build) -> None:
    world = gateway(CONTINUED)
    response = world.call("POST", CHAT, QUESTION)
    begun(world, piece("Once"))
    world.upstream.latest.fail(ConnectionCut("reset"))
    for _ in range(2):
        world.upstream.latest.answer(b'{"error":{"message":"no"}}', 500)
    assert response.ended and b"[DONE]" not in response.body
    assert response.body.startswith(piece("Once")) and b'"error"' in response.body


def test_an_attempt_to_go_on_that_fails_before_its_first_token_leaves_no_trace_in_the_stream(gateway: Build) -> None:
    world = gateway(CONTINUED)
    response = world.call("POST", CHAT, QUESTION)
    begun(world, piece("Once "))
    world.upstream.latest.fail(ConnectionCut("reset"))
    begun(world, piece("", "c2", role="assistant"))
    world.upstream.latest.fail(ConnectionCut("reset"))
    begun(world, piece("again.", "c3"))
    world.upstream.latest.data(END % b"c3")
    world.upstream.latest.end()
    assert text(response.body) == "Once again." and b"c2" not in response.body and response.ended


def test_a_stream_that_trickles_is_gone_on_with_elsewhere(gateway: Build) -> None:
    world = gateway(CONTINUED)
    response = world.call("POST", CHAT, QUESTION)
    begun(world, piece("A word of forty bytes for the first window"))
    for _ in range(3):
        world.upstream.latest.data(piece("."))
        world.clock.advance(3 * SECOND)
    assert len(world.upstream.exchanges) == 1
    world.clock.advance(SECOND)
    first, second = world.upstream.exchanges
    assert first.cancelled and not second.over
    begun(world, piece(" And more.", "c2"))
    world.upstream.latest.data(END % b"c2")
    world.upstream.latest.end()
    assert response.ended and text(response.body) == "A word of forty bytes for the first window... And more."
    assert "token_rate" in world.recorder.errors[0].message


def test_a_stream_that_is_quick_enough_runs_on(gateway: Build) -> None:
    world = gateway(CONTINUED)
    world.call("POST", CHAT, QUESTION)
    begun(world, piece("begin"))
    for _ in range(30):
        world.upstream.latest.data(piece("five token words here "))
        world.clock.advance(3 * SECOND)
    assert len(world.upstream.exchanges) == 1 and not world.upstream.latest.over


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """A gateway whose first target cuts every stream after a few tokens, and whose second goes on."""
    folder = tmp_path_factory.mktemp("continued")
    yaml = "agents: {a: {routes: {'*': [simulated/sim-cut-stream, simulated/sim-ok], alone: [simulated/sim-cut-stream]}, "
    yaml += "retries: {max: 0}, fallback: {continue_streams: true}}}\n"
    with (
        running_in_thread(SimulatedProvider().application) as upstream,
        gateway_in_thread(options_for(upstream, yaml, folder), folder / "data") as gateway,
    ):
        yield gateway


def test_the_official_sdks_read_one_answer_in_every_format(served: Address) -> None:
    openai = OpenAI(base_url=served.openai, api_key="k", max_retries=0)
    with openai.chat.completions.stream(model="m", messages=[{"role": "user", "content": "hello"}]) as chat:
        chosen = chat.get_final_completion().choices[0]
    assert chosen.finish_reason == "stop" and chosen.message.content
    with openai.responses.stream(model="m", input="hello") as responses:
        whole = responses.get_final_response()
    assert whole.status == "completed" and len(whole.output) == 1
    messages = Anthropic(base_url=served.anthropic, api_key="k", max_retries=0)
    with messages.messages.stream(model="m", max_tokens=500, messages=[{"role": "user", "content": "hello"}]) as stream:
        message = stream.get_final_message()
    assert message.stop_reason == "end_turn" and [block.type for block in message.content] == ["text"]
    assert chosen.message.content == whole.output_text == message.content[0].text  # type: ignore[union-attr]


def test_without_another_target_the_sdk_raises(served: Address) -> None:
    with OpenAI(base_url=served.openai, api_key="k", max_retries=0) as openai, pytest.raises(Exception) as raised:
        list(openai.chat.completions.create(model="alone", messages=[{"role": "user", "content": "hello"}], stream=True))
    assert isinstance(raised.value, APIError) or "closed" in str(raised.value)


OVERLOADED = b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n'


def test_a_canned_reply_is_no_continuation_of_a_stream_that_has_begun(gateway: Build) -> None:
    world = gateway(CONTINUED.replace("simulated/third", "{reply: sorry}"))
    response = world.call("POST", CHAT, QUESTION)
    begun(world, piece("Once"))
    world.upstream.latest.fail(ConnectionCut("reset"))
    world.upstream.latest.answer(b'{"error":{"message":"no"}}', 500)
    assert response.body.startswith(piece("Once")) and b"sorry" not in response.body and b"[DONE]" not in response.body
    assert b'"error"' in response.body and [error.recovery_action for error in world.recorder.errors] == ["continued", "none"]


@pytest.mark.parametrize("cut", [True, False])
def test_where_the_next_target_is_kept_away_the_stream_ends_as_it_broke_off_and_stays_a_decision(gateway: Build, cut: bool) -> None:
    world = gateway(CONTINUED.replace(", simulated/third", ""))
    response = world.call("POST", CHAT, QUESTION)
    begun(world, piece("Once"))
    world.isolations.isolate(Isolation(name="openai"))
    if cut:
        world.upstream.latest.fail(ConnectionCut("reset"))
    else:
        world.upstream.latest.data(OVERLOADED)
        world.upstream.latest.end()
    assert (response.aborted, response.body) == (cut, piece("Once") + (b"" if cut else OVERLOADED))
    (decision,) = world.recorder.decisions
    assert (decision.answer, decision.complete, decision.served_by) == ("Once", False, "simulated/first")
    assert [error.recovery_action for error in world.recorder.errors] == ["continued", "circuit_open"]


def test_what_was_said_stays_a_decision_when_the_client_leaves_before_the_rest(gateway: Build) -> None:
    world = gateway(CONTINUED)
    response = world.call("POST", CHAT, QUESTION)
    begun(world, piece("Once"))
    world.upstream.latest.fail(ConnectionCut("reset"))
    response.leave()
    assert [(each.answer, each.complete) for each in world.recorder.decisions] == [("Once", False)]


def test_our_own_error_event_can_be_read_after_a_torn_one(gateway: Build) -> None:
    world = gateway(f"agents: {{a: {{{AGENT}}}}}")
    response = world.call("POST", CHAT, QUESTION)
    begun(world, piece("Once"), b'data: {"choi')
    world.clock.advance(3600 * SECOND)
    assert response.ended and response.body.startswith(piece("Once") + b'data: {"error":')
