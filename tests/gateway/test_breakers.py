"""Circuit breakers before targets: who is kept away from what, what the call and the record learn of it, how it comes back."""

from collections.abc import Callable, Iterator

import msgspec
import pytest

from holdfast.clock import SECOND
from holdfast.errors import ConnectFailed
from holdfast.events import BreakerChanged
from holdfast.execution.breakers import key_name
from holdfast.gateway.options import GatewayOptions
from holdfast.policy.circuit_breaker import Isolation
from holdfast.shared import breakers
from holdfast.shared.breakers import BreakerTable
from holdfast.shared.private_memory import PrivateMemory
from holdfast.testing import MemoryResponse
from holdfast.testing.memory_gateway import MemoryGateway

Build = Callable[[str], MemoryGateway]

CHAT = "/v1/chat/completions"
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
ANSWER = msgspec.json.encode(
    {
        "id": "c1",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
)
ERROR = b'{"error":{"message":"no","type":"t","code":null,"param":null}}'
BREAKERS = "breakers: {minimum_calls: 4, cooldown: 15s, probes: 1}\n"
NO_RETRIES = "retries: {max: 0}"
TWO = BREAKERS + f"agents: {{a: {{routes: {{'*': [openai/first, simulated/second]}}, {NO_RETRIES}}}}}"
ONE = BREAKERS + f"agents: {{a: {{routes: {{'*': [openai/first]}}, {NO_RETRIES}}}}}"
ANY = BREAKERS + f"agents: {{a: {{routes: {{'*': ['openai/*']}}, {NO_RETRIES}}}}}"
KEY = key_name("openai", "sk-upstream")


def ask(world: MemoryGateway, model: str = "m", **more: object) -> MemoryResponse:
    return world.call("POST", CHAT, {**QUESTION, "model": model, **more})


def answered(world: MemoryGateway, status: int, body: bytes = ERROR, model: str = "m", **headers: str) -> MemoryResponse:
    """A call whose one attempt is answered so."""
    made = len(world.upstream.exchanges)
    response = ask(world, model)
    assert len(world.upstream.exchanges) == made + 1, response.body
    pairs = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    world.upstream.latest.answer(body, status, ((b"content-type", b"application/json"), *pairs))
    return response


def changes(world: MemoryGateway) -> list[tuple[str, str, str]]:
    found = [event for event in world.recorder.events if isinstance(event, BreakerChanged)]
    return [(event.breaker, event.from_state, event.to_state) for event in found]


def open_first(world: MemoryGateway, **headers: str) -> None:
    """Let four calls of `TWO` fail at their first target."""
    for _ in range(4):
        ask(world)
        world.upstream.latest.answer(
            ERROR, 500, tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
        )
        world.upstream.latest.answer(ANSWER)


def test_a_target_that_fails_is_left_alone_and_the_fallback_serves_without_an_attempt_at_it(gateway: Build) -> None:
    world = gateway(TWO)
    open_first(world)
    assert changes(world) == [("openai/first", "closed", "open")]
    made = len(world.upstream.exchanges)
    response = ask(world)
    assert len(world.upstream.exchanges) == made + 1
    world.upstream.latest.answer(ANSWER)
    assert response.status == 200
    decision, error = world.recorder.decisions[-1], world.recorder.errors[-1]
    assert (decision.served_by, decision.attempts, decision.recovery_action) == ("simulated/second", 1, "circuit_open")
    assert (decision.error_id, error.recovery_action) == (error.error_id, "circuit_open")
    assert "the circuit breaker openai/first is open since" in error.message
    assert "4 of 4 calls failed within 30 s" in error.message


def test_the_event_says_what_it_saw_and_until_when_it_is_open(gateway: Build) -> None:
    world = gateway(TWO)
    open_first(world)
    (event,) = [event for event in world.recorder.events if isinstance(event, BreakerChanged)]
    assert (event.scope, event.calls, event.failure_rate, event.slow_rate) == ("model", 4, 100, 0)
    assert event.reason == "4 of 4 calls failed within 30 s"
    assert event.until is not None and 15 * SECOND <= event.until - event.timestamp <= 16.5 * SECOND
    assert event.timestamp == world.clock.wall_ns()


def test_after_its_cooldown_one_probe_decides(gateway: Build) -> None:
    world = gateway(TWO)
    open_first(world)
    world.clock.advance(16 * SECOND)
    probe = ask(world)
    assert world.upstream.latest.request.headers and not probe.over
    first = world.upstream.latest
    ask(world)  # while the probe is on its way the others go elsewhere
    world.upstream.latest.answer(ANSWER)
    assert world.recorder.decisions[-1].served_by == "simulated/second"
    first.answer(ERROR, 500)
    world.upstream.latest.answer(ANSWER)
    assert probe.status == 200
    world.clock.advance(29 * SECOND)
    ask(world)
    assert world.upstream.latest.request.origin == first.request.origin
    world.upstream.latest.answer(ANSWER)
    assert world.recorder.decisions[-1].served_by == "simulated/second"  # the cooldown has doubled
    world.clock.advance(4 * SECOND)
    ask(world)
    world.upstream.latest.answer(ANSWER)
    assert world.recorder.decisions[-1].served_by == "openai/first"
    assert [change[1:] for change in changes(world)] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]
    assert not world.clock.pending


