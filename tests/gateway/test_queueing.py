"""Queue instead of drop: calls wait while nothing can serve them, and are let out smoothly when something can."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.clock import MILLISECOND, SECOND
from holdfast.errors import ConnectFailed
from holdfast.execution.upstream import Headers
from holdfast.gateway.options import GatewayOptions
from holdfast.policy.slow_start import LARGEST_ROUND, ROUND_NS
from holdfast.policy.waiting_line import QueueBounds
from holdfast.testing import MemoryResponse
from holdfast.testing.memory_gateway import MemoryGateway

Build = Callable[[str], MemoryGateway]

SAY: Any = [{"role": "user", "content": "hello"}]
ANSWER = b'{"id":"c","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5}}'
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
JSON = (b"content-type", b"application/json")
DEAD = ConnectFailed("no connection to 127.0.0.1:9: refused")
WAITS = "on_unavailable: queue, retries: {max: 0}, timeouts: {total: 300s}"
ROUTE = "routes: {'*': [simulated/*]}"
AGENT = f"breakers: off\nagents: {{a: {{{ROUTE}, {WAITS}}}}}\n"
TWO = f"breakers: off\nagents: {{a: {{routes: {{'*': [simulated/first, simulated/second]}}, {WAITS}}}}}\n"
STEP = 20 * MILLISECOND


def chat(world: MemoryGateway, agent: str = "", priority: str = "", **more: Any) -> MemoryResponse:
    given = {"x-holdfast-agent": agent, "x-holdfast-priority": priority}
    headers = {name: value for name, value in given.items() if value}
    return world.call("POST", "/v1/chat/completions", {"model": "m", "messages": SAY, **more}, headers)


def header(response: MemoryResponse, name: str) -> str | None:
    return next((value.decode() for key, value in response.headers if key == name.encode()), None)


def error_of(response: MemoryResponse) -> dict[str, Any]:
    body: Any = response.json()
    error: dict[str, Any] = body["error"]
    return error


def dead(world: MemoryGateway, calls: int = 1, **more: Any) -> list[MemoryResponse]:
    """So many calls that come while nothing can be reached."""
    world.upstream.refusing = DEAD
    return [chat(world, **more) for _ in range(calls)]


def serve(world: MemoryGateway, ns: int) -> None:
    """Let time pass with a provider that answers within 20 ms."""
    world.upstream.refusing = None
    for _ in range(ns // STEP):
        world.clock.advance(STEP)
        for exchange in list(world.upstream.exchanges):
            if not exchange.over:
                exchange.answer(ANSWER)


def queued(world: MemoryGateway) -> list[str]:
    return [error.message for error in world.recorder.errors if error.message.startswith("waited")]


def test_a_call_that_nothing_can_serve_waits_and_is_served_when_something_can(gateway: Build) -> None:
    world = gateway(AGENT)
    (response,) = dead(world)
    assert (response.over, world.queue.by_agent()) == (False, {"a": 1})
    serve(world, 10 * SECOND)
    assert (response.status, world.queue.waiting, world.clock.pending) == (200, 0, 0)
    assert header(response, "x-holdfast-attempts") == "2"
    failed, waited = world.recorder.errors
    assert (failed.error_type, failed.recovery_action, failed.severity) == ("connection", "queued", "warning")
    assert (waited.error_type, waited.recovery_action, waited.severity) == ("connection", "queued", "info")
    assert waited.message == "waited 0.500 s in the admission queue for simulated/m"
    assert [decision.recovery_action for decision in world.recorder.decisions] == ["queued"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_statuses_that_say_not_now_make_a_call_wait(gateway: Build, status: int) -> None:
    world = gateway(AGENT)
    response = chat(world)
    world.upstream.latest.answer(b'{"error":{}}', status)
    assert not response.over
    serve(world, 10 * SECOND)
    assert response.status == 200


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 413, 422])
def test_an_answer_about_the_call_itself_is_passed_on(gateway: Build, status: int) -> None:
    world = gateway(AGENT)
    response = chat(world)
    world.upstream.latest.answer(b'{"error":{}}', status)
    assert (response.status, world.queue.waiting, world.clock.pending) == (status, 0, 0)


def test_without_on_unavailable_nothing_waits_and_the_failure_is_passed_on(gateway: Build) -> None:
    world = gateway(AGENT.replace("queue", "refuse"))
    (response,) = dead(world)
    assert (response.status, header(response, "x-holdfast-refusal")) == (503, "upstream_failed")


def test_retries_come_before_the_wait_and_anew_after_it(gateway: Build) -> None:
    world = gateway(AGENT.replace("max: 0", "max: 1"))
    (response,) = dead(world)
    world.clock.advance(2 * SECOND)
    assert [error.recovery_action for error in world.recorder.errors] == ["retried", "queued", "queued", "retried", "queued"]
    serve(world, 20 * SECOND)
    assert response.status == 200


def test_a_time_out_before_the_first_token_and_an_error_in_its_place_make_a_call_wait(gateway: Build) -> None:
    world = gateway(AGENT.replace("total", "first_token: 5s, total"))
    late, broken = chat(world, stream=True), chat(world, stream=True)
    world.upstream.latest.stream(b'data: {"error":{"message":"overloaded"}}\n\n')
    world.clock.advance(5 * SECOND)
    assert not late.over and not broken.over
    for _ in range(3):
        world.clock.advance(SECOND)
        for exchange in world.upstream.exchanges:
            exchange.stream(HELLO, b"data: [DONE]\n\n")
    assert (late.status, broken.status) == (200, 200)


def test_what_has_begun_never_waits(gateway: Build) -> None:
    world = gateway(AGENT)
    response = chat(world, stream=True)
    world.upstream.latest.start()
    world.upstream.latest.data(HELLO)
    world.upstream.latest.fail(DEAD)
    assert (response.over, world.queue.waiting) == (True, 0)


def test_a_stream_that_another_target_could_not_go_on_with_does_not_wait_either(gateway: Build) -> None:
    world = gateway(TWO.replace("on_un", "fallback: {continue_streams: true}, on_un"))
    response = chat(world, stream=True)
    world.upstream.latest.start()
    world.upstream.latest.data(HELLO)
    world.upstream.latest.fail(DEAD)
    world.upstream.latest.fail(DEAD)
    assert (len(world.upstream.exchanges), response.over, world.queue.waiting) == (2, True, 0)


def test_a_call_that_can_neither_wait_behind_the_others_nor_be_served_hears_its_own_failure(gateway: Build) -> None:
    world = gateway(f"breakers: off\nagents: {{a: {{{ROUTE}, {WAITS}}}, b: {{{ROUTE}, {WAITS.replace('300s', '100s')}}}}}\n")
    chat(world, "a")
    world.upstream.latest.answer(b'{"error":{}}', 503, (JSON, (b"retry-after", b"200")))
    world.clock.advance(SECOND)
    hasty = chat(world, "b")
    world.upstream.latest.answer(b'{"error":{}}', 401)
    assert hasty.status == 401


def test_a_call_that_had_little_time_says_nothing_about_its_target(gateway: Build) -> None:
    world = gateway(f"breakers: off\nagents: {{a: {{{ROUTE}, {WAITS}}}, b: {{{ROUTE}, timeouts: {{total: 2s}}}}}}\n")
    dead(world, 2, agent="a")
    world.upstream.refusing = None
    world.clock.advance(SECOND // 5)
    hasty = chat(world, "b")
    world.clock.advance(2 * SECOND)
    assert (hasty.status, len(world.upstream.exchanges)) == (504, 4)
    world.clock.advance(SECOND // 2)
    assert len(world.upstream.exchanges) == 5


def test_where_another_target_serves_the_call_it_does_not_wait_and_a_reply_serves_it_too(gateway: Build) -> None:
    world = gateway(TWO)
    response = chat(world)
    world.upstream.latest.fail(DEAD)
    world.upstream.latest.answer(ANSWER)
    assert (response.status, world.queue.waiting) == (200, 0)
    replying = gateway(AGENT.replace("simulated/*", "simulated/*, {reply: later}"))
    (canned,) = dead(replying)
    assert (canned.status, header(canned, "x-holdfast-served-by")) == (200, "reply")


def test_a_call_waits_for_those_targets_that_may_come_back_and_begins_at_the_first(gateway: Build) -> None:
    world = gateway(TWO)
    response = chat(world)
    world.upstream.latest.answer(b'{"error":{}}', 503)
    world.upstream.latest.answer(b'{"error":{}}', 401)
    assert not response.over
    serve(world, 2 * SECOND)
    assert header(response, "x-holdfast-served-by") == "simulated/first"
    assert queued(world) == ["waited 0.500 s in the admission queue for simulated/first"]


def test_retry_after_is_kept_and_a_call_that_cannot_wait_so_long_is_told_at_once(gateway: Build) -> None:
    world = gateway(AGENT)
    patient = chat(world)
    asked: Headers = (JSON, (b"retry-after", b"100"))
    world.upstream.latest.answer(b'{"error":{}}', 503, asked)
    world.clock.advance(100 * SECOND - 1)
    assert len(world.upstream.exchanges) == 1
    world.clock.advance(1)
    world.upstream.latest.answer(b'{"error":{}}', 503, (JSON, (b"retry-after", b"200")))
    assert (patient.status, header(patient, "retry-after")) == (503, "200")
    assert world.queue.waiting == 0


def test_who_has_waited_as_long_as_it_may_is_refused_with_what_there_is_to_know(gateway: Build) -> None:
    world = gateway(AGENT.replace("total: 300s", "total: 300s, queue: 30s"))
    (response,) = dead(world)
    world.clock.advance(30 * SECOND)
    assert (response.status, world.clock.pending) == (503, 0)
    said = [header(response, name) for name in ("x-holdfast-refusal", "x-should-retry")]
    assert said == ["queue_timeout", "false"] and int(header(response, "retry-after") or 0) >= 1
    error = error_of(response)
    assert error["message"].startswith("Refused by Holdfast: simulated/m cannot serve it now, and the call has waited for 30.0 s;")
    assert error["message"].endswith("Last: simulated/m: no connection to 127.0.0.1:9: refused.")
    assert (error["targets"], error["waited_s"]) == ("simulated/m", 30)
    assert [error.recovery_action for error in world.recorder.errors[-2:]] == ["queued", "refused"]


def test_the_total_time_out_includes_the_wait(gateway: Build) -> None:
    world = gateway(AGENT)
    (response,) = dead(world)
    world.clock.advance(300 * SECOND)
    assert (response.status, header(response, "x-holdfast-refusal")) == (503, "queue_timeout")


def test_an_outage_under_steady_traffic_loses_nothing_and_ends_smoothly(gateway: Build) -> None:
    """Ten calls a second for a minute without any target, and for 20 s after it came back."""
    world = gateway(AGENT)
    responses = []
    for _ in range(600):
        responses += dead(world)
        world.clock.advance(100 * MILLISECOND)
    tried = len(world.upstream.exchanges)
    assert world.queue.waiting == 600 and tried < 50, "those who come later wait behind those who wait already"
    sent: Counter[int] = Counter()
    for _ in range(200):
        responses.append(chat(world))
        before = len(world.upstream.exchanges)
        serve(world, 100 * MILLISECOND)
        sent[world.clock.monotonic_ns() // ROUND_NS] += len(world.upstream.exchanges) - before
    assert {response.status for response in responses} == {200}
    assert max(sent.values()) <= LARGEST_ROUND + 1
    busy = [count for count in sent.values() if count]
    assert busy[0] <= 2 and sorted(busy[:6]) == busy[:6]
    assert (world.queue.waiting, world.clock.pending) == (0, 0)
    assert len(world.recorder.decisions) == len(responses)


def test_when_the_target_dies_again_those_who_wait_go_on_waiting(gateway: Build) -> None:
    world = gateway(AGENT)
    responses = dead(world, 100)
    serve(world, SECOND)
    answered = sum(response.over for response in responses)
    assert 0 < answered < 100
    world.upstream.refusing = DEAD
    world.clock.advance(30 * SECOND)
    assert sum(response.over for response in responses) == answered
    serve(world, 30 * SECOND)
    assert {response.status for response in responses} == {200}


def test_a_quiet_agent_is_not_held_up_by_a_noisy_one(gateway: Build) -> None:
    world = gateway(f"breakers: off\nagents: {{noisy: {{{ROUTE}, {WAITS}}}, quiet: {{{ROUTE}, {WAITS}}}}}\n")
    noisy, quiet = dead(world, 400, agent="noisy"), dead(world, 4, agent="quiet")
    serve(world, SECOND)
    assert [response.status for response in quiet] == [200] * 4
    assert sum(response.over for response in noisy) < 40


def test_urgent_calls_go_first_and_no_agent_makes_its_own_more_urgent_than_it_may(gateway: Build) -> None:
    world = gateway(f"breakers: off\nagents: {{a: {{{ROUTE}, {WAITS}, priority: high}}, b: {{{ROUTE}, {WAITS}}}}}\n")
    dead(world, agent="b")
    low, raised, normal = (chat(world, "b", priority) for priority in ("low", "high", ""))
    urgent, lowered = chat(world, "a"), chat(world, "a", "low")
    order: list[str] = []
    waiting = {"low": low, "raised": raised, "normal": normal, "urgent": urgent, "lowered": lowered}
    for _ in range(100):
        serve(world, 100 * MILLISECOND)
        order += sorted(name for name, response in waiting.items() if response.over and name not in order)
    assert order[0] == "urgent"
    assert order[1:3] == ["normal", "raised"] and set(order[3:]) == {"low", "lowered"}


def bounded(options_of: Callable[[str], GatewayOptions], yaml: str, bounds: QueueBounds) -> MemoryGateway:
    return MemoryGateway(options_of(yaml), queue_bounds=bounds)


def test_a_full_queue_refuses_and_the_more_urgent_displace_the_newest(options_of: Callable[[str], GatewayOptions]) -> None:
    world = bounded(options_of, AGENT.replace("on_un", "priority: high, on_un"), QueueBounds(calls=2))
    first, second, third = dead(world, 3, priority="normal")
    assert [header(third, name) for name in ("x-holdfast-refusal", "x-should-retry", "retry-after")] == ["queue_full", "false", "1"]
    assert third.status == 503 and "as many calls as may wait for it do" in error_of(third)["message"]
    urgent = chat(world, priority="high")
    assert (first.over, second.status, urgent.over) == (False, 503, False)


def test_the_bodies_of_those_who_wait_are_bounded(options_of: Callable[[str], GatewayOptions]) -> None:
    world = bounded(options_of, AGENT, QueueBounds(bytes=10_000))
    long: Any = [{"role": "user", "content": "x" * 4_000}]
    responses = dead(world, 3, messages=long)
    assert [response.status for response in responses] == [0, 0, 503]
    assert world.queue.waiting == 2


def test_a_client_that_leaves_is_out_of_the_queue_at_once(gateway: Build) -> None:
    world = gateway(AGENT)
    (gone,) = dead(world)
    world.clock.advance(SECOND // 4)
    gone.leave()
    assert (world.queue.waiting, world.clock.pending) == (0, 0)
    assert queued(world) == ["waited 0.250 s in the admission queue for simulated/m"]
    assert world.recorder.errors[-1].error_type == "cancelled"


def test_the_kill_switch_refuses_what_waits(gateway: Build) -> None:
    world = gateway(AGENT)
    responses = dead(world, 2)
    world.kill("agent", "a")
    assert {(response.status, header(response, "x-holdfast-refusal")) for response in responses} == {(403, "killed")}
    assert (world.queue.waiting, world.clock.pending) == (0, 0)
    assert dead(world)[0].status == 403


def test_a_killed_agent_is_not_let_wait_behind_the_others(gateway: Build) -> None:
    world = gateway(f"breakers: off\nagents: {{a: {{{ROUTE}, {WAITS}}}, b: {{{ROUTE}, {WAITS}}}}}\n")
    dead(world, 2, agent="a")
    world.kill("agent", "b")
    world.clock.advance(SECOND // 2)
    assert (chat(world, "b").status, world.queue.waiting) == (403, 2)


def test_a_kill_of_one_model_is_met_when_the_wait_is_over(gateway: Build) -> None:
    world = gateway(TWO)
    (response,) = dead(world)
    world.kill("model", "simulated/first")
    assert not response.over
    serve(world, 10 * SECOND)
    assert header(response, "x-holdfast-served-by") == "simulated/second"


def test_at_the_end_of_the_process_what_waits_is_refused_and_may_be_sent_again(gateway: Build) -> None:
    world = gateway(AGENT)
    responses = dead(world, 2)
    world.queue.close()
    for response in (*responses, *dead(world)):
        assert [header(response, name) for name in ("x-holdfast-refusal", "x-should-retry", "retry-after")] == ["ending", "true", "1"]
        assert response.status == 503


def test_a_wait_holds_neither_money_nor_a_rates_turn(gateway: Build) -> None:
    world = gateway(AGENT + "limits: [{calls: 2, per: hour}]\nrates: [{requests: 1, per: hour, burst: 1, on_excess: refuse}]")
    dead(world, 2)
    assert [account.reserved for account in world.limiter._all_accounts()] == [0]
    assert world.rates.waiting == 0
    world.upstream.refusing = None
    world.clock.advance(SECOND)
    assert [account.reserved for account in world.limiter._all_accounts()] == [1]


def test_calls_that_a_limit_refuses_after_their_wait_do_not_hold_up_the_others(gateway: Build) -> None:
    world = gateway(AGENT + "limits: [{calls: 1, per: total}]")
    responses = dead(world, 50)
    serve(world, SECOND)
    assert Counter(response.status for response in responses) == {200: 1, 402: 49}


def test_a_call_that_fails_wherever_it_goes_does_not_hold_up_the_others(gateway: Build) -> None:
    world = gateway(AGENT)

    def serve_all_but_one(ns: int) -> None:
        for _ in range(ns // STEP):
            world.clock.advance(STEP)
            for exchange in list(world.upstream.exchanges):
                if b"poison" in exchange.request.body:
                    exchange.answer(b"{}", 500)
                else:
                    exchange.answer(ANSWER)

    poison = chat(world, messages=[{"role": "user", "content": "poison"}])
    serve_all_but_one(100 * MILLISECOND)
    others = []
    for _ in range(600):
        others.append(chat(world))
        serve_all_but_one(100 * MILLISECOND)
    late = [response for response in others[:-20] if not response.over]
    assert not late and not poison.over
    assert {response.status for response in others if response.over} == {200}


def test_an_agent_that_does_not_queue_tries_at_once_and_what_it_finds_helps_those_who_wait(gateway: Build) -> None:
    world = gateway(f"breakers: off\nagents: {{a: {{{ROUTE}, {WAITS}}}, b: {{{ROUTE}}}}}\n")
    waiting = dead(world, 2, agent="a")
    world.upstream.refusing = None
    world.clock.advance(SECOND // 2)
    direct = chat(world, "b")
    assert len(world.upstream.exchanges) == 4
    world.upstream.latest.answer(ANSWER)
    assert direct.status == 200
    world.clock.advance(ROUND_NS)
    assert world.queue.waiting == 0
    assert not any(response.over for response in waiting)


def test_behind_an_open_breaker_calls_wait_for_its_cooldown_and_are_let_out_when_its_probes_succeed(gateway: Build) -> None:
    world = gateway(AGENT.replace("off", "{minimum_calls: 5, cooldown: 20s}"))
    responses = dead(world, 100)
    tried = len(world.upstream.exchanges)
    world.clock.advance(19 * SECOND)
    assert tried == len(world.upstream.exchanges) == 5
    assert {error.recovery_action for error in world.recorder.errors} == {"queued"}
    serve(world, 10 * SECOND)
    assert {response.status for response in responses} == {200}


def test_a_breaker_that_is_reset_by_hand_lets_out_those_who_wait_within_seconds(gateway: Build) -> None:
    world = gateway(AGENT.replace("off", "{minimum_calls: 5, cooldown: 200s}"))
    responses = dead(world, 10)
    world.upstream.refusing = None
    serve(world, 30 * SECOND)
    assert not any(response.over for response in responses)
    for name in ("simulated", "simulated/m"):
        world.breaker_table.reset(name, world.clock.monotonic_ns(), world.clock.wall_ns())
    serve(world, 10 * SECOND)
    assert {response.status for response in responses} == {200}


def test_a_call_that_must_end_before_its_breaker_may_be_probed_is_refused_at_once(gateway: Build) -> None:
    world = gateway(AGENT.replace("off", "{minimum_calls: 1, cooldown: 310s}"))
    dead(world)
    (response,) = dead(world)
    assert (response.status, header(response, "x-holdfast-refusal")) == (503, "circuit_open")


def test_a_defect_when_the_wait_is_over_is_told_to_the_agent(gateway: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    world = gateway(AGENT)
    broken, healthy = dead(world, 2)
    world.upstream.refusing = None
    with monkeypatch.context() as patch:
        patch.setattr(world.limiter, "reserve", lambda *_: patch.undo() or 1 / 0)  # type: ignore[func-returns-value]
        world.clock.advance(SECOND // 2)
    assert broken.status == 500 and not healthy.over
    serve(world, 10 * SECOND)
    assert healthy.status == 200
