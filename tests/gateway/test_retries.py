"""Which failures are tried again, where, and when; what the agent and the record learn of it."""

from collections.abc import Callable

import msgspec
import pytest

from holdfast.clock import MILLISECOND, SECOND
from holdfast.errors import ConnectFailed, ConnectionCut, GarbageReceived, UpstreamError
from holdfast.execution.upstream import Headers
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
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'{"error":{"message":"no","type":"t","code":null,"param":null}}'

ONE = "agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 2}}}"
NO_RETRIES = "agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 0}}}"
TWO = "agents: {a: {routes: {'*': [simulated/first, openai/second]}, retries: {max: 2}, timeouts: {first_token: 20s}}}"
TWO_NO_RETRIES = "agents: {a: {routes: {'*': [simulated/first, openai/second]}, retries: {max: 0}, timeouts: {first_token: 20s}}}"


def header(response: MemoryResponse, name: str) -> str | None:
    return next((value.decode() for key, value in response.headers if key == name.encode()), None)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_a_failure_that_may_pass_is_tried_again_with_growing_jittered_waits(gateway: Build, status: int) -> None:
    world = gateway(ONE)
    response = world.call("POST", CHAT, QUESTION)
    for expected, wait_ns in ((2, 250 * MILLISECOND), (3, 500 * MILLISECOND)):
        world.upstream.latest.answer(ERROR, status)
        world.clock.advance(wait_ns - 1)
        assert len(world.upstream.exchanges) == expected - 1 and not response.over
        world.clock.advance(1)
        assert len(world.upstream.exchanges) == expected
    world.upstream.latest.answer(ANSWER)
    assert (response.status, response.body, header(response, "x-holdfast-attempts")) == (200, ANSWER, "3")
    assert [call.response_code for call in world.recorder.api_calls] == [status, status, 200]
    assert [call.retry_count for call in world.recorder.api_calls] == [0, 1, 2]
    assert [error.recovery_action for error in world.recorder.errors] == ["retried", "retried"]
    (decision,) = world.recorder.decisions
    assert (decision.attempts, decision.recovery_action, decision.error_id) == (3, "retried", world.recorder.errors[-1].error_id)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 501, 505])
def test_a_failure_that_cannot_pass_is_handed_on_at_once_as_it_came(gateway: Build, status: int) -> None:
    world = gateway(ONE)
    response = world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(
        ERROR, status, ((b"content-type", b"application/json"), (b"request-id", b"req_1"), (b"x-should-retry", b"true"))
    )
    assert (response.status, response.body, response.ended) == (status, ERROR, True)
    assert (header(response, "request-id"), header(response, "x-should-retry")) == ("req_1", "true")
    assert len(world.upstream.exchanges) == 1 and not world.clock.pending
    assert [error.recovery_action for error in world.recorder.errors] == ["none"]


@pytest.mark.parametrize("error", [ConnectFailed("refused"), ConnectionCut("closed"), GarbageReceived("not HTTP")])
def test_a_failure_below_http_is_tried_again(gateway: Build, error: UpstreamError) -> None:
    world = gateway(ONE)
    response = world.call("POST", CHAT, QUESTION)
    world.upstream.latest.fail(error)
    world.clock.advance(250 * MILLISECOND)
    world.upstream.latest.answer(ANSWER)
    assert (response.status, len(world.upstream.exchanges)) == (200, 2)


@pytest.mark.parametrize("body", [b"<html>", b'["not", "an", "answer"]', b""])
def test_what_is_no_answer_is_tried_again_and_then_handed_on_as_it_came(gateway: Build, body: bytes) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 1}}}")
    response = world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(body)
    world.clock.advance(SECOND)
    world.upstream.latest.answer(body)
    assert (response.status, response.body, response.ended) == (200, body, True)
    assert [error.error_type for error in world.recorder.errors] == ["parsing", "parsing"]
    assert not world.recorder.decisions


@pytest.mark.parametrize(
    ("headers", "waits_ns"),
    [
        (((b"retry-after", b"3"),), 3 * SECOND),
        (((b"retry-after", b"0"),), 250 * MILLISECOND),
        (((b"retry-after", b"0.7"),), 700 * MILLISECOND),
        (((b"retry-after", b"9"), (b"retry-after-ms", b"1500")), 1500 * MILLISECOND),
        (((b"retry-after", b"soon"),), 250 * MILLISECOND),
        (((b"retry-after", b"-5"),), 250 * MILLISECOND),
        (((b"retry-after", b"nan"),), 250 * MILLISECOND),
        (((b"retry-after", b"inf"),), 250 * MILLISECOND),
    ],
)
def test_retry_after_is_honoured(gateway: Build, headers: Headers, waits_ns: int) -> None:
    world = gateway(ONE)
    world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(ERROR, 429, headers)
    world.clock.advance(waits_ns - 1)
    assert len(world.upstream.exchanges) == 1
    world.clock.advance(1)
    assert len(world.upstream.exchanges) == 2


