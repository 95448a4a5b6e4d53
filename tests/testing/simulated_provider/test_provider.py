"""The provider in process: no connection, a clock that stands still."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.clock import MILLISECOND, SECOND
from holdfast.providers.simulated import Simulated
from holdfast.testing import FakeClock, MemoryResponse, request
from holdfast.testing.simulated_provider import Script, ScriptedAnswer, ScriptedCall, Scripts, SimulatedProvider
from holdfast.testing.simulated_provider.stats import Cancellation, Tally

Json = Any

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
ANTHROPIC = {"anthropic-version": "2023-06-01"}


def body(api: str, model: str, text: str = "hello", **fields: Json) -> Json:
    if api == "responses":
        return {"model": model, "input": text, **fields}
    bound = {"max_tokens": 1000} if api == "messages" else {}
    return {"model": model, "messages": [{"role": "user", "content": text}], **bound, **fields}


class Caller:
    """A client of a provider in process."""

    def __init__(self, **options: Json) -> None:
        self.clock = FakeClock()
        self.provider = SimulatedProvider(clock=self.clock, **options)

    def call(self, api: str, model: str, text: str = "hello", headers: dict[str, str] | None = None, **fields: Json) -> MemoryResponse:
        return self.send("POST", PATHS[api], body(api, model, text, **fields), headers)

    def send(self, method: str, target: str, content: Json = None, headers: dict[str, str] | None = None) -> MemoryResponse:
        response = MemoryResponse()
        self.provider.application(request(method, target, content, headers or {}), response)
        return response

    @property
    def total(self) -> Tally:
        return self.provider.stats.total


@pytest.fixture
def caller() -> Caller:
    return Caller()


apis = pytest.mark.parametrize("api", list(PATHS))
WORDS: dict[str, Callable[[Json], str]] = {
    "chat": lambda answer: answer["choices"][0]["message"]["content"],
    "responses": lambda answer: answer["output"][0]["content"][0]["text"],
    "messages": lambda answer: answer["content"][0]["text"],
}
OUTPUT: dict[str, Callable[[Json], int]] = {
    "chat": lambda answer: answer["usage"]["completion_tokens"],
    "responses": lambda answer: answer["usage"]["output_tokens"],
    "messages": lambda answer: answer["usage"]["output_tokens"],
}
BOUND = {"chat": "max_completion_tokens", "responses": "max_output_tokens", "messages": "max_tokens"}
CUT: dict[str, Callable[[Json], bool]] = {
    "chat": lambda answer: answer["choices"][0]["finish_reason"] == "length",
    "responses": lambda answer: answer["incomplete_details"] == {"reason": "max_output_tokens"},
    "messages": lambda answer: answer["stop_reason"] == "max_tokens",
}


@apis
def test_the_reply_of_sim_ok_depends_on_the_last_message_alone(caller: Caller, api: str) -> None:
    first, again, other = (WORDS[api](caller.call(api, "sim-ok", text).json()) for text in ("a", "a", "b"))
    assert first == again != other


@apis
def test_sim_echo_says_what_it_heard(caller: Caller, api: str) -> None:
    assert WORDS[api](caller.call(api, "sim-echo", "Grüße 👋").json()) == "Grüße 👋"


@apis
def test_sim_tokens_answers_with_exactly_so_many(caller: Caller, api: str) -> None:
    assert OUTPUT[api](caller.call(api, "sim-tokens-37").json()) == 37


@apis
@pytest.mark.parametrize("stream", [True, False])
def test_sim_rate_lets_so_many_calls_a_minute_through_and_tells_what_is_left(caller: Caller, api: str, stream: bool) -> None:
    def ask() -> tuple[int, int, int]:
        response = caller.call(api, "sim-rate-2", stream=stream)
        [quota] = Simulated().quotas(response.headers, caller.clock.wall_ns())
        return response.status, quota.remaining, quota.resets_ns // SECOND

    assert [ask() for _ in range(3)] == [(200, 1, 30), (200, 0, 60), (429, 0, 60)]
    assert dict(caller.call(api, "sim-rate-2").headers)[b"retry-after"] == b"30"
    caller.clock.advance(30 * SECOND)
    assert [ask()[0] for _ in range(2)] == [200, 429]
    assert (caller.total.served, caller.total.failed) == (3, 3)


@apis
def test_sim_slow_tokens_paces_the_usual_reply(caller: Caller, api: str) -> None:
    response = caller.call(api, "sim-slow-tokens-20", stream=True)
    pieces = 0
    while not response.ended:
        caller.clock.advance(20 * MILLISECOND)
        pieces += 1
    assert pieces == OUTPUT[api](caller.call(api, "sim-ok").json())


@apis
@pytest.mark.parametrize("model", ["sim-tokens-37", "sim-reasoning", "sim-echo"])
def test_the_bound_of_output_tokens_is_obeyed_and_told(caller: Caller, api: str, model: str) -> None:
    answer = caller.call(api, model, "x" * 400, **{BOUND[api]: 5}).json()
    assert OUTPUT[api](answer) == 5
    assert CUT[api](answer)
    assert caller.total.output_tokens == 5


@apis
def test_nothing_at_all_comes_before_the_time_of_sim_slow(caller: Caller, api: str) -> None:
    response = caller.call(api, "sim-slow-250", stream=True)
    caller.clock.advance(250 * MILLISECOND - 1)
    assert response.status == 0
    caller.clock.advance(1)
    assert response.ended


@apis
def test_sim_stall_begins_the_stream_and_keeps_the_first_token_back(caller: Caller, api: str) -> None:
    response = caller.call(api, "sim-stall-250", stream=True)
    opening = response.body
    assert response.status == 200 and opening and b"Unde" not in opening
    caller.clock.advance(250 * MILLISECOND)
    assert b"Unde" in response.body and response.ended


@apis
def test_a_paced_stream_sends_one_token_at_a_time(caller: Caller, api: str) -> None:
    response = caller.call(api, "sim-stream-5-20", stream=True)
    sizes = [len(response.writes)]
    for _ in range(5):
        caller.clock.advance(20 * MILLISECOND)
        sizes.append(len(response.writes))
    assert sizes == [1, 2, 3, 4, 5, 6]
    assert response.ended
    assert caller.total.output_tokens == 5


@apis
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, 529])
def test_sim_error_answers_with_its_status_and_bills_nothing(caller: Caller, api: str, status: int) -> None:
    response = caller.call(api, f"sim-error-{status}")
    answer: Json = response.json()
    assert (response.status, "message" in answer["error"], answer.get("type")) == (status, True, "error" if api == "messages" else None)
    assert (b"retry-after" in dict(response.headers)) == (status == 429)
    assert caller.total == Tally(calls=1, failed=1)


def test_the_same_seed_lets_the_same_calls_fail() -> None:
    def statuses(seed: int) -> list[int]:
        caller = Caller(seed=seed)
        return [caller.call("chat", "sim-flaky-30").status for _ in range(200)]

    assert statuses(1) == statuses(1) != statuses(2)
    assert 30 < statuses(1).count(500) < 90


def test_the_first_calls_of_each_prompt_fail_and_then_none(caller: Caller) -> None:
    assert [caller.call("chat", "sim-fail-2-then-ok", "a").status for _ in range(4)] == [500, 500, 200, 200]
    assert [caller.call("chat", "sim-fail-2-then-ok", "b").status for _ in range(3)] == [500, 500, 200]


@apis
@pytest.mark.parametrize("stream", [True, False])
def test_a_hang_never_answers_and_bills_nothing_when_the_client_gives_up(caller: Caller, api: str, stream: bool) -> None:
    response = caller.call(api, "sim-hang", stream=stream)
    caller.clock.advance(3_600_000 * MILLISECOND)
    assert (response.status, response.over, caller.total.open) == (0, False, 1)
    response.leave()
    assert caller.total == Tally(calls=1, cancelled=1)


@apis
def test_a_cut_stream_bills_its_input_and_what_was_sent(caller: Caller, api: str) -> None:
    served = Caller()
    served.call(api, "sim-ok")
    response = caller.call(api, "sim-cut-stream", stream=True)
    assert response.aborted
    assert (caller.total.cut, caller.total.output_tokens) == (1, 3)
    assert caller.total.input_tokens == served.total.input_tokens


@apis
def test_a_stream_cut_before_its_first_token_bills_its_input_alone(caller: Caller, api: str) -> None:
    response = caller.call(api, "sim-cut-before", stream=True)
    assert (response.status, response.aborted) == (200, True)
    assert caller.total.input_tokens > 0 == caller.total.output_tokens


@apis
def test_a_stream_that_ends_early_ends_properly_without_its_marker(caller: Caller, api: str) -> None:
    response = caller.call(api, "sim-end-early", stream=True)
    assert response.ended
    assert not any(marker in response.body for marker in (b"[DONE]", b"message_stop", b"response.completed"))


@apis
@pytest.mark.parametrize(
    "model", ["sim-cut-stream", "sim-cut-before", "sim-end-early", "sim-garbage", "sim-garbage-http", "sim-error-event"]
)
def test_a_whole_answer_that_fails_bills_nothing(caller: Caller, api: str, model: str) -> None:
    assert caller.call(api, model).over
    assert caller.total == Tally(calls=1, failed=1)


@apis
def test_a_client_that_leaves_is_billed_for_what_was_sent_and_noticed(caller: Caller, api: str) -> None:
    response = caller.call(api, "sim-stream-50-20", stream=True)
    caller.clock.advance(45 * MILLISECOND)
    assert (caller.total.open_streams, caller.total.output_tokens) == (1, 0)
    response.leave()
    assert (caller.total.open_streams, caller.total.open, caller.total.cancelled, caller.total.output_tokens) == (0, 0, 1, 3)
    assert caller.clock.pending == 0
    noticed = Cancellation("sim-stream-50-20", caller.clock.wall_ns(), caller.clock.monotonic_ns())
    assert caller.provider.stats.cancellations == [noticed]


@apis
def test_a_client_that_reads_too_slowly_stops_the_stream_until_it_reads_on(caller: Caller, api: str) -> None:
    response = caller.call(api, "sim-stream-5-20", stream=True)
    assert response.pausing and response.resuming
    response.pausing()
    caller.clock.advance(1000 * MILLISECOND)
    assert len(response.writes) == 1
    response.resuming()
    caller.clock.advance(1000 * MILLISECOND)
    assert response.ended
    assert caller.total.output_tokens == 5


def test_a_long_unpaced_stream_stops_for_a_slow_client_too(caller: Caller) -> None:
    class SlowReader(MemoryResponse):
        def write(self, data: bytes) -> None:
            super().write(data)
            if len(self.writes) == 2 and self.pausing:
                self.pausing()

    response = SlowReader()
    caller.provider.application(request("POST", PATHS["chat"], body("chat", "sim-tokens-5000", stream=True)), response)
    assert (len(response.writes), response.over) == (2, False)
    assert response.resuming
    response.resuming()
    assert response.ended
    assert caller.total.output_tokens == 5000


TOOLS: dict[str, Json] = {
    "chat": [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("look", "write")],
    "responses": [{"type": "web_search"}, *({"type": "function", "name": name} for name in ("look", "write"))],
    "messages": [
        {"type": "web_search_20250305", "name": "web_search"},
        *({"name": name, "input_schema": {}} for name in ("look", "write")),
    ],
}
RESULTS: dict[str, Json] = {
    "chat": {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "1", "content": "found"}]},
    "responses": {"input": [{"type": "function_call_output", "call_id": "1", "output": "found"}]},
    "messages": {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "found"}]}]},
}


def called(api: str, answer: Json) -> list[str]:
    if api == "chat":
        return [call["function"]["name"] for call in answer["choices"][0]["message"].get("tool_calls", ())]
    items = answer["output"] if api == "responses" else answer["content"]
    return [item["name"] for item in items if item["type"] in {"function_call", "tool_use"}]


@apis
@pytest.mark.parametrize(("model", "tools"), [("sim-tool", ["look"]), ("sim-tools-parallel", ["look", "write"]), ("sim-loop", ["look"])])
def test_the_first_tools_are_called_and_only_the_loop_goes_on_after_their_results(
    caller: Caller, api: str, model: str, tools: list[str]
) -> None:
    assert called(api, caller.call(api, model, tools=TOOLS[api]).json()) == tools
    then = caller.call(api, model, tools=TOOLS[api], **RESULTS[api]).json()
    assert called(api, then) == (tools if model == "sim-loop" else [])


HISTORIES: dict[str, Json] = {
    "chat": {
        "messages": [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "found"},
        ]
    },
    "responses": {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "y"}]},
            {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "found"},
        ]
    },
    "messages": {
        "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [{"type": "text", "text": "y"}, {"type": "tool_use", "id": "1", "name": "look", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "found"}]}]},
        ]
    },
}


@apis
def test_a_script_goes_on_after_the_turns_of_the_history(api: str) -> None:
    steps = (ScriptedAnswer(tool_calls=(ScriptedCall("look"),)), ScriptedAnswer(text="Second."), ScriptedAnswer(text="Third."))
    caller = Caller(scripts=Scripts((Script(steps),)))
    assert called(api, caller.call(api, "gpt-5", tools=TOOLS[api]).json()) == ["look"]
    assert WORDS[api](caller.call(api, "gpt-5", tools=TOOLS[api], **HISTORIES[api]).json()) == "Second."
    assert WORDS[api](caller.call(api, "gpt-5").json()).startswith("Understood")


def test_a_choice_of_tool_is_followed(caller: Caller) -> None:
    choice = {"type": "function", "function": {"name": "write"}}
    assert called("chat", caller.call("chat", "sim-ok", tools=TOOLS["chat"], tool_choice=choice).json()) == ["write"]
    assert called("chat", caller.call("chat", "sim-tool", tools=TOOLS["chat"], tool_choice="none").json()) == []


@pytest.mark.parametrize(
    ("api", "content", "field"),
    [
        ("chat", b"{", ""),
        ("chat", {"model": "m"}, "messages"),
        ("chat", {"model": "m", "messages": []}, "messages"),
        ("chat", {"model": 1, "messages": []}, "model"),
        ("chat", {"model": "m", "messages": [{"role": "alien", "content": "x"}]}, "messages[0].role"),
        ("chat", {"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 0}, "n"),
        ("chat", {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": "none"}, ""),
        ("responses", {"model": "m"}, "input"),
        ("responses", {"model": "m", "input": "x", "previous_response_id": "resp_unknown"}, "previous_response_id"),
        ("messages", {"model": "m", "messages": [{"role": "user", "content": "x"}]}, "max_tokens"),
        ("messages", {"model": "m", "max_tokens": 1, "messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    ],
)
def test_a_request_that_no_provider_takes_gets_400_naming_the_field(caller: Caller, api: str, content: Json, field: str) -> None:
    response = caller.send("POST", PATHS[api], content)
    answer: Json = response.json()
    assert response.status == 400
    assert field in answer["error"]["message"] + str(answer["error"].get("param"))
    assert caller.total == Tally(calls=1, failed=1)


def test_a_wrong_key_gets_401_in_the_formats_own_shape() -> None:
    caller = Caller(key="right")
    bearer, header = {"authorization": "Bearer right"}, {"x-api-key": "right"}
    assert [caller.call("chat", "sim-ok", headers=headers).status for headers in (bearer, {}, {"authorization": "right!"})] == [
        200,
        401,
        401,
    ]
    assert [caller.call("messages", "sim-ok", headers=headers).status for headers in (header, bearer, {"x-api-key": ""})] == [200, 200, 401]
    refused: Json = caller.call("messages", "sim-ok").json()
    assert (refused["type"], refused["error"]["type"]) == ("error", "authentication_error")


def test_models_are_listed_in_the_shape_of_the_family_that_asks(caller: Caller) -> None:
    openai: Json = caller.send("GET", "/v1/models").json()
    anthropic: Json = caller.send("GET", "/v1/models", headers=ANTHROPIC).json()
    assert (openai["object"], openai["data"][0]["object"]) == ("list", "model")
    assert (anthropic["has_more"], anthropic["data"][0]["type"]) == (False, "model")
    one: Json = caller.send("GET", "/v1/models/openai%2Fgpt-5").json()
    assert one["id"] == "openai/gpt-5"
    assert caller.send("GET", "/v1/models/sim-error-404").status == 404


def test_unknown_paths_get_404_in_the_familys_shape(caller: Caller) -> None:
    for response, kind in (
        (caller.send("POST", "/v1/audio/speech", {}), "invalid_request_error"),
        (caller.send("GET", "/v1/chat/completions"), "invalid_request_error"),
        (caller.send("POST", "/v1/complete", {}, ANTHROPIC), "not_found_error"),
    ):
        answer: Json = response.json()
        assert (response.status, answer["error"]["type"]) == (404, kind)


def test_the_root_answers_and_the_stats_are_served(caller: Caller) -> None:
    assert caller.send("HEAD", "/").status == 200
    caller.call("chat", "sim-tokens-5")
    stats: Json = caller.send("GET", "/stats").json()
    assert (stats["total"]["served"], stats["models"]["sim-tokens-5"]["output_tokens"]) == (1, 5)


def test_a_query_and_unknown_fields_are_fine(caller: Caller) -> None:
    content = body("messages", "sim-ok", metadata={"user_id": "u"}, betas=["x"], context_management={"edits": []})
    assert caller.send("POST", "/v1/messages?beta=true", content).status == 200


def test_counting_tokens_is_free_and_equals_what_an_answer_bills_as_input(caller: Caller) -> None:
    content = body("messages", "sim-ok", "count me", system="be brief", tools=TOOLS["messages"])
    counted: Json = caller.send("POST", "/v1/messages/count_tokens", content).json()
    assert caller.total.input_tokens == 0
    caller.send("POST", "/v1/messages", content)
    assert caller.total.input_tokens == counted["input_tokens"]


@pytest.mark.parametrize("given", ["text", ["text", "more"], [1, 2, 3], [[1, 2], [3]]])
def test_embeddings_are_unit_vectors_billed_by_their_input(caller: Caller, given: Json) -> None:
    answer: Json = caller.send("POST", "/v1/embeddings", {"model": "e", "input": given, "dimensions": 40}).json()
    vectors = [item["embedding"] for item in answer["data"]]
    assert len(vectors) == (len(given) if isinstance(given, list) and not isinstance(given[0], int) else 1)
    assert all(len(vector) == 40 and sum(x * x for x in vector) == pytest.approx(1) for vector in vectors)
    assert caller.total.input_tokens == answer["usage"]["prompt_tokens"] > 0


def test_a_response_goes_on_from_an_earlier_one_and_bills_its_history(caller: Caller) -> None:
    first: Json = caller.call("responses", "sim-ok", "one").json()
    alone: Json = caller.call("responses", "sim-ok", "two").json()
    after: Json = caller.call("responses", "sim-ok", "two", previous_response_id=first["id"]).json()
    history = first["usage"]["total_tokens"]
    assert after["usage"]["input_tokens"] == alone["usage"]["input_tokens"] + history


def test_every_choice_is_billed(caller: Caller) -> None:
    caller.call("chat", "sim-tokens-7", n=3)
    assert caller.total.output_tokens == 21
    caller.call("chat", "sim-tokens-7", n=3, stream=True)
    assert caller.total.output_tokens == 42
