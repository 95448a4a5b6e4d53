"""Claude Code and Codex, unchanged, do a scripted task with a tool call under guard."""

import json

import pytest

pytestmark = pytest.mark.agents

PLANTED = ("planted-openai", "ant-planted")
"""A part of each real key that the one who starts the agent has."""

SET_ANEW = {b"host", b"connection", b"content-length", b"accept-encoding", b"authorization", b"x-api-key"}
"""Headers that belong to the connection, and the credentials."""


def passing(headers) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name not in SET_ANEW]


def test_the_task_is_done(ended) -> None:
    assert ended.process.returncode == 0, ended.process.stderr
    assert "It is done." in ended.process.stdout
    assert "HOLDFAST_RUN=" in (ended.work / "seen.txt").read_text("utf-8")


def test_each_answer_is_one_decision_and_all_of_them_one_interaction(ended) -> None:
    assert [decision.chosen_action for decision in ended.decisions] == [ended.agent.tool, "reply"]
    assert [decision.answer for decision in ended.decisions] == ["I will look.", "It is done."]
    assert [call.decision_id for call in ended.api_calls] == [decision.decision_id for decision in ended.decisions]
    assert [call.response_code for call in ended.api_calls] == [200, 200]
    assert {event.interaction for event in ended.decisions + ended.api_calls} == {begun.interaction for begun in ended.interactions}
    assert [begun.identified_by for begun in ended.interactions] == ["session"]
    assert {event.run for event in ended.decisions} == {ended.summary["run"]}


def test_what_was_spent_is_the_same_in_every_account(ended) -> None:
    spent = sum(call.cost for call in ended.api_calls)
    assert spent > 0
    assert spent == sum(decision.cost for decision in ended.decisions) == round(ended.summary["cost_usd"] * 10**9)
    assert {call.cost_source for call in ended.api_calls} == {"provider"}
    billed = ended.upstream.provider.stats.total
    assert (billed.calls, billed.served) == (ended.summary["calls"], len(ended.decisions))
    assert (billed.input_tokens, billed.output_tokens) == (ended.summary["tokens"]["input"], ended.summary["tokens"]["output"])


def test_no_real_key_is_in_reach_of_the_agent_or_left_in_a_file(ended) -> None:
    keys = [request.header(ended.agent.key_header).decode() for request in ended.upstream.received]
    assert keys
    assert all(any(planted in key for planted in PLANTED) for key in keys), "the provider is the one who gets the real key"
    written = {file: file.read_bytes() for file in ended.folder.rglob("*") if file.is_file()}
    said = {"stdout": ended.process.stdout.encode(), "stderr": ended.process.stderr.encode()}
    assert ended.work / "seen.txt" in written
    assert [place for place, text in (written | said).items() if any(planted.encode() in text for planted in PLANTED)] == []


def test_at_its_call_limit_the_agent_is_ended_and_not_served_again(stage) -> None:
    ended = stage.guarded("--call-limit", "1")
    assert ended.process.returncode == 122, ended.process.stderr
    assert [decision.chosen_action for decision in ended.decisions] == [ended.agent.tool]
    assert ended.upstream.provider.stats.total.calls == 1


def test_the_provider_gets_what_the_agent_sent(stage) -> None:
    sent = [request for request in stage.tapped() if request.method == b"POST"]
    received = stage.upstream.received
    assert [(request.method, request.target) for request in sent] == [
        (request.method, request.path + (b"?" + request.query if request.query else b"")) for request in received
    ]
    assert len(sent) == 2
    assert min(len(request.body) for request in sent) > 40_000
    assert [request.body == got.body for request, got in zip(sent, received, strict=True)] == [True, True]
    assert [passing(request.headers) for request in sent] == [passing(request.headers) for request in received]
    assert [request.header(b"accept-encoding") for request in received] == [b"identity", b"identity"], "usage has to be read"


def test_under_a_spend_limit_at_most_the_bound_of_the_output_is_added(stage) -> None:
    sent = [request for request in stage.tapped("limits: [{usd: 100, per: day}]\n") if request.method == b"POST"]
    received = stage.upstream.received
    assert len(sent) == len(received) == 2
    for request, got in zip(sent, received, strict=True):
        body, arrived = json.loads(request.body), json.loads(got.body)
        if body.keys() & {"max_tokens", "max_output_tokens"}:
            assert request.body == got.body
        else:
            assert arrived.pop("max_output_tokens") > 1_000
            assert list(arrived.items()) == list(body.items())


@pytest.mark.parametrize("agent", ["codex"], indirect=True)
def test_codex_goes_over_to_http_when_its_own_provider_finds_no_websocket(stage) -> None:
    """Its built-in provider, led to the gateway by `openai_base_url` as with `holdfast up`, begins with a WebSocket."""

    def start(gateway_url: str) -> tuple[tuple[str, ...], dict[str, str]]:
        codex, *words = stage.agent.command
        return (codex, "-c", f'openai_base_url="{gateway_url}/v1"', *words), stage.environment | {"CODEX_API_KEY": "any"}

    sent = stage.tapped(start=start)
    assert [request.method for request in sent] == [b"GET", b"POST", b"POST"]
    assert len(stage.upstream.received) == 2
    assert (stage.work / "seen.txt").exists()
