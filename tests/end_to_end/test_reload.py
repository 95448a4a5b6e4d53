"""A new configuration, and new workers, while agents go on calling: nobody notices, save by what has changed."""

import http.client
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

ASKED = {"model": "sim-ok", "messages": [{"role": "user", "content": "Hello"}]}


def reload(site) -> None:
    done = site.command("reload")
    assert (done.code, done.err) == (0, ""), done
    assert done.out.startswith("Holdfast reloaded")


def test_no_call_fails_while_all_workers_are_replaced_again_and_again(site, load, eventually) -> None:
    """Without a single retry of the client's."""
    site.configure()
    up = site.up("--workers", "2")
    before = up.workers()
    with load(up.gateway) as goes_on:
        for _ in range(3):
            reload(site)
            goes_on("calls after the reload")
            assert set(before).isdisjoint(before := up.workers())
    assert up.ready and up.state()["reloads"] == 3
    assert up.end() == 0


def test_calls_and_streams_in_progress_end_where_they_began(site, eventually) -> None:
    site.configure()
    up = site.up()
    old = up.workers()
    site.provider.close_door()
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(up.ask, {**ASKED, "stream": stream}) for stream in (True, True, False)]
        eventually(lambda: site.provider.at_the_door == 3, "three calls at the provider")
        reload(site)
        new = eventually(lambda: [worker for worker in up.state()["workers"] if worker["pid"] not in old], "another worker")
        assert [worker["pid"] for worker in up.state()["retiring"]] == old
        assert all(worker["ready"] for worker in new)
        site.provider.open_door()
        assert [call.result().status for call in calls] == [200] * 3
        assert all(call.result().body.endswith(b"data: [DONE]\n\n") for call in calls[:2])
    assert up.ask(ASKED).status == 200
    eventually(lambda: not up.state()["retiring"], "the end of the worker before")


def test_a_connection_kept_from_before_still_answers_and_says_that_it_closes(site, eventually) -> None:
    site.configure()
    up = site.up()
    connection = http.client.HTTPConnection(up.gateway.removeprefix("http://"), timeout=30)
    for announced in (None, "close"):
        connection.request("POST", "/v1/chat/completions", json.dumps(ASKED))
        answer = connection.getresponse()
        assert (answer.status, answer.headers["connection"]) == (200, announced)
        answer.read()
        if announced is None:
            reload(site)
    connection.close()
    eventually(lambda: not up.state()["retiring"], "the end of the worker before")


def test_mistakes_are_told_and_change_nothing(site) -> None:
    site.configure()
    up = site.up("--workers", "2")
    before = up.workers()
    file = site.configure("agents:\n  support:\n    limts: [{calls: 1}]\n")
    line = file.read_text().splitlines().index("    limts: [{calls: 1}]") + 1
    done = site.command("reload")
    assert (done.code, done.out) == (2, "")
    mistake = f'{file}:{line}: agents.support.limts: unknown key; did you mean "limits"?\n'
    assert done.err == f"holdfast: not reloaded, the configuration before stays in force:\n{mistake}"
    assert up.workers() == before
    assert up.ask(ASKED).status == 200
    site.configure()
    reload(site)
    assert set(up.workers()).isdisjoint(before)


def test_a_worker_that_cannot_start_leaves_those_before_in_place(site) -> None:
    """A configuration without a mistake, and a ledger that was damaged meanwhile."""
    site.configure()
    up = site.up("--workers", "2")
    before = up.workers()
    ledger = site.data / "ledger.sqlite"
    ledger.rename(site.data / "aside")
    ledger.write_bytes(b"no ledger at all" * 100)
    done = site.command("reload")
    assert done.code == 2
    assert "is damaged" in done.err
    assert up.workers() == before
    assert up.ask(ASKED).status == 200


def test_a_crash_after_an_unfinished_edit_brings_back_what_was_in_force(site, eventually) -> None:
    site.configure()
    up = site.up()
    (before,) = up.workers()
    site.configure("agents: {")
    os.kill(before, signal.SIGKILL)
    assert up.ask(ASKED).status == 200  # waits at the socket until a worker has it again
    assert up.workers() != [before]
    assert site.command("reload").code == 2


def test_keys_and_limits_are_those_of_the_new_configuration(site, eventually) -> None:
    key = site.folder / "key"
    key.touch(mode=0o600)
    key.write_text("the-old-key")
    site.configure("agents: {support: {key: file:key, limits: [{calls: 100}]}}\n")
    up = site.up("--workers", "2")
    assert [up.ask(ASKED, key).status for key in ("the-old-key", "the-new-key")] == [200, 403]
    key.write_text("the-new-key")
    site.configure("agents: {support: {key: file:key, limits: [{calls: 12}]}}\n")
    up.process.send_signal(signal.SIGHUP)
    eventually(lambda: up.state()["reloads"] == 1 and not up.state()["retiring"], "the reload")
    assert [up.ask(ASKED, key).status for key in ("the-old-key", "the-new-key")] == [403, 200]
    while (status := up.ask(ASKED, "the-new-key").status) == 200:
        pass
    assert status == 402
    assert site.provider.stats()["total"]["calls"] == 12
    assert "holdfast: reloaded; the workers before finish their calls\n" in up.err


def test_a_reload_where_nothing_runs_says_so(site) -> None:
    site.configure()
    nothing = f"holdfast: no holdfast up runs on the data directory {site.data}; start one, or name the one that runs by its --data-dir\n"
    assert site.command("reload") == (1, "", nothing)
    up = site.up()
    reload(site)
    up.end(signal.SIGKILL)
    assert site.command("reload") == (1, "", nothing)
    assert site.up().ready  # what the killed one left behind is in nobody's way
