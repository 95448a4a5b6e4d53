"""The kill switch on real processes; what arrived at the provider is the judge."""

import http.client
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

MESSAGES = [{"role": "user", "content": "Hello"}]
ASKED = {"model": "sim-ok", "messages": MESSAGES}
AGENTS = """
agents:
  support: {key: env:SUPPORT_KEY}
  billing: {key: env:BILLING_KEY, limits: [{usd: 1, per: day}]}
"""
KEYS = {"SUPPORT_KEY": "support-key", "BILLING_KEY": "billing-key"}
LONG_STREAM = {"model": "sim-stream-2000-20", "stream": True}


class Load:
    """Callers that never stop, each on a kept connection; what is asked after `mark` says so."""

    def __init__(self, gateway: str, callers: int) -> None:
        self.statuses: list[tuple[bool, int]] = []
        self._address = gateway.removeprefix("http://")
        self._marked = False
        self._over = False
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def mark(self) -> None:
        self._marked = True

    def count(self, *, marked: bool, status: int) -> int:
        return self.statuses.count((marked, status))

    def stop(self) -> None:
        self._over = True
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        while not self._over:
            marked = self._marked
            connection.request("POST", "/v1/chat/completions", json.dumps(ASKED), {"x-marked": str(marked)})
            answer = connection.getresponse()
            answer.read()
            self.statuses.append((marked, answer.status))
        connection.close()


def open_stream(stack: ExitStack, gateway: str, path: str, body: dict[str, Any]) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(gateway.removeprefix("http://"), timeout=30)
    stack.callback(connection.close)
    connection.request("POST", path, json.dumps({**body, **LONG_STREAM}), {"anthropic-version": "2023-06-01"})
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.readline()
    return answer


STREAMS = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/responses": {"input": MESSAGES},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 4000},
}


def test_once_kill_has_returned_not_one_more_call_reaches_the_provider(site, eventually) -> None:
    site.configure()
    up = site.up("--workers", "2")
    load = Load(up.gateway, callers=8)
    with ExitStack() as stack, ThreadPoolExecutor(12) as pool:
        streams = [open_stream(stack, up.gateway, path, body) for path, body in STREAMS.items() for _ in range(4)]
        eventually(lambda: load.count(marked=False, status=200) > 50, "calls that are served")
        done = site.command("kill", "--all", "--cut", "--reason", "it refunds everybody", "--json")
        load.mark()
        assert done.code == 0, done.err
        (said,) = done.events()
        assert (said["gateways"], said["unconfirmed"], said["reason"]) == (2, [], "it refunds everybody")
        rests = list(pool.map(lambda stream: stream.read(), streams))  # raises IncompleteRead where a stream is not ended
    for rest in rests:
        assert b"it refunds everybody" in rest.rstrip().rpartition(b"\n")[2]
        assert rest.endswith(b"\n\n")
        assert b"[DONE]" not in rest and b"message_stop" not in rest and b"response.completed" not in rest
    eventually(lambda: load.count(marked=True, status=403) > 50, "calls that are refused")
    load.stop()
    assert load.count(marked=True, status=200) == 0
    assert not [request for request in site.provider.seen if request.header(b"x-marked") == b"True"]
    assert site.command("resume", "--all").code == 0
    assert up.ask(ASKED).status == 200
    changes = site.journal("kill_changed")
    assert [(event["action"], event["scope"], event.get("reason", "")) for event in changes] == [
        ("kill", "all", "it refunds everybody"),
        ("resume", "all", ""),
    ]
    assert all("@" in event["author"] for event in changes)


def test_it_survives_kill_9_of_everything_and_a_restart(site) -> None:
    site.configure(AGENTS)
    up = site.up(env=KEYS)
    assert site.command("kill", "--agent", "support").code == 0
    up.end(signal.SIGKILL, group=True)
    up = site.up(env=KEYS)
    assert [up.ask(ASKED, key).status for key in ("support-key", "billing-key")] == [403, 200]
    os.kill(up.workers()[0], signal.SIGKILL)
    resumed = site.command("resume", "--agent", "support")
    assert resumed.code == 0, resumed.err


def test_only_what_is_named_is_stopped(site, ask) -> None:
    site.configure(AGENTS)
    up = site.up(env=KEYS)
    offered = [{"type": "function", "function": {"name": "refund", "parameters": {"type": "object", "properties": {}}}}]

    def status(key: str = "billing-key", **more: object) -> int:
        return int(up.ask({**ASKED, **more}, key).status)

    for words, stopped, unstopped in (
        (("--agent", "support"), lambda: status("support-key"), status),
        (("--model", "sim-echo"), lambda: status(model="sim-echo"), status),
        (("--tool", "refund"), lambda: status(model="sim-tool", tools=offered), lambda: status(tools=offered)),
        (("--release", "unreleased"), status, lambda: 200),
    ):
        assert (stopped(), unstopped()) == (200, 200)
        assert site.command("kill", *words).code == 0
        assert (stopped(), unstopped()) == (403, 200)
        assert site.command("resume", *words).code == 0
        assert stopped() == 200