def test_a_call_without_another_target_is_told_when_to_come_again(gateway: Build) -> None:
    world = gateway(ONE)
    for _ in range(4):
        assert answered(world, 503).status == 503
    made = len(world.upstream.exchanges)
    world.clock.advance(3 * SECOND)
    response = ask(world)
    assert (response.status, len(world.upstream.exchanges)) == (503, made)
    headers = dict(response.headers)
    assert headers[b"x-holdfast-refusal"] == b"circuit_open"
    assert headers[b"x-should-retry"] == b"true"
    assert 12 <= int(headers[b"retry-after"]) <= 14
    body = response.json()
    assert isinstance(body, dict)
    error = body["error"]
    assert (error["code"], error["breaker"], error["state"]) == ("circuit_open", "openai/first", "open")
    assert (error["reason"], error["since"]) == ("4 of 4 calls failed within 30 s", "2026-01-01T00:00:00.000Z")
    assert [each.recovery_action for each in world.recorder.errors][-1] == "circuit_open"


def test_retry_after_lasts_longer_than_the_cooldown(gateway: Build) -> None:
    world = gateway(ONE)
    for _ in range(4):
        answered(world, 500, retry_after="120")
    world.clock.advance(119 * SECOND)
    assert ask(world).status == 503
    world.clock.advance(SECOND)
    assert answered(world, 200, ANSWER).status == 200


def test_one_model_that_fails_says_nothing_about_the_others_of_its_provider(gateway: Build) -> None:
    world = gateway(ANY)
    for _ in range(4):
        answered(world, 500, model="dead")
    assert ask(world, "dead").status == 503
    for _ in range(9):
        assert answered(world, 200, ANSWER, model="fine").status == 200
    assert changes(world) == [("openai/dead", "closed", "open")]


def test_when_several_models_fail_and_none_answers_it_is_their_provider(gateway: Build) -> None:
    world = gateway(ANY)
    for model in ("one", "two", "one", "two"):
        answered(world, 500, model=model)
    assert changes(world) == [("openai", "closed", "open")]
    assert ask(world, "three").status == 503


def test_connections_that_fail_are_their_providers(gateway: Build) -> None:
    world = gateway(ANY)
    for model in ("one", "two", "one", "one"):
        ask(world, model)
        world.upstream.latest.fail(ConnectFailed("refused"))
    assert changes(world) == [("openai", "closed", "open")]


@pytest.mark.parametrize("status", [401, 402])
def test_a_key_that_is_rejected_again_and_again_is_not_sent_any_more(gateway: Build, status: int) -> None:
    world = gateway(ANY)
    for _ in range(3):
        assert answered(world, status).status == status
    assert changes(world) == [(KEY, "closed", "open")]
    response = ask(world, "another")
    assert (response.status, b"all 3 calls were rejected" in response.body) == (503, True)
    assert "sk-upstream" not in KEY and b"sk-upstream" not in response.body


def test_what_a_key_may_not_do_with_one_model_says_nothing_of_the_key_but_of_two_it_does(gateway: Build) -> None:
    world = gateway(ANY)
    for _ in range(9):
        assert answered(world, 403).status == 403
    assert not changes(world)
    answered(world, 403, model="another")
    assert changes(world) == [(KEY, "closed", "open")]


@pytest.mark.parametrize("status", [400, 404, 408, 409, 413, 422, 429])
def test_what_the_caller_brought_about_and_what_a_rate_did_counts_for_nothing(gateway: Build, status: int) -> None:
    world = gateway(ANY)
    for _ in range(20):
        assert answered(world, status).status == status
    assert not changes(world)


def test_clients_that_leave_count_for_nothing_and_their_probe_goes_to_another(gateway: Build) -> None:
    world = gateway(ONE)
    for _ in range(10):
        ask(world).leave()
    assert not changes(world)
    for _ in range(4):
        answered(world, 500)
    world.clock.advance(16 * SECOND)
    probe = ask(world)
    assert ask(world).status == 503
    probe.leave()
    assert answered(world, 200, ANSWER).status == 200
    assert changes(world)[-1] == ("openai/first", "half_open", "closed")
    assert not world.clock.pending