def test_a_retry_after_beyond_the_total_time_out_is_not_begun(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}, timeouts: {total: 30s}}}")
    response = world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(ERROR, 429, ((b"retry-after", b"30"),))
    assert (response.status, header(response, "retry-after"), header(response, "x-should-retry")) == (429, "30", None)
    assert not world.clock.pending


def test_the_total_time_out_holds_over_all_attempts(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 5}, timeouts: {total: 10s}}}")
    response = world.call("POST", CHAT, QUESTION)
    world.clock.advance(9 * SECOND)
    world.upstream.latest.answer(ERROR, 500)
    world.clock.advance(999 * MILLISECOND)
    assert len(world.upstream.exchanges) == 2 and not response.over
    world.clock.advance(MILLISECOND)
    assert (response.status, header(response, "x-should-retry"), world.upstream.latest.cancelled) == (504, "false", True)
    assert [error.error_type for error in world.recorder.errors] == ["api_error", "timeout"]


def test_a_whole_answer_that_does_not_come_leaves_half_of_the_time_to_the_next_target(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/first, openai/second, {reply: Later.}]}, timeouts: {total: 40s}}}")
    response = world.call("POST", CHAT, QUESTION)
    for expected, wait_ns in ((2, 20 * SECOND), (2, 10 * SECOND - 1)):
        world.clock.advance(wait_ns)
        assert len(world.upstream.exchanges) == expected and not response.over
    world.clock.advance(1)
    assert (header(response, "x-holdfast-served-by"), b"Later." in response.body) == ("reply", True)
    assert [error.error_type for error in world.recorder.errors] == ["timeout", "timeout"]
    assert [error.recovery_action for error in world.recorder.errors] == ["fell_back", "canned"]


def test_the_last_target_has_all_the_time_that_is_left_for_a_whole_answer(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}, timeouts: {total: 40s}}}")
    response = world.call("POST", CHAT, QUESTION)
    world.clock.advance(40 * SECOND - 1)
    world.upstream.latest.answer(ANSWER)
    assert response.status == 200


def test_how_long_a_whole_answer_may_take_can_be_said(gateway: Build) -> None:
    timeouts = "timeouts: {answer: 5s, total: 40s}"
    world = gateway(f"agents: {{a: {{routes: {{'*': [simulated/first, openai/second]}}, retries: {{max: 0}}, {timeouts}}}}}")
    response = world.call("POST", CHAT, QUESTION)
    world.clock.advance(5 * SECOND - 1)
    assert len(world.upstream.exchanges) == 1
    world.clock.advance(1)
    assert len(world.upstream.exchanges) == 2
    world.clock.advance(5 * SECOND)
    assert response.status == 504 and b"answer time-out after 5 s" in response.body


def test_after_the_retries_the_last_failure_is_handed_on_and_the_sdk_is_told_not_to_repeat_them(gateway: Build) -> None:
    world = gateway(ONE)
    response = world.call("POST", CHAT, QUESTION)
    for _ in range(3):
        world.upstream.latest.answer(ERROR, 500, ((b"x-should-retry", b"true"),))
        world.clock.advance(8 * SECOND)
    assert (len(world.upstream.exchanges), response.status, response.body) == (3, 500, ERROR)
    assert [value for name, value in response.headers if name == b"x-should-retry"] == [b"false"]
    assert [error.recovery_action for error in world.recorder.errors] == ["retried", "retried", "none"]
    assert world.recorder.errors[-1].severity == "critical"


def test_where_no_retries_are_wanted_the_sdk_is_told_not_to_begin_with_its_own(gateway: Build) -> None:
    world = gateway(NO_RETRIES)
    response = world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(ERROR, 500)
    assert (response.status, header(response, "x-should-retry"), len(world.upstream.exchanges)) == (500, "false", 1)


def test_an_answer_that_is_not_streamed_has_no_first_token_to_wait_for(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}, timeouts: {first_token: 2s, idle: 2s, total: 60s}}}")
    response = world.call("POST", CHAT, QUESTION)
    world.clock.advance(59 * SECOND)
    world.upstream.latest.answer(ANSWER)
    assert (response.status, len(world.upstream.exchanges)) == (200, 1)


@pytest.mark.parametrize("model", ["m\r\nx-evil: 1", "m\x00", "ü", "m\x7f", "a b"])
def test_no_models_name_breaks_out_of_a_header(gateway: Build, model: str) -> None:
    world = gateway(ONE)
    response = world.call("POST", CHAT, {**QUESTION, "model": model})
    world.upstream.latest.answer(ANSWER)
    served_by = header(response, "x-holdfast-served-by")
    assert served_by is not None and served_by.startswith("simulated/") and served_by.isascii() and served_by.isprintable()
    assert world.recorder.decisions[0].served_by == f"simulated/{model}"