@pytest.mark.parametrize("words", [("--all",), ("--agent", "research"), ("--agent", "default"), ("--release", "v3", "--cut")])
def test_a_run_is_ended_with_all_that_it_started(site, eventually, words) -> None:
    site.configure()
    agent = """
import os, time
if os.fork() == 0:
    os.setsid()
    open("child", "w").write(str(os.getpid()))
    time.sleep(600)
while True:
    print(ask("sim-ok")[0], flush=True)
    time.sleep(0.02)
"""
    started = site.start_run("--agent", "research", "--release", "v3", "--summary", "s.json", agent=agent)
    eventually(lambda: len(started.out) > 3 and (site.folder / "child").exists(), "an agent that calls")
    done = site.command("kill", *words, "--reason", "out of hand")
    assert done.code == 0, done.err
    assert started.process.wait(30) == 123
    eventually(lambda: started.gone, "the end of every process")
    summary = json.loads((site.folder / "s.json").read_text())
    assert (summary["exit_code"], summary["reason"]) == (123, "killed")
    assert "out of hand" in summary["kill"]
    assert "stopped by the kill switch (exit 123)" in "".join(started.err) and "out of hand" in "".join(started.err)
    (ended,) = site.journal("run_ended")
    assert (ended["reason"], ended["exit_code"]) == ("killed", 123)


def test_a_run_of_what_is_stopped_does_not_start(site) -> None:
    site.configure()
    site.command("kill", "--agent", "research", "--reason", "out of hand", "--author", "ann")
    done = site.run("--agent", "research", agent="print('started')")
    assert (done.code, done.out) == (123, "")
    assert done.err == "holdfast: the run is refused: agent research was stopped with the kill switch by ann: out of hand\n"
    assert site.run("--agent", "other", agent="print('started')").out == "started\n"
    (site.data / "kill.json").write_text("damaged")
    done = site.run("--agent", "other", agent="print('started')")
    assert (done.code, done.out) == (123, "")
    assert "holdfast resume --everything" in done.err
    assert site.command("resume", "--everything").code == 0
    assert site.run("--agent", "research", agent="print('started')").out == "started\n"


def test_a_worker_that_does_not_confirm_is_named_and_refuses_as_soon_as_it_goes_on(site) -> None:
    site.configure()
    up = site.up("--workers", "2")
    stopped, other = up.workers()
    os.kill(stopped, signal.SIGSTOP)
    try:
        done = site.command("kill", "--all", "--json")
        (said,) = done.events()
        assert (done.code, said["unconfirmed"], said["gateways"]) == (1, [stopped], 1)
        assert f"process {stopped}, a worker, has not confirmed" in done.err and f"kill -9 {stopped}" in done.err
        assert str(other) not in done.err
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert {up.ask(ASKED).status for _ in range(20)} == {403}
    assert not site.provider.seen
    assert site.command("resume", "--all").code == 0


def test_what_cannot_be_meant_is_an_error(site) -> None:
    for words in ((), ("--all", "--agent", "a"), ("--agent", "a", "--tool", "t"), ("--agent", " ")):
        for command in ("kill", "resume"):
            done = site.command(command, *words)
            assert (done.code, done.err) == (
                2,
                "holdfast: name one thing: --all, --agent NAME, --release TAG, --model NAME or --tool NAME\n",
            )
    site.command("kill", "--tool", "refund")
    done = site.command("resume", "--agent", "refund")
    assert (done.code, done.err) == (1, "holdfast: agent refund is not stopped; stopped now: tool refund\n")
    done = site.command("kill", "--agent", "nobody")
    assert done.code == 0
    assert f"No gateway is running on {site.data}" in done.err


def test_status_shows_what_runs_what_is_stopped_and_what_is_spent(site) -> None:
    site.configure("limits: [{calls: 10, per: hour}]\n" + AGENTS)
    assert "nothing is stopped" in site.command("status", env=KEYS).out
    up = site.up("--workers", "2", env=KEYS)
    assert up.ask(ASKED, "billing-key").status == 200
    site.command("kill", "--agent", "support", "--cut", "--reason", "out of hand", "--author", "ann@host")
    (said,) = site.command("status", "--json", env=KEYS).events()
    assert sorted(gateway["pid"] for gateway in said["gateways"]) == sorted(up.workers())
    assert {(kill["scope"], kill["value"], kill["mode"], kill["reason"], kill["author"]) for kill in said["kills"]} == {
        ("agent", "support", "cut", "out of hand", "ann@host")
    }
    assert [(each["agent"], each["release"]) for each in said["agents"]] == [("billing", "unreleased")]
    limits = {each["limit"]: each for each in said["limits"]}
    assert limits["everything: 10 calls per hour"]["spent"] >= 1
    assert limits["agent billing: 1.00 USD per day"]["spent"] > 0
    page = site.command("status", env=KEYS).out
    assert page.startswith("STOPPED: agent support (cut) since ")
    assert "by ann@host: out of hand" in page
    assert all(str(pid) in page for pid in up.workers())


def test_status_shows_the_limits_of_the_configuration_that_runs_wherever_it_lies(site) -> None:
    file = site.configure("limits: [{calls: 10, per: hour}]\n" + AGENTS)
    elsewhere = file.rename(site.folder / "elsewhere.yaml")
    assert "none configured" in site.command("status", env=KEYS).out
    site.up("--config", str(elsewhere), env=KEYS)
    assert "everything: 10 calls per hour" in site.command("status", env=KEYS).out


def test_the_drill_proves_it_and_leaves_nothing(site) -> None:
    done = site.command("drill", "kill", "--rate", "50", "--streams", "5", "--seconds", "2", "--json", env={"TMPDIR": str(site.folder)})
    (measured,) = done.events()
    assert (done.code, measured["passed"], measured["failures"]) == (0, True, []), done
    assert measured["served_before"] > 0 and measured["refused_after"] > 0
    assert (measured["admitted_after_return"], measured["streams_well_formed"]) == (0, 5)
    assert not list(site.folder.glob("holdfast-drill-*"))
    assert not site.data.exists()