def test_a_probe_that_is_killed_or_meets_a_limit_goes_to_another(gateway: Build) -> None:
    world = gateway(BREAKERS + f"agents: {{a: {{routes: {{'*': [openai/first]}}, {NO_RETRIES}, limits: [{{calls: 6, per: day}}]}}}}")
    for _ in range(4):
        answered(world, 500)
    world.clock.advance(16 * SECOND)
    cut = ask(world)
    world.kill("all", mode="cut")
    assert cut.status == 403
    world.kill_switch.resume()
    last = ask(world)
    assert not last.over
    last.leave()
    assert ask(world).status == 402  # the limit; had it taken the probe's place, nothing would ever give it back
    guarded = world.breakers.of("openai/first", "openai", "sk-upstream", None)
    assert world.breakers.wait_ns(guarded) == 0


def test_a_probe_that_takes_long_keeps_its_place(gateway: Build) -> None:
    world = gateway(ONE)
    for _ in range(4):
        answered(world, 500)
    world.clock.advance(16 * SECOND)
    ask(world)
    probe = world.upstream.latest
    for _ in range(20):
        world.clock.advance(3 * SECOND)
        assert ask(world).status == 503
    probe.answer(ANSWER)
    assert changes(world)[-1] == ("openai/first", "half_open", "closed")