def fail_with_status(world: MemoryGateway) -> None:
    world.upstream.latest.answer(ERROR, 500)


def fail_to_connect(world: MemoryGateway) -> None:
    world.upstream.latest.fail(ConnectFailed("refused"))


def never_begin(world: MemoryGateway) -> None:
    world.clock.advance(20 * SECOND)


def begin_and_stall(world: MemoryGateway) -> None:
    world.upstream.latest.start()
    world.clock.advance(20 * SECOND)


def cut_before_the_first_token(world: MemoryGateway) -> None:
    world.upstream.latest.start()
    world.upstream.latest.fail(ConnectionCut("closed"))


def end_before_the_first_token(world: MemoryGateway) -> None:
    world.upstream.latest.stream()


def report_an_error_first(world: MemoryGateway) -> None:
    world.upstream.latest.stream(b'data: {"error":{"message":"overloaded"}}\n\n')


def send_garbage(world: MemoryGateway) -> None:
    world.upstream.latest.answer(b"<html>")


def lose_the_key(world: MemoryGateway) -> None:
    world.upstream.latest.answer(ERROR, 401)


def lack_the_model(world: MemoryGateway) -> None:
    world.upstream.latest.answer(ERROR, 404)


FAILURES = [
    fail_with_status,
    fail_to_connect,
    never_begin,
    begin_and_stall,
    cut_before_the_first_token,
    end_before_the_first_token,
    report_an_error_first,
    send_garbage,
    lose_the_key,
    lack_the_model,
]


@pytest.mark.parametrize("fail", FAILURES, ids=lambda failure: failure.__name__)
def test_until_the_first_token_another_target_takes_over(gateway: Build, fail: Callable[[MemoryGateway], None]) -> None:
    world = gateway(TWO_NO_RETRIES)
    response = world.call("POST", CHAT, {**QUESTION, "stream": True})
    fail(world)
    assert not response.status and len(world.upstream.exchanges) == 2
    assert world.upstream.exchanges[0].over
    request = world.upstream.latest.request
    assert msgspec.json.decode(request.body)["model"] == "second"
    assert (b"authorization", b"Bearer sk-upstream") in list(request.headers)
    world.upstream.latest.stream(HELLO, DONE)
    assert (response.body, response.ended) == (HELLO + DONE, True)
    assert (header(response, "x-holdfast-served-by"), header(response, "x-holdfast-attempts")) == ("openai/second", "2")
    assert [error.recovery_action for error in world.recorder.errors] == ["fell_back"]
    (decision,) = world.recorder.decisions
    assert (decision.recovery_action, decision.served_by, decision.model, decision.attempts) == ("fell_back", "openai/second", "m", 2)
    assert [call.target_api for call in world.recorder.api_calls] == [f"simulated/first POST {CHAT}", f"openai/second POST {CHAT}"]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_wrong_itself_is_not_sent_elsewhere(gateway: Build, status: int) -> None:
    world = gateway(TWO)
    response = world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(ERROR, status)
    assert (response.status, len(world.upstream.exchanges)) == (status, 1)


def test_where_another_target_is_left_there_is_one_quick_retry(gateway: Build) -> None:
    world = gateway(TWO)
    response = world.call("POST", CHAT, QUESTION)
    for failures in range(1, 4):
        world.upstream.latest.answer(ERROR, 500)
        world.clock.advance(SECOND)
        assert len(world.upstream.exchanges) == failures + 1
    models = [msgspec.json.decode(exchange.request.body)["model"] for exchange in world.upstream.exchanges]
    assert models == ["first", "first", "second", "second"]
    world.upstream.latest.answer(ANSWER)
    assert response.status == 200
    assert [error.recovery_action for error in world.recorder.errors] == ["retried", "fell_back", "retried"]


@pytest.mark.parametrize("fail", [never_begin, begin_and_stall], ids=lambda failure: failure.__name__)
def test_a_target_that_was_slow_once_is_not_waited_for_again(gateway: Build, fail: Callable[[MemoryGateway], None]) -> None:
    world = gateway(TWO)
    world.call("POST", CHAT, {**QUESTION, "stream": True})
    fail(world)
    assert msgspec.json.decode(world.upstream.latest.request.body)["model"] == "second"


def test_a_target_that_asks_for_a_long_wait_is_left_for_another(gateway: Build) -> None:
    world = gateway(TWO)
    world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(ERROR, 429, ((b"retry-after", b"1"),))
    assert msgspec.json.decode(world.upstream.latest.request.body)["model"] == "second"


