"""kill -9 in the middle of calls: limits still hold, the record is readable, the next start is clean. TERM: nothing is lost at all."""

import os
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

import pytest

CALLS = 12
LIMIT = 40_000_000
"""Nano-dollars: about twenty calls."""
AGENTS = f"""
agents:
  caller: {{key: file:caller.key, limits: [{{calls: {CALLS}}}]}}
  spender: {{key: file:spender.key, limits: [{{usd: {LIMIT / 1e9}}}]}}
"""


@pytest.fixture
def guarded(site) -> Any:
    for name in ("caller", "spender"):
        file = site.folder / f"{name}.key"
        file.touch(mode=0o600)
        file.write_text(f"key-of-{name}")
    site.configure(AGENTS)
    return site


def model(agent: str) -> str:
    """Each agent's own name for the same model: the provider's account tells them apart."""
    return f"{agent}:sim-tokens-500"


def attempt(up, agent: str) -> int:
    """The status of one call; 0 when the connection broke."""
    body = {"model": model(agent), "max_tokens": 500, "messages": [{"role": "user", "content": "What next?"}]}
    try:
        status: int = up.ask(body, f"key-of-{agent}").status
    except (HTTPException, OSError):
        return 0
    return status


def until_refused(up, agent: str) -> None:
    while (status := attempt(up, agent)) == 200:
        pass
    assert status == 402


def calls_at_the_door(site, up, eventually, pool: ThreadPoolExecutor) -> list[Future[int]]:
    """Four calls of each agent, begun and not answered."""
    site.provider.close_door()
    calls = [pool.submit(attempt, up, agent) for agent in ("caller", "spender") for _ in range(4)]
    eventually(lambda: site.provider.at_the_door == 8, "eight calls at the provider")
    return calls


def kill_the_worker(up) -> None:
    os.kill(up.workers()[0], signal.SIGKILL)


def kill_the_group(up) -> None:
    assert up.end(signal.SIGKILL, group=True) == -signal.SIGKILL


@pytest.mark.parametrize("kill", [kill_the_worker, kill_the_group])
def test_limits_hold_after_kill_9_in_the_middle_of_calls(guarded, eventually, kill) -> None:
    up = guarded.up()
    assert [attempt(up, agent) for agent in ("caller", "spender")] == [200, 200]
    with ThreadPoolExecutor(8) as pool:
        calls = calls_at_the_door(guarded, up, eventually, pool)
        before = up.workers()
        kill(up)
        assert [call.result() for call in calls] == [0] * 8
    guarded.provider.open_door()  # the provider serves and bills what nobody waits for any more
    if up.gone:
        up = guarded.up()
    else:
        eventually(lambda: up.ready and up.workers() != before, "another worker")
    until_refused(up, "caller")
    until_refused(up, "spender")
    assert guarded.provider.of_model(model("caller"))["calls"] == CALLS  # what the dead had leased and not used is there again
    assert 0 < guarded.provider.billed(model("spender")) <= LIMIT


def test_a_torn_line_is_dropped_counted_and_named(guarded, eventually) -> None:
    up = guarded.up()
    assert attempt(up, "caller") == 200
    up.end(signal.SIGKILL, group=True)
    (file,) = (guarded.data / "journal").glob("*.ndjson")
    size = file.stat().st_size
    with file.open("ab") as journal:
        journal.write(b'{"kind":"decision","decision_id":"01a2')
    listed = guarded.command("decisions", "list", "--json")
    assert (listed.code, len(listed.events())) == (0, 1)
    assert f"1 line of the journal could not be read and are left out, first in {file} at byte {size}" in listed.err
    up = guarded.up()
    assert attempt(up, "caller") == 200
    listed = guarded.command("decisions", "list", "--json")
    assert len(listed.events()) == 2
    assert "1 line of the journal" in listed.err
    assert up.end() == 0
    assert up.err == []


def test_term_lets_calls_end_and_returns_what_was_leased(guarded, eventually, ask) -> None:
    up = guarded.up()
    with ThreadPoolExecutor(8) as pool:
        calls = calls_at_the_door(guarded, up, eventually, pool)
        up.process.send_signal(signal.SIGTERM)
        eventually(lambda: _refuses_connections(ask, up), "a gateway that takes no more calls")
        guarded.provider.open_door()
        assert [call.result() for call in calls] == [200] * 8
    assert up.process.wait(30) == 0
    eventually(lambda: up.gone, "the end of every process")
    up = guarded.up()
    until_refused(up, "caller")
    until_refused(up, "spender")
    assert guarded.provider.of_model(model("caller"))["calls"] == CALLS
    assert 0.95 * LIMIT <= guarded.provider.billed(model("spender")) <= LIMIT


def _refuses_connections(ask, up) -> bool:
    try:
        ask(up.gateway, "GET", "/healthz")
    except OSError:
        return True
    return False
