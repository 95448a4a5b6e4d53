"""A second opinion on every translation: LiteLLM's, which is installed apart (`make test-opinions`).

The same questions go through this gateway and through LiteLLM to the same provider. What the provider is sent and what the caller hears,
whole and streamed, is compared by its meaning and by every other field of the request; each difference stands below with its reason.
"""

import json
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from itertools import permutations, product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from holdfast.testing.meaning import Format, Said, asked, gathered, said, unequal
from holdfast.testing.meaning.questions import QUESTIONS
from holdfast.testing.simulated_provider import Address

PYTHON = Path(__file__).parents[2] / ".opinions" / "bin" / "python"
PAGE = Path(__file__).parents[2] / "docs" / "second-opinion.md"
DRIVER = Path(__file__).parent / "second_opinion.py"
PATHS: dict[Format, str] = {
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic-messages": "/v1/messages",
}


class Case(Struct, frozen=True):
    caller: Format
    target: Format
    question: str
    stream: bool

    @property
    def id(self) -> str:
        return "|".join((self.caller, self.target, self.question, "stream" if self.stream else "whole"))


class Opinion(Struct, frozen=True):
    """sent: the body that the provider got, None if it got none. heard: what the caller got, or why it could make nothing of it."""

    sent: bytes | None
    heard: Said | str


CASES = [
    Case(*pair, name, stream)
    for name, question in QUESTIONS.items()
    for pair in permutations(question.formats, 2)
    for stream in (False, True)
]


def understood(format: Format, told: dict[str, Any]) -> Said | str:
    """The meaning of an answer or of a stream's events; why it has none."""
    if "error" in told:
        return str(told["error"])
    try:
        return said(format, gathered(format, told["events"], strict=False) if "events" in told else told["answer"])
    except (AssertionError, KeyError, TypeError, ValueError, IndexError) as error:
        return f"{type(error).__name__}: {error}"


MODELS: dict[Format, str] = {"openai-chat": "gpt-5.1", "openai-responses": "gpt-5.1", "anthropic-messages": "claude-opus-4-6"}
"""By target: both translators know what these models can do."""


def through_gateway(gateway: Address, case: Case) -> dict[str, Any]:
    body = msgspec.json.decode(QUESTIONS[case.question].body(case.caller)) | {"model": MODELS[case.target]}
    if case.stream:
        body |= {"stream": True, **({"stream_options": {"include_usage": True}} if case.caller == "openai-chat" else {})}
    connection = HTTPConnection(gateway.host, gateway.port, timeout=60)
    headers = {"content-type": "application/json", "x-holdfast-agent": f"to-{case.target}", "anthropic-version": "2023-06-01"}
    connection.request("POST", PATHS[case.caller], json.dumps(body), headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    if response.status != 200:
        return {"error": f"{response.status}: {text}"}
    if not case.stream:
        return {"answer": json.loads(text)}
    data = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return {"events": [json.loads(line) for line in data if line != "[DONE]"]}


@pytest.fixture(scope="module")
def opinions(served: Any) -> Iterator[dict[Case, tuple[Opinion, Opinion]]]:
    """By case, ours and LiteLLM's."""
    ours = {}
    for case in CASES:
        served.arrived.clear()
        served.models[""] = QUESTIONS[case.question].model
        heard = understood(case.caller, through_gateway(served.gateway, case))
        ours[case] = Opinion(served.arrived[0].body if served.arrived else None, heard)
    served.arrived.clear()
    served.models.update({case.id: QUESTIONS[case.question].model for case in CASES})
    cases = [
        {
            "id": case.id,
            "caller": case.caller,
            "target": case.target,
            "stream": case.stream,
            "options": QUESTIONS[case.question].options(case.caller) | {"model": MODELS[case.target]},
        }
        for case in CASES
    ]
    asked_for = json.dumps({"base": served.upstream.anthropic, "cases": cases})
    done = subprocess.run([PYTHON, DRIVER], input=asked_for, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    sent: dict[str, bytes] = {}
    for request in served.arrived:
        key = request.header(b"x-api-key") or (request.header(b"authorization") or b"").removeprefix(b"Bearer ")
        sent.setdefault(key.decode(), request.body)
    yield {case: (ours[case], Opinion(sent.get(case.id), understood(case.caller, told[case.id]))) for case in CASES}


def differences(case: Case, ours: Opinion, theirs: Opinion) -> Iterator[str]:
    """The fields that differ: `sent …` of the request, `whole …` or `stream …` of the answer."""
    if ours.sent is None or theirs.sent is None:
        if ours.sent is not theirs.sent:
            yield "sent"
    elif not case.stream:
        yield from (f"sent {field}" for field in unequal(asked(case.target, ours.sent), asked(case.target, theirs.sent)))
    way = "stream" if case.stream else "whole"
    if isinstance(ours.heard, str) or isinstance(theirs.heard, str):
        if ours.heard != theirs.heard:
            yield way
    else:
        # What the same words cost follows from how tools are written.
        yield from (f"{way} {field}" for field in unequal(ours.heard, theirs.heard) if field not in {"input", "output"})


SHORT: dict[str, Format] = {"Chat": "openai-chat", "Responses": "openai-responses", "Messages": "anthropic-messages"}
Difference = tuple[Format, Format, str, str]
"""Caller, target, what differs, question."""


def explained() -> list[Difference]:
    """The rows of the manual's table, taken apart."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    return [
        (SHORT[caller], SHORT[target], what, question)
        for callers, targets, differing, asked_for, _ in rows[2:]
        for caller, target in product(callers.split(", "), targets.split(", "))
        for what in ways(differing)
        for question in named(asked_for, SHORT[caller], SHORT[target])
    ]


def ways(differing: str) -> Iterator[str]:
    for what in differing.split(", "):
        way, _, field = what.partition(" ")
        yield from (f"{each} {field}".strip() for each in (("whole", "stream") if way == "heard" else (way,)))


def named(asked_for: str, caller: Format, target: Format) -> set[str]:
    """The questions that `all`, `tools` or a list stands for; `but` takes some away."""
    possible = {name for name, question in QUESTIONS.items() if {caller, target} <= set(question.formats)}
    kind, _, less = asked_for.partition(" but ")
    if kind not in {"all", "tools"}:
        return set(asked_for.split(", "))
    return {name for name in possible if kind == "all" or "tools" in QUESTIONS[name].options(caller)} - set(less.split(", "))


def test_the_table_names_questions_that_are_asked() -> None:
    asked_for = {(case.caller, case.target, case.question) for case in CASES}
    assert [row for row in explained() if (row[0], row[1], row[3]) not in asked_for] == []


@pytest.mark.opinions
@pytest.mark.skipif(not PYTHON.exists(), reason="LiteLLM is not installed apart (make .opinions/ready)")
def test_every_difference_to_litellm_is_explained(opinions: dict[Case, tuple[Opinion, Opinion]]) -> None:
    found = {
        (case.caller, case.target, difference, case.question)
        for case, (ours, theirs) in opinions.items()
        for difference in differences(case, ours, theirs)
    }
    rows = explained()
    assert len(set(rows)) == len(rows), "explained twice"
    assert sorted(found - set(rows)) == [], "not explained"
    assert sorted(set(rows) - found) == [], "explained, and no difference any more"
