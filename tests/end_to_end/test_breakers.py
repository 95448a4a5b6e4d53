"""Circuit breakers on real processes: shared by workers, shown and operated by commands with and without a running gateway."""

import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

MESSAGES = [{"role": "user", "content": "Hello"}]
AGENTS = """
breakers: {{minimum_calls: 5, cooldown: {cooldown}, probes: 1}}
agents:
  a: {{routes: {{broken: [openai/sim-error-500, simulated/sim-ok], only: [openai/sim-error-500], "*": [openai/*]}}, retries: {{max: 0}}}}
"""
PROVIDERS = """
  simulated: {{kind: simulated, base_url: "{openai}"}}
"""
BROKEN = {"model": "broken", "messages": MESSAGES}
ONLY = {"model": "only", "messages": MESSAGES}
NAME = "openai/sim-error-500"


def configured(site, cooldown: str = "5m") -> None:
    site.configure(PROVIDERS.format(openai=site.provider.address.openai) + AGENTS.format(cooldown=cooldown))


def attempts(site) -> int:
    return int(site.provider.of_model("sim-error-500")["calls"])


def listed(site, *words: str) -> list[dict[str, object]]:
    done = site.command("breaker", "list", "--json", *words)
    assert done.code == 0, done.err
    return list(done.events())


def test_what_one_worker_opens_is_open_to_all_and_commands_show_it_also_when_nothing_runs(site, eventually) -> None:
    configured(site)
    up = site.up("--workers", "2")
    answers = [up.ask(BROKEN) for _ in range(40)]
    assert [answer.status for answer in answers] == [200] * 40
    assert attempts(site) == 5, "the two workers together, not each"
    refused = up.ask(ONLY)
    assert (refused.status, refused.headers["x-holdfast-refusal"]) == (503, "circuit_open")
    assert 1 <= int(refused.headers["retry-after"]) <= 330
    (opened,) = site.journal("breaker_changed")
    assert (opened["breaker"], opened["from_state"], opened["to_state"]) == (NAME, "closed", "open")
    assert {event["recovery_action"] for event in site.journal("decision")} == {"fell_back", "circuit_open"}
    running = listed(site)
    up.end(signal.SIGTERM)
    (shown,) = listed(site)
    assert (shown["breaker"], shown["state"], shown["scope"], shown["reason"]) == (NAME, "open", "model", "5 of 5 calls failed within 30 s")
    assert running[0]["until"] is not None and shown["since"] == running[0]["since"]
    status = site.command("status")
    assert f"  {NAME}: open since" in status.out and "may be probed in" in status.out
    (state,) = site.command("status", "--json").events()
    assert {each["breaker"]: each["state"] for each in state["breakers"]} == {NAME: "open", "openai": "closed", **_closed(state)}
    plain = site.command("breaker", "list")
    assert plain.out.startswith(f"{NAME}: open since")


def _closed(state: dict[str, object]) -> dict[str, str]:
    """The others: keys, and the fallback."""
    breakers = state["breakers"]
    assert isinstance(breakers, list)
    return {each["breaker"]: "closed" for each in breakers if each["breaker"].startswith(("openai#", "simulated"))}


def test_isolated_means_no_call_from_the_next_one_on_over_restarts_until_it_is_reset(site) -> None:
    configured(site)
    before = site.command("breaker", "isolate", "simulated/sim-ok", "--reason", "it answers in riddles", "--author", "ann")
    assert before.code == 0, before.err
    assert "simulated/sim-ok; no call reaches it from now on" in before.out and "No call of simulated/sim-ok" in before.err
    up = site.up("--workers", "2")
    assert [up.ask(BROKEN).status for _ in range(3)] == [500] * 3, "the fallback is isolated: what the first target said comes through"
    up.end(signal.SIGKILL, group=True)
    up = site.up("--workers", "2")
    assert up.ask(BROKEN).status == 500
    done = site.command("breaker", "reset", "simulated/sim-ok", "--json")
    assert done.events() == [{"action": "reset", "breaker": "simulated/sim-ok", "from": "isolated"}]
    assert [up.ask(BROKEN).status for _ in range(6)] == [200] * 6
    assert site.command("breaker", "isolate", "openai").code == 0
    made = len(site.provider.seen)
    assert [up.ask({"model": "sim-ok", "messages": MESSAGES}).status for _ in range(6)] == [503] * 6
    assert len(site.provider.seen) == made
    changed = [(event["breaker"], event["to_state"], event.get("author", "")) for event in site.journal("breaker_changed")]
    assert ("simulated/sim-ok", "isolated", "ann") in changed and changed[-1][:2] == ("openai", "isolated")


