"""A ledger in PostgreSQL, a real one: limits over two gateways of their own data directories, and what a server that is away does."""

from typing import Any

import pytest

CALL = {"model": "sim-ok", "messages": [{"role": "user", "content": "What next?"}]}
CONFIGURED = """
ledger: {{url: env:LEDGER, on_unavailable: {choice}}}
limits: [{{calls: 20, per: day}}]
"""


@pytest.fixture
def env(postgresql: Any) -> dict[str, str]:
    return {"LEDGER": postgresql.new_database()}


def statuses(up: Any, calls: int) -> list[int]:
    return [up.ask(CALL).status for _ in range(calls)]


def test_two_gateways_share_a_limit_exactly(site: Any, env: dict[str, str]) -> None:
    site.configure(CONFIGURED.format(choice="refuse"))
    gateways = [site.up(env=env), site.up("--data-dir", str(site.folder / "other"), env=env)]
    heard = [status for _ in range(30) for up in gateways for status in statuses(up, 1)]
    assert set(heard) == {200, 402}
    served = heard.count(200)
    assert site.provider.of_model("sim-ok")["calls"] == served
    assert 18 <= served <= 20


def test_while_the_server_is_away_calls_are_refused_and_the_gateway_is_not_ready(
    site: Any, env: dict[str, str], postgresql: Any, eventually: Any, ask: Any
) -> None:
    site.configure(CONFIGURED.format(choice="refuse"))
    postgresql.stop()
    try:
        up = site.up(env=env)
        eventually(lambda: ask(up.gateway, "GET", "/readyz").status == 503, "a gateway that says it is not ready")
        refused = up.ask(CALL)
        assert refused.status == 503
        assert b"limits cannot be enforced now" in refused.body
    finally:
        postgresql.start()
    eventually(lambda: ask(up.gateway, "GET", "/readyz").status == 200, "a gateway that is ready again")
    assert statuses(up, 1) == [200]


def test_where_that_was_chosen_calls_go_on_unchecked_meanwhile(site: Any, env: dict[str, str], postgresql: Any) -> None:
    site.configure(CONFIGURED.format(choice="allow"))
    postgresql.stop()
    try:
        assert statuses(site.up(env=env), 3) == [200] * 3
    finally:
        postgresql.start()
    errors = [event for event in site.journal("error") if event["error_type"] == "limits_unavailable"]
    assert [event["severity"] for event in errors] == ["critical"] * 3
