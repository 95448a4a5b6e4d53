"""Workers that are killed, or told to end, under load: their callers notice nothing."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

ASKED = {"model": "sim-ok", "messages": [{"role": "user", "content": "Hello"}]}
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
BODY = b'{"model": "sim-ok", "messages": [{"role": "user", "content": "Hello"}]}'


def test_no_caller_of_the_official_sdk_notices_workers_that_are_killed(site, load, eventually) -> None:
    site.configure()
    up = site.up("--workers", "2")
    with load(up.gateway, retries=2, streams=False) as goes_on:  # a stream that has begun is lost with its worker, and no SDK retries one
        for which in (0, 1):
            before = up.workers()
            os.kill(before[which], signal.SIGKILL)
            eventually(lambda before=before, which=which: up.workers()[which] != before[which] and up.ready, "another worker")
            goes_on("calls that are answered by both")
    assert len(up.err) == 2


def test_a_worker_that_is_killed_again_and_again_comes_back_each_time(site, eventually) -> None:
    site.configure()
    up = site.up()
    killed: list[int] = []
    for _ in range(3):
        killed += eventually(lambda: up.ready and up.workers(), "a worker that answers")
        os.kill(killed[-1], signal.SIGKILL)
        eventually(lambda before=killed[-1:]: up.workers() != before, "another one")
        assert up.ask(ASKED).status == 200
    assert len(set(killed)) == 3
    assert up.err == [f"holdfast: worker {pid} ended with -9; starting another\n" for pid in killed]


def test_connections_that_a_killed_worker_had_not_accepted_are_served_by_the_next(site, eventually) -> None:
    site.configure()
    up = site.up()
    (worker,) = up.workers()
    os.kill(worker, signal.SIGSTOP)
    host, port = up.gateway.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)), timeout=30)) as waiting:
        waiting.sendall(POST % (len(BODY), BODY))
        os.kill(worker, signal.SIGKILL)
        assert waiting.recv(15) == b"HTTP/1.1 200 OK"


def test_a_worker_that_is_told_to_end_is_replaced_first(site, load, eventually) -> None:
    site.configure()
    up = site.up("--workers", "2")
    before = up.workers()
    with load(up.gateway) as goes_on:
        os.kill(before[0], signal.SIGTERM)
        eventually(lambda: up.workers()[0] != before[0] and not up.state()["retiring"], "another worker in place of the first")
        goes_on("calls that are answered by both")
    assert up.workers()[1] == before[1]
    assert up.err == [f"holdfast: worker {before[0]} was told to end; worker {up.workers()[0]} has taken over\n"]


def test_a_call_in_progress_at_a_worker_that_is_told_to_end_is_answered(site, eventually) -> None:
    site.configure()
    up = site.up()
    (before,) = up.workers()
    site.provider.close_door()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(up.ask, ASKED)
        eventually(lambda: site.provider.at_the_door, "a call at the provider")
        os.kill(before, signal.SIGTERM)
        eventually(lambda: up.workers() != [before], "another worker")
        site.provider.open_door()
        assert call.result().status == 200


def test_the_control_address_shows_what_workers_do(site, eventually) -> None:
    site.configure()
    up = site.up()
    site.provider.close_door()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(up.ask, ASKED) for _ in range(2)]
        eventually(lambda: [(each["connections"], each["calls"]) for each in up.state()["workers"]] == [(2, 2)], "two calls")
        site.provider.open_door()
        assert [call.result().status for call in calls] == [200] * 2
    eventually(lambda: [(each["connections"], each["calls"]) for each in up.state()["workers"]] == [(0, 0)], "none")
    (worker,) = up.state()["workers"]
    assert worker == {"pid": worker["pid"], "ready": True, "trouble": "", "connections": 0, "calls": 0}