def test_reset_closes_an_open_one_and_it_counts_anew(site) -> None:
    configured(site)
    up = site.up("--workers", "2")
    for _ in range(10):
        up.ask(BROKEN)
    assert attempts(site) == 5
    done = site.command("breaker", "reset", "--all")
    assert (done.code, done.out) == (0, f"Closed: {NAME} (open).\n")
    for _ in range(10):
        up.ask(BROKEN)
    assert attempts(site) == 10
    changes = [(event["from_state"], event["to_state"]) for event in site.journal("breaker_changed")]
    assert sorted(changes) == [("closed", "open"), ("closed", "open"), ("open", "closed")]


def test_a_worker_killed_with_a_probe_in_flight_leaves_the_probe_to_another(site, eventually) -> None:
    configured(site, cooldown="100ms")
    up = site.up("--workers", "2")
    while not listed(site):
        up.ask(BROKEN)
    site.provider.close_door()

    def probing() -> bool:
        thread = threading.Thread(target=_ask_and_ignore, args=(up, ONLY), daemon=True)
        thread.start()
        thread.join(0.05)
        return bool(site.provider.at_the_door)

    eventually(probing, "a probe at the door")
    (shown,) = listed(site)
    assert (shown["state"], shown["probes"]) == ("half_open", 1)
    for worker in up.workers():
        os.kill(worker, signal.SIGKILL)
    site.provider.open_door()
    made = attempts(site)
    eventually(lambda: up.ask(ONLY).status == 500 and attempts(site) > made, "another probe, once the first one's place is free")


def _ask_and_ignore(up, body: dict[str, object]) -> None:
    with contextlib.suppress(OSError, json.JSONDecodeError):
        up.ask(body)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("isolate", ""), 2, "name a breaker as PROVIDER, PROVIDER/MODEL"),
        (("isolate", "openai/" + "m" * 300), 2, "longer than 256 characters"),
        (("reset",), 2, "name one breaker, or --all"),
        (("reset", "openai", "--all"), 2, "name one breaker, or --all"),
        (("reset", "openai"), 1, "the circuit breaker openai is not open; open now: none"),
    ],
)
def test_wrong_words_are_one_sentence(site, words: tuple[str, ...], code: int, said: str) -> None:
    done = site.command("breaker", *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err and done.err.count("\n") == 1


def test_a_name_that_is_nearly_one_that_is_known_is_held_open_and_asked_about(site) -> None:
    assert site.command("breaker", "isolate", "openai/gpt").code == 0
    done = site.command("breaker", "isolate", "openai/gtp")
    assert done.code == 0 and "did you mean openai/gpt?" in done.err


def test_a_folder_in_which_nothing_was_counted_is_not_called_well(site) -> None:
    done = site.command("breaker", "list")
    assert (done.code, done.out) == (0, "") and "--data-dir names another place" in done.err


def test_a_damaged_file_is_named_with_the_way_out(site) -> None:
    assert site.command("breaker", "isolate", "openai").code == 0
    (site.data / "breakers.json").write_text("{")
    done = site.command("breaker", "list")
    assert done.code == 1 and "`holdfast breaker reset --all` begins it anew" in done.err
    assert "not known:" in site.command("status").out
    assert site.command("breaker", "isolate", "openai").code == 1
    assert site.command("breaker", "reset", "--all").code == 0
    assert site.command("breaker", "list", "--all").code == 0


def test_names_are_completed(site) -> None:
    assert site.command("breaker", "isolate", "openai/gpt").code == 0
    for word, completed in (("open", ["openai/gpt"]), ("other", [])):
        environment = {"_HOLDFAST_COMPLETE": "complete_bash", "COMP_WORDS": f"holdfast breaker reset {word}", "COMP_CWORD": "3"}
        done = site.command(env=environment, via=(str(Path(sys.executable).with_name("holdfast")),))
        assert done.out.split() == completed
