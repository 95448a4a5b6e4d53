"""A data directory with a small story on record, and the command line as a user runs it."""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec import Raw, Struct

from holdfast.cli import main
from holdfast.clock import MILLISECOND, SECOND
from holdfast.events import ApiCall, Context, Decision, Error, Event, InteractionStarted, LimitRefusal
from holdfast.events.ids import uuid7
from holdfast.events.usage import Usage
from holdfast.store.journal import Journal
from holdfast.testing import FakeClock

EVIL = "\x1b]0;evil\x07 \x9b31m \u202e"


class Story(Struct, frozen=True):
    """What is on record: in `interaction` a refund after a retry, then a reply; another agent's cut decision; a refusal."""

    data_dir: Path
    interaction: str
    refund: Decision
    reply: Decision
    cut: Decision
    path: Path


ASKED = {"model": "gpt-5.1", "format": "openai-chat"}


@pytest.fixture
def story(tmp_path: Path) -> Story:
    clock = FakeClock()
    now = clock.wall_ns()
    first, second = uuid7(now, 1), uuid7(now + 60 * SECOND, 2)
    who = {"agent": "support", "release": "v1", "run": "run-1", "user_id": "ann", "interaction": first}
    other = {"agent": "billing", "release": "v9", "interaction": second, "user_id": "bob"}
    latest = now + 60 * SECOND
    refund = _refund(now, who)
    reply = _reply(now + 20 * SECOND, refund, who)
    cut = Decision(
        decision_id=uuid7(latest, 3 << 62), timestamp=latest, chosen_action="none", complete=False, error_id="e2", **other, **ASKED
    )
    events: list[Event] = [
        InteractionStarted(timestamp=now, identified_by="history", **who),
        Context(digest="d1", role="system", content=Raw(b'"Be kind."')),
        *_calls(now, refund, who),
        refund,
        reply,
        _limit_refusal(reply.timestamp + 1, who),
        InteractionStarted(timestamp=latest, identified_by="header", **other),
        cut,
    ]
    with ThreadPoolExecutor(1) as executor:
        journal = Journal(tmp_path / "data", "up", clock, executor)
        for event in events:
            journal.append(event)
        journal.close()
    assert journal.path is not None
    return Story(tmp_path / "data", first, refund, reply, cut, journal.path)


def _refund(now: int, who: dict[str, str]) -> Decision:
    return Decision(
        decision_id=uuid7(now, 1 << 62),
        timestamp=now,
        served_by="openai/gpt-5.1",
        input_messages=Raw('[{"role": "user", "content": "refund order 7 – 日本"}]'.encode()),
        input_params=Raw(b'{"temperature":0}'),
        context=("d1",),
        chosen_action="refund_order",
        tool_calls=Raw(b'[{"name":"refund_order","arguments":"{\\"order\\":7}","id":"c1"}]'),
        reasoning_chain=f"it is damaged{EVIL}",
        usage=Usage(100, 20, 50),
        cost=1_234_500,
        cost_source="provider",
        latency_ns=400 * MILLISECOND,
        attempts=2,
        error_id="e1",
        recovery_action="retried",
        **who,
        **ASKED,
    )


def _reply(now: int, refund: Decision, who: dict[str, str]) -> Decision:
    return Decision(
        decision_id=uuid7(now, 2 << 62),
        timestamp=now,
        served_by="anthropic/claude-sonnet-4-5",
        parent=refund.decision_id,
        inherited_messages=1,
        input_messages=Raw(b'[{"role":"tool","content":"refunded","tool_call_id":"c1"}]'),
        chosen_action="reply",
        answer=f"Done.{EVIL}",
        **who,
        **ASKED,
    )


def _calls(now: int, refund: Decision, who: dict[str, str]) -> list[Event]:
    """The two attempts behind the refund, and the error between them."""
    call = {"target_api": "openai/gpt-5.1 POST /v1/chat/completions", "latency_ms": 33.0, "bytes_sent": 10}
    served = {"decision_id": refund.decision_id, **call, **who}
    error = Error(
        error_id="e1",
        timestamp=now + 1,
        error_type="rate_limit",
        message="openai answered 429",
        full_traceback="slow down\nplease",
        recovery_action="retried",
        severity="warning",
        decision_id=refund.decision_id,
        **who,
    )
    paid = {"cost": 1_234_500, "cost_source": "provider"}
    return [
        ApiCall(call_id="c.1", timestamp=now, response_code=429, attempt=1, retry_count=0, error_id="e1", **served),
        error,
        ApiCall(call_id="c.2", timestamp=now + 2, response_code=200, attempt=2, retry_count=1, **paid, **served),
    ]


def _limit_refusal(now: int, who: dict[str, str]) -> LimitRefusal:
    return LimitRefusal(
        timestamp=now,
        limit="agent support: 5 USD per day",
        scope="agent",
        unit="usd",
        amount=5 * 10**9,
        spent=4 * 10**9,
        reserved=10**9,
        asked=10**8,
        **who,
    )


class Done(Struct, frozen=True):
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def holdfast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Done]]:
    """Runs `holdfast ARGUMENTS --data-dir DATA_DIR` to its end, in this process and in UTC."""

    def run(*arguments: str, **environment: str) -> Done:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["holdfast", *arguments, "--data-dir", str(tmp_path / "data")])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0, *capsys.readouterr())

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield run
    monkeypatch.undo()
    time.tzset()
