"""Conversations whose every turn is a new connection, through `holdfast up --workers 2`: one interaction each, and its limit exact."""

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

CONVERSATIONS = 12
ROOM = 5
MODEL = "wandering:sim-ok"


def converse(up: Any, topic: str) -> tuple[list[str], list[int]]:
    """Go on until nothing but refusals comes; the interaction of every answer, and every status."""
    messages = [{"role": "user", "content": topic}]
    interactions: list[str] = []
    statuses: list[int] = []
    while statuses[-6:] != [402] * 6:  # one worker may have nothing left while the other has
        answer = up.ask({"model": MODEL, "messages": messages}, "key-of-talker")
        statuses.append(answer.status)
        if answer.status == 200:
            interactions.append(answer.headers["x-holdfast-interaction"])
            messages += [answer.json()["choices"][0]["message"], {"role": "user", "content": "And then?"}]
    return interactions, statuses


@pytest.fixture(scope="module")
def talked(shared_site) -> Any:
    """Six conversations, each held by two agents at once."""
    shared_site.configure(f"agents: {{talker: {{key: env:KEY, limits: [{{calls: {ROOM}, per: interaction}}]}}}}\n")
    up = shared_site.up("--workers", "2", env={"KEY": "key-of-talker"})
    with ThreadPoolExecutor(CONVERSATIONS) as pool:
        return list(pool.map(lambda number: converse(up, f"topic {number // 2}"), range(CONVERSATIONS)))


def test_no_interaction_gets_one_call_more_than_its_limit(shared_site, talked) -> None:
    assert {status for _, statuses in talked for status in statuses} == {200, 402}
    assert [len(interactions) for interactions, _ in talked] == [ROOM] * CONVERSATIONS
    assert shared_site.provider.of_model(MODEL)["calls"] == ROOM * CONVERSATIONS


def test_every_conversation_is_one_interaction_though_it_wandered(shared_site, talked) -> None:
    decisions = shared_site.journal("decision")
    counted = Counter(decision["interaction"] for decision in decisions)
    assert list(counted.values()) == [ROOM] * CONVERSATIONS
    assert len(shared_site.journal("interaction_started")) == CONVERSATIONS
    assert counted == Counter(interaction for interactions, _ in talked for interaction in interactions)
    by_worker = [file.read_text() for file in (shared_site.data / "journal").glob("*.ndjson")]
    assert any(all(interaction in text for text in by_worker) for interaction in counted)
    assert len(by_worker) == 2


def test_the_context_of_a_decision_is_whole_though_two_workers_recorded_it(shared_site, talked) -> None:
    latest = [decision["decision_id"] for decision in shared_site.journal("decision") if decision.get("inherited_messages") == 7]
    assert len(latest) == CONVERSATIONS
    for decision in latest[:3]:
        shown = shared_site.command("decisions", "show", decision, "--json").events()[0]
        assert [message["role"] for message in shown["input_prompt"]["messages"]] == ["user", "assistant"] * 4 + ["user"]


def test_a_conversation_goes_on_after_every_worker_was_killed(site, eventually) -> None:
    site.configure()
    up = site.up("--workers", "2")
    first = up.ask({"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]})
    killed = up.workers()
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    eventually(lambda: not set(up.workers()) & set(killed) and up.ready, "other workers")
    messages = [{"role": "user", "content": "Hello"}, first.json()["choices"][0]["message"], {"role": "user", "content": "And then?"}]
    second = up.ask({"model": MODEL, "messages": messages})
    assert second.headers["x-holdfast-interaction"] == first.headers["x-holdfast-interaction"]