def test_failing_inside_send_a_target_gives_way_to_the_next_and_leaving_cancels_that_one(gateway: Build) -> None:
    world = gateway(TWO_NO_RETRIES)
    send = world.upstream.send

    def refuse_once(*arguments):  # type: ignore[no-untyped-def]
        world.upstream.refusing = None if world.upstream.exchanges else ConnectFailed("closed")
        return send(*arguments)

    world.upstream.send = refuse_once  # type: ignore[method-assign]
    response = world.call("POST", CHAT, QUESTION)
    assert [exchange.over for exchange in world.upstream.exchanges] == [True, False]
    response.leave()
    assert world.upstream.latest.cancelled
    assert [error.error_type for error in world.recorder.errors] == ["connection", "cancelled"]


def test_when_every_target_failed_the_last_failure_is_handed_on(gateway: Build) -> None:
    world = gateway(TWO_NO_RETRIES)
    response = world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(ERROR, 500)
    world.upstream.latest.answer(ERROR, 503, ((b"retry-after", b"7"),))
    assert (response.status, response.body, header(response, "retry-after")) == (503, ERROR, "7")
    assert (header(response, "x-holdfast-served-by"), header(response, "x-holdfast-attempts")) == ("openai/second", "2")


def test_a_failure_before_a_target_that_cannot_be_tried_is_named_after_where_it_happened(gateway: Build) -> None:
    world = gateway(
        "  closed: {kind: openai, api_key: env:NOT_SET}\nagents: {a: {routes: {'*': [simulated/first, closed/second]}, retries: {max: 0}}}"
    )
    response = world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(ERROR, 500)
    assert (response.status, header(response, "x-holdfast-served-by")) == (500, "simulated/first")
    assert len(world.upstream.exchanges) == 1


def test_after_the_first_token_a_failure_is_passed_on_and_nobody_takes_over(gateway: Build) -> None:
    world = gateway(TWO)
    response = world.call("POST", CHAT, {**QUESTION, "stream": True})
    world.upstream.latest.start()
    world.upstream.latest.data(HELLO)
    world.upstream.latest.fail(ConnectionCut("closed"))
    assert (response.status, response.body, response.aborted) == (200, HELLO, True)
    assert len(world.upstream.exchanges) == 1 and not world.clock.pending
    (decision,) = world.recorder.decisions
    assert (decision.complete, decision.answer) == (False, "Hello")


def test_an_idle_stream_ends_with_an_error_event_and_without_its_terminal_marker(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}, timeouts: {idle: 3s}}}")
    response = world.call("POST", CHAT, {**QUESTION, "stream": True})
    world.upstream.latest.start()
    world.upstream.latest.data(HELLO, HELLO[:20])
    world.clock.advance(3 * SECOND)
    assert response.ended and world.upstream.latest.cancelled
    assert response.body.startswith(HELLO) and b"idle time-out after 3 s" in response.body and DONE not in response.body
    assert msgspec.json.decode(response.body.split(b"data: ")[-1])["error"]["code"] == "upstream_failed"


@pytest.mark.parametrize(("fail", "status"), [(fail_to_connect, 503), (never_begin, 504), (begin_and_stall, 504)])
def test_what_no_upstream_said_becomes_a_status_of_the_gateways_own(
    gateway: Build, fail: Callable[[MemoryGateway], None], status: int
) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/m]}, retries: {max: 0}, timeouts: {first_token: 20s}}}")
    response = world.call("POST", CHAT, {**QUESTION, "stream": True})
    fail(world)
    assert (response.status, header(response, "x-should-retry")) == (status, "false")
    told = msgspec.json.decode(response.body)["error"]
    assert told["code"] == "upstream_failed" and "simulated/m" in told["message"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_connection_cut_before_anything_was_passed_on_cuts_the_agents(gateway: Build, streamed: bool) -> None:
    world = gateway(NO_RETRIES)
    response = world.call("POST", CHAT, {**QUESTION, "stream": streamed})
    world.upstream.latest.fail(ConnectionCut("closed"))
    assert (response.aborted, response.body) == (True, b"")


def test_the_routes_last_resort_answers_when_every_target_failed(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/m, {reply: 'We will write.'}]}, retries: {max: 0}}}")
    response = world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(ERROR, 500)
    assert msgspec.json.decode(response.body)["choices"][0]["message"]["content"] == "We will write."
    assert (header(response, "x-holdfast-served-by"), header(response, "x-holdfast-attempts")) == ("reply", "1")
    (decision,) = world.recorder.decisions
    assert (decision.served_by, decision.finish_reason, decision.cost, decision.recovery_action) == ("reply", "canned", 0, "canned")
