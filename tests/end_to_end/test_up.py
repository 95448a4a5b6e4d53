"""`holdfast up` from its one line to its end: addresses, health, workers that are replaced and that never outlive it."""

import itertools
import json
import os
import signal
import socket

import pytest

ASKED = {"model": "sim-ok", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def up(shared_site):
    shared_site.configure()
    return shared_site.up("--workers", "2")


def free_addresses() -> tuple[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return f"127.0.0.1:{one.getsockname()[1]}", f"127.0.0.1:{other.getsockname()[1]}"


def test_one_line_names_both_addresses_once_both_answer(shared_site, ask) -> None:
    gateway, control = free_addresses()
    shared_site.configure()
    started = shared_site.start("up", "--gateway", gateway, "--control", control)
    line = started.line()
    assert line.startswith("Holdfast ")
    assert line.endswith(f": gateway http://{gateway}, control http://{control}\n")
    pages = [(base, path) for base in (gateway, control) for path in ("/healthz", "/readyz")]
    assert [ask(f"http://{base}", "GET", path).status for base, path in pages] == [200] * 4
    assert started.end() == 0
    assert (started.out, started.err) == ([line], [])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_it_with_all_its_workers(site, workers: str) -> None:
    site.configure()
    up = site.up("--workers", workers)
    assert up.end(signal.SIGINT, group=True) == 0
    assert up.err == []


def test_term_while_the_workers_start_ends_it_too(site, ask, eventually) -> None:
    site.configure()
    _, control = free_addresses()
    started = site.start("up", "--gateway", "127.0.0.1:0", "--control", control, "--workers", "2")

    def answers() -> bool:
        try:
            return bool(ask(f"http://{control}", "GET", "/readyz").status)
        except OSError:
            return False

    eventually(answers, "a control address, long before the workers are ready")
    assert started.end() == 0
    assert started.err == []


def test_a_killed_worker_is_replaced(shared_site, up, eventually) -> None:
    before = up.workers()
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: not up.ready, "that the supervisor notices")
    assert up.ask(ASKED).status == 200  # the other one still answers
    eventually(lambda: up.ready, "another worker")
    after = up.workers()
    assert len(set(after) - set(before)) == 1
    assert up.err[-1] == f"holdfast: worker {before[0]} ended with -9; starting another\n"


def test_workers_do_not_outlive_their_supervisor(site) -> None:
    site.configure()
    assert site.up("--workers", "2").end(signal.SIGKILL) == -signal.SIGKILL


def test_the_record_is_read_while_it_runs(shared_site, up) -> None:
    answer = up.ask({"model": "sim-echo", "messages": [{"role": "user", "content": "Tell me"}]})
    shown = shared_site.command("decisions", "show", answer.headers["x-holdfast-decision"], "--json").events()[0]
    assert shown["input_prompt"]["messages"] == [{"role": "user", "content": "Tell me"}]
    assert shown["interaction"] == answer.headers["x-holdfast-interaction"]
    listed = shared_site.command("decisions", "list", "--json").events()
    assert listed[0]["decision_id"] == answer.headers["x-holdfast-decision"]


def test_conversations_over_two_workers_are_one_interaction_each(shared_site, up, ask) -> None:
    """By name or by message history, whichever worker a request comes to."""
    names = ["red", "green", "blue"]
    for turn, name in itertools.product(range(4), names):
        body = {"model": "sim-ok", "messages": [{"role": "user", "content": f"{name} {turn}"}]}
        assert ask(up.gateway, "POST", "/v1/chat/completions", body, "", {"x-holdfast-interaction": name}).status == 200
    by_history = [converse(up, turns=3) for _ in range(4)]
    listed = shared_site.command("interactions", "list", "--json").events()
    counted = {each["interaction"]: each["decisions"] for each in listed}
    assert [counted[name] for name in names] == [4, 4, 4]
    assert [len(set(interactions)) for interactions in by_history] == [1] * 4
    assert [counted[interactions[0]] for interactions in by_history] == [3] * 4
    assert shared_site.command("interactions", "show", "green").out.startswith("interaction green\n")


def converse(up, turns: int) -> list[str]:
    """The interaction that each turn of a conversation belonged to, each on a connection of its own."""
    messages: list[dict[str, str]] = []
    interactions = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"And then? {turn}"})
        answer = up.ask({"model": "sim-ok", "messages": messages})
        interactions.append(answer.headers["x-holdfast-interaction"])
        messages.append(answer.json()["choices"][0]["message"])
    return interactions


def test_tail_sees_a_call_as_it_is_made(shared_site, up, eventually) -> None:
    tail = shared_site.start("decisions", "tail", "--json", "--limit", "1")
    up.ask(ASKED)
    tail.line()  # it follows
    called = up.ask({"model": "sim-tool", "messages": ASKED["messages"], "tools": [TOOL]})
    eventually(lambda: any(called.headers["x-holdfast-decision"] in line for line in tail.out), "the call in the tail")
    seen = next(json.loads(line) for line in tail.out if called.headers["x-holdfast-decision"] in line)
    assert seen["chosen_action"] == "find_order"
    assert tail.end(signal.SIGINT) == 0


TOOL = {"type": "function", "function": {"name": "find_order", "parameters": {"type": "object", "properties": {}}}}


def test_another_one_on_the_same_data_directory_says_so(shared_site, up) -> None:
    second = shared_site.command("up", "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0")
    assert (second.code, second.out) == (1, "")
    assert second.err == (
        f"holdfast: another holdfast up (process {up.process.pid}, gateway {up.gateway}) runs on the data directory {shared_site.data}; "
        "give it a new configuration with `holdfast reload`, or choose another --data-dir\n"
    )
    beside = shared_site.run(agent='print(ask("sim-ok")[0])')  # a guarded run may share it
    assert (beside.code, beside.out) == (0, "200\n"), beside.err
    assert up.ready


def test_another_one_on_the_same_address_says_so(shared_site, up) -> None:
    gateway, control = (base.removeprefix("http://") for base in (up.gateway, up.control))
    for words, taken in ((("--gateway", gateway), up.gateway), (("--gateway", "127.0.0.1:0", "--control", control), up.control)):
        second = shared_site.command("up", "--data-dir", "other", *words)
        assert second.code == 1
        assert (
            second.err
            == f"holdfast: cannot listen on {taken}: Address already in use; is another Holdfast running? Choose another address.\n"
        )
    assert up.ask(ASKED).status == 200
