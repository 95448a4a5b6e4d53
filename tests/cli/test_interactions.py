"""`holdfast interactions` as its users and their scripts meet it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

Holdfast = Callable[..., Any]


def test_the_list_adds_up_each_interaction(story: Any, holdfast: Holdfast) -> None:
    done = holdfast("interactions", "list")
    assert (done.returncode, done.stderr) == (0, "")
    head, other, first = done.stdout.splitlines()
    assert head.split() == ["ID", "LAST", "LASTED", "AGENT", "USER", "DECISIONS", "CALLS", "ERRORS", "REFUSED", "TOKENS", "COST"]
    assert other.split()[-6:] == ["1", "0", "0", "0", "–", "–"]
    assert first.split()[0] == story.interaction[:13]
    assert first.split()[-8:] == ["support", "ann", "2", "2", "1", "1", "100/20", "$0.0012345"]


@pytest.mark.parametrize(
    ("options", "users"),
    [
        ((), ["bob", "ann"]),
        (("--agent", "billing"), ["bob"]),
        (("--user", "ann"), ["ann"]),
        (("--run", "run-1"), ["ann"]),
        (("--limit", "1"), ["bob"]),
        (("--since", "2026-01-01T00:00:45Z"), ["bob"]),
    ],
)
def test_filters_choose_what_a_script_gets(story: Any, holdfast: Holdfast, options: tuple[str, ...], users: list[str]) -> None:
    done = holdfast("interactions", "list", "--json", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["user_id"] for line in done.stdout.splitlines()] == users


def test_show_is_a_timeline(story: Any, holdfast: Holdfast) -> None:
    done = holdfast("interactions", "show", story.interaction)
    assert (done.returncode, done.stderr) == (0, "")
    order = [
        ": 429, 33 ms",
        "rate_limit",
        ": 200, 33 ms",
        story.reply.decision_id,
        "refused by the limit agent support: 5 USD per day: 4.00 spent, 1.00 reserved",
    ]
    places = [done.stdout.find(words) for words in order]
    assert -1 not in places and places == sorted(places)
    assert "\x1b" not in done.stdout


def test_show_as_json_holds_every_event_in_order(story: Any, holdfast: Holdfast) -> None:
    done = holdfast("interactions", "show", "--json", story.interaction[:23])
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)
    kinds = [event["kind"] for event in record["events"]]
    assert kinds == ["interaction_started", "api_call", "decision", "error", "api_call", "decision", "limit_refusal"]
    assert (record["decisions"], record["cost_usd"], record["cost_complete"]) == (2, 0.0012345, True)


def test_unknown_names_are_one_sentence(story: Any, holdfast: Holdfast) -> None:
    done = holdfast("interactions", "show", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("holdfast: no interaction nobody in ")
