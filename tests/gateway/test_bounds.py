"""What a call may cost and use, bounded before it is made and settled after it: tokens, tiers, tools and history of the provider's."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from holdfast.clock import SECOND
from holdfast.errors import ConnectionCut
from holdfast.policy.limit import Limit
from holdfast.testing import MemoryResponse
from holdfast.testing.memory_gateway import MemoryGateway

Build = Callable[[str], MemoryGateway]

SAY: Any = [{"role": "user", "content": "hello"}]
CALLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": SAY},
    "/v1/responses": {"model": "m", "input": "hello"},
    "/v1/messages": {"model": "m", "messages": SAY, "max_tokens": 100_000},
}
CHAT, RESPONSES, MESSAGES = CALLS.values()
FIELDS = {"/v1/chat/completions": "max_completion_tokens", "/v1/responses": "max_output_tokens", "/v1/messages": "max_tokens"}
ANSWERS = {
    "/v1/chat/completions": b'{"id":"c","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":10,"completion_tokens":5}}',
    "/v1/responses": b'{"id":"r","status":"completed","output":[],"usage":{"input_tokens":10,"output_tokens":5}}',
    "/v1/messages": b'{"id":"m","content":[{"type":"text","text":"hi"}],"usage":{"input_tokens":10,"output_tokens":5}}',
}
AGENT = "agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 0}}}\n"
TOOLS = "  tooled: {kind: simulated, base_url: 'http://127.0.0.1:9/v1', hosted_tools: {%s}}\n"
TOOLED = "agents: {a: {routes: {'*': [tooled/*]}, retries: {max: 0}}}\n"
MILLION = 10**6


def told(response: MemoryResponse) -> dict[str, Any]:
    body: Any = response.json()
    error: dict[str, Any] = body["error"]
    return error


def sent(world: MemoryGateway) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(world.upstream.latest.request.body)
    return body


def spent(world: MemoryGateway, unit: Any) -> int:
    """What the ledger holds after everything was given back."""
    world.limiter.close(lambda error: None)
    world.clock.advance(SECOND)
    return world.ledger.spent(Limit(scope="all", unit=unit, amount=1).account(""))


@pytest.mark.parametrize("path", CALLS)
def test_a_token_limit_inserts_or_lowers_the_bound_of_output_and_counts_what_was_reported(gateway: Build, path: str) -> None:
    world = gateway(AGENT + "limits: [{tokens: 5000, per: total}]")
    response = world.call("POST", path, CALLS[path])
    assert 3_000 < sent(world)[FIELDS[path]] < 5_000
    world.upstream.latest.answer(ANSWERS[path])
    assert response.status == 200
    assert spent(world, "tokens") == 15


@pytest.mark.parametrize("path", CALLS)
def test_a_token_limit_that_is_reached_refuses_with_its_numbers(gateway: Build, path: str) -> None:
    world = gateway(AGENT + "limits: [{tokens: 500, per: day}]")
    response = world.call("POST", path, CALLS[path])
    error = told(response)
    assert (response.status, world.upstream.exchanges) == (402, [])
    assert "token_limit_reached" in str(error)
    assert (error["unit"], error["amount"], error["spent"], error["limit"]) == ("tokens", "500", "0", "everything: 500 tokens per day")


def test_a_model_without_a_price_is_fine_under_a_token_limit(gateway: Build) -> None:
    yaml = "  unpriced: {kind: compatible, base_url: 'http://127.0.0.1:9/v1'}\nagents: {a: {routes: {'*': [unpriced/*]}}}\n"
    world = gateway(yaml + "limits: [{tokens: 100000, per: total}]")
    world.call("POST", "/v1/chat/completions", CHAT)
    assert sent(world)["max_tokens"] == 16_384
    world.upstream.latest.answer(ANSWERS["/v1/chat/completions"])
    assert spent(world, "tokens") == 15


def test_the_tighter_of_money_and_tokens_bounds_the_output(gateway: Build) -> None:
    rich, poor = (gateway(AGENT + f"limits: [{{usd: {usd}, per: total}}, {{tokens: 3000, per: total}}]") for usd in (1, "0.005"))
    bounds = []
    for world in (rich, poor):
        world.call("POST", "/v1/chat/completions", CHAT)
        bounds.append(sent(world)["max_completion_tokens"])
    assert 2_000 < bounds[0] < 3_000
    assert 500 < bounds[1] < 1_250  # 4 USD per million


def test_counting_tokens_and_listing_models_count_none_and_embeddings_their_input(gateway: Build) -> None:
    world = gateway(AGENT + "limits: [{tokens: 100, per: total}]")
    assert not world.call("POST", "/v1/messages/count_tokens", {"model": "m", "messages": SAY}).over
    assert not world.call("GET", "/v1/models").over
    assert not world.call("POST", "/v1/embeddings", {"model": "m", "input": "hello"}).over
    world.upstream.latest.answer(b'{"data":[],"usage":{"prompt_tokens":2,"total_tokens":2}}')
    assert world.call("POST", "/v1/embeddings", {"model": "m", "input": "x" * 100}).status == 402
    assert spent(world, "tokens") == 2


def test_a_path_that_is_relayed_unread_is_no_way_around_a_token_limit(gateway: Build) -> None:
    yaml = "  open: {kind: compatible, base_url: 'http://127.0.0.1:9/v1', passthrough: [{path: '/v1/audio*', price_per_call: 0.25}]}\n"
    free, limited = gateway(yaml + "limits: [{usd: 1, per: day}]"), gateway(yaml + "limits: [{tokens: 1000, per: day}]")
    assert not free.call("POST", "/v1/audio/speech", {}).over
    response = limited.call("POST", "/v1/audio/speech", {})
    assert (response.status, limited.upstream.exchanges) == (402, [])
    assert "token limit" in told(response)["message"] and "relayed unread" in told(response)["message"]


def test_a_mark_alone_neither_refuses_nor_lowers(gateway: Build) -> None:
    world = gateway(AGENT + "limits: [{tokens: 1000000000, per: day, alert_at: 1}]")
    body = {**CHAT, "max_tokens": 9_000}
    world.call("POST", "/v1/chat/completions", body)
    assert sent(world) == body


@pytest.mark.parametrize(
    ("status", "tokens"), [(400, 0), (429, 0), (500, 0), (503, 0)], ids=["refused", "too many", "broken", "overloaded"]
)
def test_an_error_answer_uses_no_tokens(gateway: Build, status: int, tokens: int) -> None:
    world = gateway(AGENT + "limits: [{tokens: 5000, per: total}, {usd: 1, per: total}]")
    world.call("POST", "/v1/chat/completions", CHAT)
    world.upstream.latest.answer(b'{"error":{}}', status)
    assert (spent(world, "tokens"), world.recorder.api_calls[0].cost) == (tokens, 0)


@pytest.mark.parametrize(
    "usage", ["null", '{"prompt_tokens":-1,"completion_tokens":5}', '{"prompt_tokens":5,"completion_tokens":1e30}', "7"]
)
def test_usage_that_is_nonsense_or_missing_counts_as_the_bound(gateway: Build, usage: str) -> None:
    world = gateway(AGENT + "limits: [{tokens: 5000, per: total}, {usd: 1, per: total}]")
    world.call("POST", "/v1/chat/completions", {**CHAT, "max_tokens": 1_000})
    world.upstream.latest.answer(b'{"choices":[{"message":{"content":"hi"}}],"usage":%b}' % usage.encode())
    assert world.recorder.api_calls[0].cost_source == "bound"
    assert 1_600 < spent(world, "tokens") < 2_000


@pytest.mark.parametrize("sent_whole", [False, True])
def test_a_connection_cut_or_silent_after_the_request_counts_as_the_bound(gateway: Build, sent_whole: bool) -> None:
    world = gateway(AGENT + "limits: [{tokens: 5000, per: total}, {usd: 1, per: total}]")
    world.call("POST", "/v1/chat/completions", {**CHAT, "max_tokens": 1_000})
    if sent_whole:
        world.clock.advance(3600 * SECOND)
    else:
        world.upstream.latest.fail(ConnectionCut("cut"))
    assert world.recorder.api_calls[0].cost_source == "bound"
    assert 1_600 < spent(world, "tokens") < 2_000


@pytest.mark.parametrize(("model", "shown"), [("m", True), ("o3", False), ("claude-opus-4-8", True), ("claude-opus-5", False)])
def test_a_cut_stream_settles_on_what_it_showed_unless_thoughts_may_be_hidden(gateway: Build, model: str, shown: bool) -> None:
    world = gateway(AGENT + "limits: [{tokens: 50000, per: total}]")
    world.call("POST", "/v1/chat/completions", {**CHAT, "model": model, "max_tokens": 9_000, "stream": True})
    exchange = world.upstream.latest
    exchange.start()
    exchange.data(b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n')
    exchange.fail(ConnectionCut("cut"))
    tokens = spent(world, "tokens")
    assert (600 < tokens < 1_000) if shown else (tokens > 9_000)


def test_of_usage_in_every_chunk_the_last_counts(gateway: Build) -> None:
    world = gateway(AGENT + "limits: [{tokens: 50000, per: total}]")
    world.call("POST", "/v1/chat/completions", {**CHAT, "stream": True})
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":10,"completion_tokens":%d}}\n\n'
    world.upstream.latest.stream(*(chunk % count for count in (1, 2, 3)), b"data: [DONE]\n\n")
    assert spent(world, "tokens") == 13


def test_cached_tokens_of_a_stream_are_part_of_its_input_and_cheaper(gateway: Build) -> None:
    yaml = (
        "  cached: {kind: compatible, base_url: 'http://127.0.0.1:9/v1', prices: {'*': {input_per_million: 10, output_per_million: 0,"
        " cached_input_per_million: 1}}}\nagents: {a: {routes: {'*': [cached/*]}}}\n"
    )
    world = gateway(yaml + "limits: [{tokens: 50000, per: total}, {usd: 10, per: total}]")
    world.call("POST", "/v1/chat/completions", {**CHAT, "stream": True})
    usage = b'{"prompt_tokens":1000,"completion_tokens":0,"prompt_tokens_details":{"cached_tokens":900}}'
    world.upstream.latest.stream(b'data: {"choices":[],"usage":%b}\n\n' % usage, b"data: [DONE]\n\n")
    assert world.recorder.api_calls[0].cost == 100 * 10_000 + 900 * 1_000
    assert spent(world, "tokens") == 1_000


def test_an_explicit_zero_is_a_zero(gateway: Build) -> None:
    world = gateway(AGENT + "limits: [{tokens: 50000, per: total}, {usd: 1, per: total}]")
    world.call("POST", "/v1/chat/completions", CHAT)
    world.upstream.latest.answer(b'{"choices":[{"message":{}}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}')
    assert (world.recorder.api_calls[0].cost, spent(world, "tokens")) == (0, 0)


@pytest.mark.parametrize("limit", ["usd: 5", "tokens: 100000"])
def test_an_answer_that_is_continued_counts_with_all_that_it_read_and_said(gateway: Build, limit: str) -> None:
    world = gateway(AGENT + f"limits: [{{{limit}, per: total}}]")
    world.call("POST", "/v1/responses", RESPONSES)
    world.upstream.latest.answer(ANSWERS["/v1/responses"].replace(b'"input_tokens":10', b'"input_tokens":40000'))
    response = world.call("POST", "/v1/responses", {**RESPONSES, "previous_response_id": "r", "max_output_tokens": 50_000})
    assert not response.over
    most = sent(world)["max_output_tokens"]
    assert most == 50_000 if limit.startswith("usd") else 15_000 < most < 20_000
    unknown = world.call("POST", "/v1/responses", {**RESPONSES, "previous_response_id": "elsewhere"})
    assert (unknown.status, told(unknown)["code"]) == (402, "call_without_bound")
    assert "is not known here" in told(unknown)["message"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt template"),
        ({"background": True}, "background"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x"}]}]}, "length of its own"),
        ({"previous_response_id": "r", "reasoning": {"context": "all_turns"}}, "earlier turns"),
    ],
)
@pytest.mark.parametrize("limit", ["usd", "tokens"])
def test_what_the_provider_keeps_is_refused_with_the_reason(gateway: Build, fields: dict[str, Any], why: str, limit: str) -> None:
    world = gateway(AGENT + f"limits: [{{{limit}: 10000, per: day}}]")
    response = world.call("POST", "/v1/responses", {**RESPONSES, **fields})
    assert (response.status, world.upstream.exchanges) == (402, [])
    assert why in told(response)["message"]


HOSTED: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/responses", {"tools": [{"type": "web_search_preview"}]}, "web_search_preview"),
    ("/v1/responses", {"tools": [{"type": "mcp", "server_label": "x"}]}, "mcp"),
    ("/v1/messages", {"tools": [{"type": "code_execution_20250825", "name": "x"}]}, "code_execution_*"),
    ("/v1/messages", {"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]}, "mcp_server"),
    ("/v1/chat/completions", {"web_search_options": {}}, "web_search"),
    ("/v1/chat/completions", {"tools": [{"type": "browser_search"}]}, "browser_search"),
]


@pytest.mark.parametrize(("path", "fields", "pattern"), HOSTED)
@pytest.mark.parametrize("unit", ["usd", "tokens"])
def test_a_tool_of_the_providers_is_refused_until_it_has_a_price_and_the_message_names_the_key(
    gateway: Build, path: str, fields: dict[str, Any], pattern: str, unit: str
) -> None:
    limits = f"limits: [{{{unit}: 1000000, per: day}}]"
    world = gateway(TOOLS % "" + TOOLED + limits)
    message = told(world.call("POST", path, CALLS[path] | fields))["message"]
    bound = "{usd: 0.30, tokens: 200000}" if unit == "tokens" else "{usd: 0.30}"
    assert f'providers.tooled.hosted_tools: {{"{pattern}": {bound}}}' in message
    priced = gateway(TOOLS % f'"{pattern}": {bound}' + TOOLED + limits)
    assert not priced.call("POST", path, CALLS[path] | fields).over


def test_under_a_token_limit_a_tool_needs_tokens_too(gateway: Build) -> None:
    world = gateway(TOOLS % '"*": {usd: 1}' + TOOLED + "limits: [{usd: 5, per: day}, {tokens: 100000, per: day}]")
    message = told(world.call("POST", "/v1/responses", RESPONSES | {"tools": [{"type": "mcp"}]}))["message"]
    assert "100000 tokens per day" in message and "tokens: 200000" in message


def test_what_a_tool_may_cost_is_reserved_beside_what_the_model_may(gateway: Build) -> None:
    world = gateway(TOOLS % '"mcp*": {usd: 0.30, tokens: 1000}' + TOOLED + "limits: [{usd: 0.31, per: total}, {tokens: 10000, per: total}]")
    world.call("POST", "/v1/responses", RESPONSES | {"tools": [{"type": "mcp"}]})
    assert 500 < sent(world)["max_output_tokens"] < 2_000  # a cent is left, at 4 USD per million
    tokens = gateway(TOOLS % '"mcp*": {usd: 0.30, tokens: 9000}' + TOOLED + "limits: [{tokens: 15000, per: total}]")
    tokens.call("POST", "/v1/responses", RESPONSES | {"tools": [{"type": "mcp"}]})
    assert 2_000 < sent(tokens)["max_output_tokens"] < 6_000


@pytest.mark.parametrize(
    ("path", "fields", "answer", "usd"),
    [
        ("/v1/responses", {"tools": [{"type": "mcp"}]}, b'{"type":"mcp_call"}', "0.30"),
        ("/v1/responses", {"tools": [{"type": "mcp"}]}, b'{"type":"function_call","name":"x"}', "0"),
        ("/v1/responses", {"tools": [{"type": "mcp"}]}, b"", "0"),
        ("/v1/responses", {"tools": [{"type": "web_search"}]}, b'{"type":"web_search_call"}', "0.30"),
        ("/v1/responses", {"tools": [{"type": "web_search"}, {"type": "mcp"}]}, b'{"type":"web_search_call"}', "0.30"),
        ("/v1/messages", {"tools": [{"type": "code_execution_1"}]}, b'{"type":"server_tool_use","name":"bash_code_execution"}', "0.30"),
        ("/v1/messages", {"tools": [{"type": "code_execution_1"}]}, b'{"type":"text","text":"hi"}', "0"),
        ("/v1/chat/completions", {"web_search_options": {}}, b"", "0.30"),
    ],
)
def test_the_fee_of_a_tool_is_charged_where_the_answer_shows_its_use_or_cannot_tell(
    gateway: Build, path: str, fields: dict[str, Any], answer: bytes, usd: str
) -> None:
    world = gateway(TOOLS % '"*": {usd: 0.30}' + TOOLED + "limits: [{usd: 5, per: total}]")
    world.call("POST", path, CALLS[path] | {FIELDS[path]: 1_000} | fields)
    body = ANSWERS[path].replace(b'"output":[]', b'"output":[%b]' % answer)
    world.upstream.latest.answer(body.replace(b'{"type":"text","text":"hi"}', answer) if answer else body)
    assert world.recorder.api_calls[0].cost == 10 * 1_000 + 5 * 4_000 + int(float(usd) * 10**9)


@pytest.mark.parametrize("path", [*CALLS, "/v1/embeddings"])
@pytest.mark.parametrize("name", ["MODEL", "Model", "ſtream", "maxTokens", "MAX_TOKENS", "toolS"])
def test_a_field_in_other_letters_is_refused_by_name(gateway: Build, path: str, name: str) -> None:
    known = {"maxTokens": {"/v1/chat/completions", "/v1/messages"}, "MAX_TOKENS": {"/v1/chat/completions", "/v1/messages"}}
    served = known.get(name, set(CALLS) if name in ("ſtream", "toolS") else {*CALLS, "/v1/embeddings"})
    world = gateway("")
    response = world.call("POST", path, {**CALLS.get(path, {"model": "m", "input": "x"}), name: 5})
    if path in served:
        assert (response.status, world.upstream.exchanges) == (400, [])
        assert repr(name) in told(response)["message"]
    else:
        assert not response.over


@pytest.mark.parametrize("name", ["newField", "X-custom", "größe", "Reasoning_Effort_2"])
def test_fields_that_nobody_guards_may_be_written_as_they_like(gateway: Build, name: str) -> None:
    world = gateway("")
    assert not world.call("POST", "/v1/chat/completions", {**CHAT, name: 1}).over


def test_an_escaped_name_is_the_name(gateway: Build) -> None:
    world = gateway(AGENT + "limits: [{tokens: 3000, per: total}]")
    world.call("POST", "/v1/chat/completions", b'{"model":"m","messages":[{"role":"user","content":"x"}],"max\\u005ftokens":90000}')
    assert 2_000 < sent(world)["max_tokens"] < 3_000
    twice = b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":90000,"max_tok\\u0065ns":20}'
    world = gateway(AGENT + "limits: [{tokens: 3000, per: total}]")
    world.call("POST", "/v1/chat/completions", twice)
    assert world.upstream.latest.request.body.count(b"max_tok") == 1
    assert sent(world)["max_tokens"] == 20


def test_a_picture_that_another_model_reads_counts_as_that_model_counts_it(gateway: Build) -> None:
    yaml = AGENT.replace("simulated/*", "simulated/gpt-4o-mini") + "limits: [{tokens: 200000, per: total}]"
    picture = [{"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}]
    for model in ("gpt-5.4", "gpt-4o", "gpt-4o-mini"):
        world = gateway(yaml)
        body = {"model": model, "messages": [{"role": "user", "content": picture}], "max_tokens": 200_000}
        world.call("POST", "/v1/chat/completions", body)
        assert sent(world)["max_tokens"] < 200_000 - 48_169
