"""What cannot guard does not call itself ready, says why, refuses with 503, and comes back by itself."""

import resource
import sqlite3
import sys
from contextlib import closing

import pytest

ASKED = {"model": "sim-ok", "messages": [{"role": "user", "content": "Hello"}]}
AGENTS = "agents: {capped: {key: env:KEY_CAPPED, limits: [{calls: 100000}, {usd: 1, per: user}]}}\n"
KEYS = {"KEY_CAPPED": "key-of-capped"}


def pages(up, ask) -> list[tuple[int, str]]:
    """What /readyz says on both addresses."""
    answers = [ask(base, "GET", "/readyz") for base in (up.gateway, up.control)]
    return [(answer.status, answer.body.decode()) for answer in answers]


@pytest.mark.skipif(sys.platform != "linux", reason="the size of another process's files is limited with prlimit(2)")
def test_without_room_for_the_record_nothing_is_ready_until_there_is_room_and_no_call_has_to_find_out(site, ask, eventually) -> None:
    site.configure()
    up = site.up()
    (worker,) = up.workers()
    assert up.ask(ASKED).status == 200
    _, hard = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (10, hard))
    eventually(lambda: up.ask(ASKED).status == 503, "a record that cannot be written")
    eventually(lambda: not up.ready, "a control address that says so")
    (gateway, why), (control, same) = pages(up, ask)
    assert (gateway, control) == (503, 503)
    assert "journal" in why or "ledger" in why  # whichever found out last: neither has room
    assert same.startswith(f"not ready: worker {worker}: ")
    (seen,) = up.state()["workers"]
    assert not seen["ready"] and seen["trouble"] in why
    assert ask(up.gateway, "GET", "/healthz").status == 200
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    eventually(lambda: up.ready, "readiness, without a single call")
    assert pages(up, ask) == [(200, "ready\n")] * 2
    assert up.ask(ASKED).status == 200
    assert up.workers() == [worker]


def test_while_the_ledger_is_locked_nothing_is_ready_and_limited_calls_get_503(site, ask, eventually) -> None:
    site.configure(AGENTS)
    up = site.up(env=KEYS)
    assert up.ask(ASKED, "key-of-capped").status == 200

    with closing(sqlite3.connect(site.data / "ledger.sqlite", isolation_level=None)) as another:
        another.execute("BEGIN EXCLUSIVE")
        answer = up.ask({**ASKED, "user": "new"}, "key-of-capped")
        assert (answer.status, answer.headers["x-holdfast-refusal"]) == (503, "limits_unavailable")
        assert "retry-after" in answer.headers
        eventually(lambda: not up.ready, "a control address that says so")
        (gateway, why), (control, same) = pages(up, ask)
        assert (gateway, control) == (503, 503)
        assert "ledger" in why and "ledger" in same
        assert up.ask(ASKED, "key-of-nobody").status == 403  # a wrong key is still no more than that
        another.execute("ROLLBACK")
    eventually(lambda: up.ready, "readiness, without a single call")
    assert pages(up, ask) == [(200, "ready\n")] * 2
    assert up.ask({**ASKED, "user": "new"}, "key-of-capped").status == 200