def test_slow_answers_open_it_where_somebody_said_what_slow_is(gateway: Build) -> None:
    slow = "breakers: {minimum_calls: 4, slow_call: 10s, slow_rate: 75%}\n"
    world = gateway(slow + f"agents: {{a: {{routes: {{'*': ['openai/*']}}, {NO_RETRIES}}}}}")
    for seconds in (1, 11, 11, 11):
        response = ask(world)
        world.clock.advance(seconds * SECOND)
        world.upstream.latest.answer(ANSWER)
        assert response.status == 200
    assert changes(world) == []  # the first has left the window
    response = ask(world)
    world.clock.advance(11 * SECOND)
    world.upstream.latest.answer(ANSWER)
    assert changes(world) == []
    fast = gateway(slow.replace("10s", "100ms") + f"agents: {{a: {{routes: {{'*': ['openai/*']}}, {NO_RETRIES}}}}}")
    for _ in range(4):
        ask(fast, stream=True)
        fast.clock.advance(SECOND)
        fast.upstream.latest.stream(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n', b"data: [DONE]\n\n")
    assert changes(fast) == [("openai/m", "closed", "open")]
    (event,) = [event for event in fast.recorder.events if isinstance(event, BreakerChanged)]
    assert (event.reason, event.slow_rate, event.failure_rate) == ("4 of 4 calls took longer than 0.1 s within 30 s", 100, 0)


def test_a_tool_has_a_breaker_of_its_own(gateway: Build) -> None:
    world = gateway(BREAKERS + "tools: {crm: {base_url: 'http://127.0.0.1:9'}}\nagents: {a: {}}")
    for status in (500, 404, 500, 500):  # half of the calls or more
        world.call("GET", "/tools/crm/orders")
        world.upstream.latest.answer(b"", status)
    assert changes(world) == [("tool/crm", "closed", "open")]
    response = world.call("GET", "/tools/crm/orders")
    assert (response.status, dict(response.headers)[b"x-holdfast-refusal"]) == (503, b"circuit_open")


def test_what_is_free_neither_needs_a_model_nor_heals_it(gateway: Build) -> None:
    world = gateway(BREAKERS + f"agents: {{a: {{routes: {{'*': ['anthropic/*']}}, {NO_RETRIES}}}}}")
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    count = {"model": "m", "messages": asked["messages"]}
    for _ in range(4):
        world.call("POST", "/v1/messages", asked)
        world.upstream.latest.answer(ERROR, 529)
        world.call("POST", "/v1/messages/count_tokens", count)
        world.upstream.latest.answer(b'{"input_tokens": 3}')
    assert changes(world) == [("anthropic/m", "closed", "open")]
    world.call("POST", "/v1/messages/count_tokens", count)
    world.upstream.latest.answer(b'{"input_tokens": 3}')
    assert world.call("POST", "/v1/messages", asked).status == 503


@pytest.mark.parametrize("name", ["openai", "openai/first", KEY])
def test_what_a_person_isolates_is_passed_over_until_it_is_reset_also_where_breakers_are_off(gateway: Build, name: str) -> None:
    world = gateway(TWO.replace(BREAKERS, "breakers: off\n"))
    world.isolations.isolate(Isolation(name=name, reason="it raves", author="ann@host", at=world.clock.wall_ns()))
    ask(world)
    world.upstream.latest.answer(ANSWER)
    assert world.recorder.decisions[-1].served_by == "simulated/second"
    assert f"{name} is held open since 2026-01-01T00:00:00.000Z: isolated by ann@host: it raves" in world.recorder.errors[-1].message
    assert f"`holdfast breaker reset {name}` closes it" in world.recorder.errors[-1].message
    world.isolations.reset(name)
    ask(world)
    world.upstream.latest.answer(ANSWER)
    assert world.recorder.decisions[-1].served_by == "openai/first"


def test_an_isolated_target_without_another_gives_no_time_to_come_again(gateway: Build) -> None:
    world = gateway(ONE)
    world.isolations.isolate(Isolation(name="openai"))
    response = ask(world)
    headers = dict(response.headers)
    assert (response.status, headers[b"x-should-retry"], headers[b"x-holdfast-refusal"]) == (503, b"false", b"circuit_open")


def test_breakers_that_are_off_never_open(gateway: Build) -> None:
    world = gateway("breakers: off\n" + ANY.removeprefix(BREAKERS))
    for _ in range(40):
        assert answered(world, 500).status == 500
    assert not changes(world)


def test_a_failed_call_is_not_answered_by_its_own_breaker_when_it_would_be_tried_again(gateway: Build) -> None:
    """The last failure is what the agent hears, not that the retry was kept away."""
    world = gateway(BREAKERS + "agents: {a: {routes: {'*': [openai/first]}, retries: {max: 3}}}")
    responses = [ask(world) for _ in range(4)]
    for exchange in list(world.upstream.exchanges):
        exchange.answer(ERROR, 500)
    world.clock.advance(5 * SECOND)
    assert len(world.upstream.exchanges) == 4
    assert [response.status for response in responses] == [500] * 4


@pytest.fixture
def two(options_of: Callable[[str], GatewayOptions]) -> Iterator[tuple[MemoryGateway, MemoryGateway]]:
    """Two gateways that share what is counted, as workers of one `holdfast up` do."""
    table = PrivateMemory(breakers.SIZE)
    one, other = (MemoryGateway(options_of(TWO), breaker_table=BreakerTable(table), seed=seed) for seed in (1, 2))
    yield one, other


def test_workers_count_together_and_each_change_is_on_record_once(two: tuple[MemoryGateway, MemoryGateway]) -> None:
    for world in (*two, *two):
        ask(world)
        world.upstream.latest.answer(ERROR, 500)
        world.upstream.latest.answer(ANSWER)
    assert [changes(world) for world in two] == [[], [("openai/first", "closed", "open")]]
    for world in two:
        ask(world)
        world.upstream.latest.answer(ANSWER)
        assert world.recorder.decisions[-1].served_by == "simulated/second"
        world.clock.advance(16 * SECOND)
    probe, elsewhere = two
    ask(probe)
    ask(elsewhere)
    elsewhere.upstream.latest.answer(ANSWER)
    assert elsewhere.recorder.decisions[-1].served_by == "simulated/second"
    probe.upstream.latest.answer(ANSWER)
    ask(elsewhere)
    elsewhere.upstream.latest.answer(ANSWER)
    assert elsewhere.recorder.decisions[-1].served_by == "openai/first"
    assert [changes(world) for world in two] == [
        [("openai/first", "open", "half_open"), ("openai/first", "half_open", "closed")],
        [("openai/first", "closed", "open")],
    ]


def test_whoever_waits_for_a_target_can_ask_when_it_will_be_there(gateway: Build) -> None:
    world = gateway(ONE)
    answered(world, 500)
    first = world.breakers.of("openai/first", "openai", "sk-upstream", None)
    serial = world.breakers.serial()
    assert world.breakers.wait_ns(first) == 0
    for _ in range(3):
        answered(world, 500)
    assert world.breakers.serial() > serial
    assert 15 * SECOND <= (world.breakers.wait_ns(first) or 0) <= 16.5 * SECOND
    world.isolations.isolate(Isolation(name="openai"))
    assert world.breakers.wait_ns(first) is None


def test_calls_that_wait_in_the_queue_come_through_open_breakers_without_one_being_lost(gateway: Build) -> None:
    """Ten calls a second for twenty seconds without any target, and for a minute after it came back."""
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}, on_unavailable: queue, retries: {max: 0}, timeouts: {total: 300s}}}")
    responses = []
    world.upstream.refusing = ConnectFailed("refused")
    for _ in range(200):
        responses.append(ask(world))
        world.clock.advance(SECOND // 10)
    world.upstream.refusing = None
    for _ in range(600):
        responses.append(ask(world))
        world.clock.advance(SECOND // 10)
        for exchange in list(world.upstream.exchanges):
            if not exchange.over:
                exchange.answer(ANSWER)
    for _ in range(600):
        world.clock.advance(SECOND // 10)
        for exchange in list(world.upstream.exchanges):
            if not exchange.over:
                exchange.answer(ANSWER)
    assert {response.status for response in responses} == {200}
    assert world.queue.waiting == 0
    assert len(world.recorder.decisions) == len(responses)
    assert len(world.upstream.exchanges) - len(responses) < 30
