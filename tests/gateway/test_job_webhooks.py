"""Webhooks hear of the end of jobs: signed, at least once, for a day."""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from holdfast.clock import SECOND
from holdfast.errors import ConnectFailed
from holdfast.execution.upstream import Origin
from holdfast.gateway.job_webhook import Webhook
from holdfast.store.jobs import JobFiles
from holdfast.testing import MemoryResponse
from holdfast.testing.memory_gateway import MemoryGateway

CHAT = "/v1/chat/completions"
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
ANSWER = msgspec.json.encode(
    {"id": "c1", "model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
)
LATER = {"prefer": "respond-async"}
SECRET = "whsec_" + b64encode(b"k" * 32).decode()
HOOK = Webhook(name="crm", origin=Origin("hooks.example.com", 443, True), target="/holdfast", secret=SECRET)

World = Callable[..., MemoryGateway]


def header(response: MemoryResponse, name: str) -> str | None:
    return next((value.decode() for key, value in response.headers if key == name.encode()), None)


def submit(gateway: MemoryGateway, body: object = QUESTION, **more: str) -> str:
    """The path of a new job."""
    taken = gateway.call("POST", CHAT, body, LATER | {name.replace("_", "-"): value for name, value in more.items()})
    assert taken.status == 202, taken.body
    return header(taken, "location") or ""


def look(gateway: MemoryGateway, path: str) -> Any:
    return gateway.call("GET", path).json()


def test_a_webhook_that_nobody_configured_is_refused_at_once(world: World) -> None:
    refused = world(webhooks=(HOOK,)).call("POST", CHAT, QUESTION, LATER | {"x-holdfast-webhook": "https://elsewhere.example.com"})
    assert (refused.status, header(refused, "x-holdfast-refusal")) == (400, "unknown_webhook")
    assert world(webhooks=(HOOK,)).call("POST", CHAT, QUESTION, LATER | {"x-holdfast-webhook": "crn"}).body.find(b"crm") > 0


def test_a_webhook_is_told_of_the_end_with_a_signature_that_only_the_secret_can_make(world: World) -> None:
    gateway = world(webhooks=(HOOK,))
    path = submit(gateway, x_holdfast_webhook="crm")
    gateway.upstream.latest.answer(ANSWER)
    gateway.clock.advance(0)
    sent = gateway.upstream.latest.request
    assert (sent.method, sent.origin, sent.target) == (b"POST", HOOK.origin, b"/holdfast")
    headers = dict(sent.headers)
    assert headers[b"webhook-id"] == path[6:].encode()
    signed = headers[b"webhook-id"] + b"." + headers[b"webhook-timestamp"] + b"." + sent.body
    expected = b64encode(hmac.digest(b64decode(SECRET[6:]), signed, "sha256"))
    assert headers[b"webhook-signature"] == b"v1," + expected
    told = msgspec.json.decode(sent.body)
    assert (told["type"], told["data"]["id"], told["data"]["answer"]["status"]) == ("job.done", path[6:], 200)
    assert told["data"]["answer"]["body"] == msgspec.json.decode(ANSWER)
    gateway.upstream.latest.answer(b"", 204)
    gateway.clock.advance(10 * SECOND)
    assert len(gateway.upstream.exchanges) == 2
    assert look(gateway, path)["webhook"] == {"name": "crm", "told": True, "tries": 1, "why": ""}
    assert (gateway.recorder.api_calls[-1].target_api, gateway.recorder.api_calls[-1].response_code) == ("webhook crm", 204)
    assert SECRET not in repr(gateway.recorder.events)


def test_a_webhook_is_told_again_until_it_takes_it_and_the_answer_can_be_fetched_meanwhile(world: World, tmp_path: Path) -> None:
    gateway = world(webhooks=(HOOK,))
    path = submit(gateway, x_holdfast_webhook="crm")
    gateway.upstream.latest.answer(ANSWER)
    gateway.clock.advance(0)
    gateway.upstream.latest.answer(b"", 500)
    gateway.clock.advance(0)
    assert gateway.call("GET", path + "/answer").body == ANSWER
    gateway.clock.advance(6 * SECOND)
    assert len(gateway.upstream.exchanges) == 3
    gateway.clock.advance(16 * SECOND)  # silence is taken for a failure
    assert gateway.upstream.exchanges[2].cancelled
    gateway.clock.advance(12 * SECOND)
    gateway.upstream.latest.answer(b"", 200)
    gateway.clock.advance(2 * SECOND)
    assert look(gateway, path)["webhook"] == {"name": "crm", "told": True, "tries": 3, "why": ""}
    assert JobFiles(tmp_path / "data").ids("ended") == [path[6:]]


def test_a_webhook_that_is_gone_is_told_once_and_one_that_never_answers_for_a_day(world: World, tmp_path: Path) -> None:
    gateway = world(webhooks=(HOOK,))
    submit(gateway, x_holdfast_webhook="crm")
    gateway.upstream.latest.answer(ANSWER)
    gateway.clock.advance(0)
    gateway.upstream.latest.answer(b"", 410)
    gateway.clock.advance(3600 * SECOND)
    assert len(gateway.upstream.exchanges) == 2
    submit(gateway, x_holdfast_webhook="crm")
    gateway.upstream.latest.answer(ANSWER)
    gateway.upstream.refusing = ConnectFailed("nobody there")
    gateway.clock.advance(25 * 3600 * SECOND)
    assert not JobFiles(tmp_path / "data").ids("telling")
    assert 30 <= len(gateway.upstream.exchanges) <= 60
