"""Calls that are answered later: taken with `Prefer: respond-async`, tried through the guard, kept, fetched, told."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.clock import SECOND
from holdfast.errors import ConnectFailed, ConnectionCut, StorageError
from holdfast.store.jobs import JobFiles
from holdfast.testing import MemoryResponse
from holdfast.testing.memory_gateway import MemoryGateway

CHAT = "/v1/chat/completions"
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
ANSWER = msgspec.json.encode(
    {
        "id": "c1",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
)
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'{"error":{"message":"no","type":"t","code":null,"param":null}}'
LATER = {"prefer": "respond-async"}
ROUTED = "agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 0}}}"
LIMITED = "agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 0}, limits: [{calls: 1, per: hour}]}}"
TWO_AGENTS = """agents:
  a: {key: env:UPSTREAM_KEY, routes: {'*': [simulated/*]}}
  b: {routes: {'*': [simulated/*]}}
"""

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


def test_a_call_that_asks_to_be_answered_later_is_taken_before_anything_is_sent_or_spent(world: World, tmp_path: Path) -> None:
    gateway = world()
    gateway.upstream.refusing = ConnectFailed("down")
    taken = gateway.call("POST", CHAT, QUESTION, LATER | {"authorization": "Bearer sk-virtual", "proxy-authorization": "Basic cHJveHk="})
    assert (taken.status, header(taken, "preference-applied"), header(taken, "retry-after")) == (202, "respond-async", "1")
    job = taken.json()
    assert isinstance(job, dict)
    assert (job["status"], job["location"]) == ("queued", header(taken, "location")) == ("queued", f"/jobs/{job['id']}")
    (file,) = (tmp_path / "data" / "jobs").rglob("*.ndjson")
    assert b"sk-virtual" not in file.read_bytes() and b"cHJveHk=" not in file.read_bytes()
    assert file.stat().st_mode & 0o77 == 0


def test_the_answer_of_a_job_is_the_one_that_the_call_would_have_got(world: World) -> None:
    gateway = world()
    path = submit(gateway)
    assert look(gateway, path)["status"] == "running"
    early = gateway.call("GET", path + "/answer")
    assert (early.status, header(early, "retry-after"), header(early, "x-should-retry")) == (409, "1", "true")
    assert b"prefer" not in dict(gateway.upstream.latest.request.headers)
    gateway.upstream.latest.answer(ANSWER)
    gateway.clock.advance(0)
    described = look(gateway, path)
    (decision,) = gateway.recorder.decisions
    assert (described["status"], described["tries"], described["decision"]) == ("done", 1, decision.decision_id)
    assert (decision.job, described["answer"]) == (described["id"], {"status": 200, "location": path + "/answer"})
    answer = gateway.call("GET", path + "/answer")
    assert (answer.status, answer.body, header(answer, "content-type")) == (200, ANSWER, "application/json")
    assert header(answer, "x-holdfast-decision") == decision.decision_id
    assert len(gateway.upstream.exchanges) == 1


def test_a_stream_is_kept_whole(world: World) -> None:
    gateway = world()
    path = submit(gateway, QUESTION | {"stream": True, "stream_options": {"include_usage": True}})
    gateway.upstream.latest.stream(HELLO, STOP, DONE)
    gateway.clock.advance(0)
    answer = gateway.call("GET", path + "/answer")
    assert (answer.status, answer.body) == (200, HELLO + STOP + DONE)
    assert (header(answer, "content-type") or "").startswith("text/event-stream")


def test_without_the_preference_and_in_a_gateway_without_jobs_a_call_is_answered_at_once(world: World, options_of) -> None:
    for gateway, headers in ((world(), {"prefer": "wait=5"}), (MemoryGateway(options_of(ROUTED)), LATER)):
        response = gateway.call("POST", CHAT, QUESTION, headers)
        gateway.upstream.latest.answer(ANSWER)
        assert (response.status, header(response, "preference-applied")) == (200, None)


def test_a_webhook_without_the_preference_is_refused_for_it_would_never_be_told(world: World) -> None:
    gateway = world()
    response = gateway.call("POST", CHAT, QUESTION, {"x-holdfast-webhook": "done"})
    assert (response.status, header(response, "x-holdfast-refusal")) == (400, "webhook_without_job")
    assert not gateway.upstream.exchanges


@pytest.mark.parametrize("body", [b"{", {"model": "m"}, b"\xff"])
def test_a_malformed_request_is_refused_at_once(world: World, body: object, tmp_path: Path) -> None:
    gateway = world()
    assert gateway.call("POST", CHAT, body, LATER).status == 400
    assert gateway.recorder.errors[0].error_type == "parsing"
    assert not list((tmp_path / "data").rglob("*.ndjson"))


def test_what_the_kill_switch_stops_is_refused_at_once_and_stops_jobs_that_were_taken(world: World) -> None:
    gateway = world()
    gateway.upstream.refusing = ConnectFailed("down")
    path = submit(gateway)
    gateway.kill("agent", "a")
    assert gateway.call("POST", CHAT, QUESTION, LATER).status == 403
    gateway.clock.advance(10 * SECOND)
    assert look(gateway, path)["status"] == "failed"
    assert header(gateway.call("GET", path + "/answer"), "x-holdfast-refusal") == "killed"


def test_an_unknown_key_is_refused_at_once_and_a_job_is_for_the_agent_whose_it_is_alone(world: World) -> None:
    gateway = world(TWO_AGENTS)
    path = submit(gateway, authorization="Bearer sk-upstream")
    gateway.upstream.latest.answer(ANSWER)
    gateway.clock.advance(0)
    for method, target in (("GET", path), ("GET", path + "/answer"), ("DELETE", path)):
        assert gateway.call(method, target).status == 404, (method, target)
    owner = {"authorization": "Bearer sk-upstream"}
    assert gateway.call("GET", path, None, owner).status == 200
    assert gateway.call("POST", CHAT, QUESTION, LATER | {"origin": "https://elsewhere.example.com"}).status == 403
    for strange in ("/jobs/", "/jobs/..%2f..", "/jobs/../x", "/jobs/0/answer/more", "/jobs/" + "0" * 300, "/jobs/0"):
        assert gateway.call("GET", strange).status == 404
    assert gateway.call("POST", path, b"", owner).status == 404


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_a_job_is_tried_again_until_its_provider_is_back(world: World, status: int) -> None:
    gateway = world()
    path = submit(gateway)
    gateway.upstream.latest.answer(ERROR, status)
    gateway.clock.advance(0)
    described = look(gateway, path)
    assert (described["status"], described["last_failure"]["status"]) == ("queued", status)
    gateway.clock.advance(5 * SECOND)
    gateway.upstream.latest.answer(ANSWER)
    gateway.clock.advance(0)
    assert (look(gateway, path)["status"], look(gateway, path)["tries"]) == ("done", 2)
    (error,) = gateway.recorder.errors
    (decision,) = gateway.recorder.decisions
    assert (error.recovery_action, decision.recovery_action) == ("queued", "queued")
    assert [call.response_code for call in gateway.recorder.api_calls] == [status, 200]


def test_a_job_waits_for_limits_that_cannot_be_checked_now(world: World) -> None:
    gateway = world(LIMITED)
    gateway.ledger.failing = StorageError("the ledger is away")
    path = submit(gateway)
    assert (look(gateway, path)["status"], look(gateway, path)["last_failure"]["status"]) == ("queued", 503)
    assert [error.recovery_action for error in gateway.recorder.errors] == ["queued"]
    gateway.ledger.failing = None
    gateway.clock.advance(10 * SECOND)
    gateway.upstream.latest.answer(ANSWER)
    gateway.clock.advance(0)
    assert look(gateway, path)["status"] == "done"


def test_retry_after_is_honoured_in_full(world: World) -> None:
    gateway = world()
    submit(gateway)
    gateway.upstream.latest.answer(ERROR, 503, ((b"retry-after", b"90"),))
    gateway.clock.advance(90 * SECOND - 1)
    assert len(gateway.upstream.exchanges) == 1
    gateway.clock.advance(2 * SECOND)
    assert len(gateway.upstream.exchanges) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_failure_that_cannot_pass_ends_the_job_as_it_came(world: World, status: int) -> None:
    gateway = world()
    path = submit(gateway)
    gateway.upstream.latest.answer(ERROR, status)
    gateway.clock.advance(0)
    answer = gateway.call("GET", path + "/answer")
    assert (look(gateway, path)["status"], answer.status, answer.body) == ("failed", status, ERROR)
    assert header(answer, "x-should-retry") == "false"


def test_a_limit_ends_a_job_as_failed_with_its_refusal(world: World) -> None:
    gateway = world(LIMITED)
    first, second = submit(gateway), submit(gateway)
    gateway.upstream.latest.answer(ANSWER)
    gateway.clock.advance(0)
    assert look(gateway, first)["status"] == "done"
    assert look(gateway, second)["status"] == "failed"
    refused = gateway.call("GET", second + "/answer")
    assert (refused.status, header(refused, "x-holdfast-refusal")) == (402, "call_limit_reached")
    assert len(gateway.upstream.exchanges) == 1


def test_after_its_deadline_a_job_fails_with_the_last_failure(world: World) -> None:
    gateway = world(deadline_ns=20 * SECOND)
    path = submit(gateway)
    for _ in range(30):
        gateway.upstream.latest.answer(ERROR, 503)
        gateway.clock.advance(SECOND)
    answer = gateway.call("GET", path + "/answer")
    assert (look(gateway, path)["status"], answer.status, answer.body) == ("failed", 503, ERROR)
    assert header(answer, "retry-after") is None
    assert 3 <= len(gateway.upstream.exchanges) <= 8


def test_a_stream_that_is_cut_is_no_answer(world: World) -> None:
    gateway = world()
    path = submit(gateway, QUESTION | {"stream": True})
    gateway.upstream.latest.start()
    gateway.upstream.latest.data(HELLO)
    gateway.upstream.latest.fail(ConnectionCut("gone"))
    gateway.clock.advance(5 * SECOND)
    assert len(gateway.upstream.exchanges) == 2
    gateway.upstream.latest.stream(HELLO, STOP, DONE)
    gateway.clock.advance(0)
    assert gateway.call("GET", path + "/answer").body == HELLO + STOP + DONE


def test_a_stream_that_times_out_after_its_first_token_is_no_answer_although_it_has_a_proper_end(world: World) -> None:
    gateway = world("agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 0}, timeouts: {idle: 5s}}}")
    path = submit(gateway, QUESTION | {"stream": True})
    gateway.upstream.latest.start()
    gateway.upstream.latest.data(HELLO)
    gateway.clock.advance(10 * SECOND)
    assert look(gateway, path)["tries"] == 2, (look(gateway, path), gateway.recorder.errors, gateway.recorder.decisions)


def test_no_more_jobs_than_allowed_are_tried_at_once_the_oldest_first(world: World) -> None:
    gateway = world(concurrency=2)
    paths = []
    for _ in range(4):
        paths.append(submit(gateway))
        gateway.clock.advance(2_000_000)
    assert len(gateway.upstream.exchanges) == 2
    assert [look(gateway, path)["status"] for path in paths] == ["running", "running", "queued", "queued"]
    for exchange in list(gateway.upstream.exchanges):
        exchange.answer(ANSWER)
    gateway.clock.advance(0)
    assert [look(gateway, path)["status"] for path in paths] == ["done", "done", "running", "running"]


def test_a_queued_job_can_be_cancelled_a_running_one_cannot_an_ended_one_is_removed(world: World) -> None:
    gateway = world(concurrency=1)
    running, queued = submit(gateway), submit(gateway)
    assert gateway.call("DELETE", running).status == 409
    assert gateway.call("DELETE", queued).json() == {"id": queued[6:], "status": "cancelled"}
    assert look(gateway, queued)["status"] == "cancelled"
    assert gateway.call("GET", queued + "/answer").status == 410
    gateway.upstream.latest.answer(ANSWER)
    gateway.clock.advance(2 * SECOND)
    assert len(gateway.upstream.exchanges) == 1
    assert gateway.call("DELETE", running).status == 200
    assert gateway.call("GET", running).status == 404


def test_whoever_waits_is_answered_when_the_job_ends_or_their_patience_does(world: World) -> None:
    gateway = world()
    path = submit(gateway)
    waiting = gateway.call("GET", path + "/answer", None, {"prefer": "wait=5"})
    gateway.clock.advance(3 * SECOND)
    assert waiting.status == 0
    impatient = gateway.call("GET", path, None, {"prefer": "wait=1"})
    gateway.clock.advance(SECOND)
    assert isinstance(found := impatient.json(), dict) and found["status"] == "running"
    gateway.upstream.latest.answer(ANSWER)
    gateway.clock.advance(SECOND)
    assert (waiting.status, waiting.body) == (200, ANSWER)


def test_a_job_that_is_handed_over_again_with_its_idempotency_key_is_the_same_job(world: World) -> None:
    gateway = world()
    key = {"idempotency-key": "order/1"}
    first = gateway.call("POST", CHAT, QUESTION, LATER | key)
    again = gateway.call("POST", CHAT, QUESTION, LATER | key)
    assert (again.status, header(again, "location")) == (202, header(first, "location"))
    assert isinstance(found := again.json(), dict) and found["status"] == "running"
    other = gateway.call("POST", CHAT, QUESTION | {"model": "n"}, LATER | key)
    assert (other.status, header(other, "x-holdfast-refusal")) == (422, "idempotency_key_reused")
    assert gateway.call("POST", CHAT, QUESTION, LATER | key | {"x-holdfast-agent": "b"}).status == 202
    assert len(gateway.upstream.exchanges) == 2
    for exchange in list(gateway.upstream.exchanges):
        exchange.answer(ANSWER)
    gateway.clock.advance(0)
    ended = gateway.call("POST", CHAT, QUESTION, LATER | key).json()
    assert isinstance(ended, dict) and ended["status"] == "done"
    assert len(gateway.upstream.exchanges) == 2


def test_a_canned_reply_is_an_answer(world: World) -> None:
    gateway = world("agents: {a: {routes: {'*': [simulated/*, {reply: 'We will write.'}]}, retries: {max: 0}}}")
    path = submit(gateway)
    gateway.upstream.latest.answer(ERROR, 503)
    gateway.clock.advance(5 * SECOND)
    assert b"We will write." in gateway.call("GET", path + "/answer").body
    assert (look(gateway, path)["status"], len(gateway.upstream.exchanges)) == ("done", 1)


def test_beyond_the_bounds_no_job_is_taken(world: World) -> None:
    gateway = world(max=2)
    submit(gateway), submit(gateway)
    refused = gateway.call("POST", CHAT, QUESTION, LATER)
    assert (refused.status, header(refused, "x-holdfast-refusal"), header(refused, "retry-after")) == (503, "job_queue_full", "10")
    gateway.clock.advance(11 * SECOND)  # counted anew
    assert gateway.call("POST", CHAT, QUESTION, LATER).status == 503
    assert world(at="small", max_bytes=10).call("POST", CHAT, QUESTION, LATER).status == 503


def test_a_job_whose_worker_died_before_the_answer_came_is_tried_again_as_the_same_call(world: World, tmp_path: Path) -> None:
    gateway = world()
    path = submit(gateway)
    shutil.copytree(tmp_path / "data", tmp_path / "left")  # as a crash leaves it
    heir = world(at="left")
    heir.clock.advance(SECOND)
    assert len(heir.upstream.exchanges) == 1
    heir.upstream.latest.answer(ANSWER)
    heir.clock.advance(0)
    assert (look(heir, path)["status"], look(heir, path)["tries"]) == ("done", 2)
    gateway.upstream.latest.answer(ANSWER)
    assert heir.recorder.decisions[0].decision_id == gateway.recorder.decisions[0].decision_id


class Died(BaseException):
    pass


@pytest.mark.parametrize("stream", [False, True])
def test_a_job_whose_worker_died_once_it_was_answered_is_never_tried_again_and_is_on_record_once(
    world: World, tmp_path: Path, stream: bool
) -> None:
    gateway = world()
    path = submit(gateway, QUESTION | {"stream": stream})

    def die() -> None:
        shutil.copytree(tmp_path / "data", tmp_path / "left")
        raise Died

    gateway.recorder.flush = die  # type: ignore[method-assign]
    with pytest.raises(Died):
        gateway.upstream.latest.stream(HELLO, STOP, DONE) if stream else gateway.upstream.latest.answer(ANSWER)
    heir = world(at="left")
    heir.clock.advance(5 * SECOND)
    assert heir.upstream.exchanges == []
    assert heir.call("GET", path + "/answer").body == (HELLO + STOP + DONE if stream else ANSWER)
    (decision,) = heir.recorder.decisions
    assert decision.decision_id == look(heir, path)["decision"]
    assert len(heir.recorder.api_calls) == 1


def test_an_answer_that_was_on_record_when_its_worker_died_is_not_recorded_again(world: World, tmp_path: Path) -> None:
    gateway, heir = world(), None
    submit(gateway)
    flush = gateway.recorder.flush

    def die() -> None:
        flush()
        shutil.copytree(tmp_path / "data", tmp_path / "left")
        raise Died

    gateway.recorder.flush = die  # type: ignore[method-assign]
    with pytest.raises(Died):
        gateway.upstream.latest.answer(ANSWER)
    heir = world(at="left")
    heir.recorder.events += gateway.recorder.events  # the journal that both share
    heir.clock.advance(5 * SECOND)
    assert (heir.upstream.exchanges, len(heir.recorder.decisions)) == ([], 1)
    assert not JobFiles(tmp_path / "left").ids("waiting")


def test_an_answered_job_that_cannot_be_put_away_is_not_tried_again(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = world()
    path = submit(gateway)

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr("holdfast.store.jobs.sync_to_disk", broken)
        gateway.upstream.latest.answer(ANSWER)
        gateway.clock.advance(5 * SECOND)
        shutil.copytree(tmp_path / "data", tmp_path / "left")
        heir = world(at="left")
        heir.clock.advance(5 * SECOND)
    gateway.clock.advance(5 * SECOND)
    assert (len(gateway.upstream.exchanges), len(heir.upstream.exchanges), len(gateway.recorder.decisions)) == (1, 0, 1)
    assert gateway.call("GET", path + "/answer").body == ANSWER
    assert JobFiles(tmp_path / "data").ids("ended") == [path[6:]]


def test_an_answer_that_cannot_be_written_is_kept_in_memory_until_it_can(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = world()
    path = submit(gateway)

    def full(descriptor: int, line: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("holdfast.store.jobs._write", full)
        gateway.upstream.latest.answer(ANSWER)
        gateway.clock.advance(3 * SECOND)
        assert look(gateway, path)["status"] == "running"
        assert gateway.call("POST", CHAT, QUESTION, LATER).status == 503
    gateway.clock.advance(2 * SECOND)
    assert gateway.call("GET", path + "/answer").body == ANSWER
    assert len(gateway.upstream.exchanges) == 1


def test_an_answer_that_the_disk_had_no_room_for_is_written_at_the_end_of_its_worker(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gateway = world()
    submit(gateway)

    def full(descriptor: int, line: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("holdfast.store.jobs._write", full)
        gateway.upstream.latest.answer(ANSWER)
    assert gateway.jobs is not None
    gateway.jobs.worker.interrupt()
    (identifier,) = JobFiles(tmp_path / "data").ids("waiting")
    job = JobFiles(tmp_path / "data").read(identifier)
    assert job is not None and job.status == "done"


def test_a_job_that_is_broken_off_at_the_end_of_its_worker_is_left_to_others(world: World, tmp_path: Path) -> None:
    gateway = world()
    path = submit(gateway)
    idle: list[bool] = []
    assert gateway.jobs is not None
    gateway.jobs.worker.stop(lambda: idle.append(True))
    gateway.clock.advance(5 * SECOND)
    assert idle == []
    gateway.jobs.worker.interrupt()
    assert (idle, gateway.upstream.latest.cancelled) == ([True], True)
    assert len(gateway.recorder.api_calls) == 1  # it may have cost something
    heir = world()
    assert look(heir, path)["status"] == "queued"
    heir.clock.advance(SECOND)
    heir.upstream.latest.answer(ANSWER)
    heir.clock.advance(0)
    assert look(heir, path)["status"] == "done"
    assert heir.recorder.decisions[0].recovery_action == "none"


def test_two_workers_never_try_the_same_job(world: World) -> None:
    first = world()
    paths = [submit(first) for _ in range(4)]
    second = world()
    second.clock.advance(5 * SECOND)
    assert (len(first.upstream.exchanges), len(second.upstream.exchanges)) == (4, 0)
    assert [look(second, path)["status"] for path in paths] == ["running"] * 4


def test_a_job_of_an_agent_that_is_configured_no_more_fails(world: World) -> None:
    first = world()
    first.upstream.refusing = ConnectFailed("down")
    path = submit(first)
    heir = world("agents: {b: {routes: {'*': [simulated/*]}}}")
    heir.clock.advance(10 * SECOND)
    assert heir.upstream.exchanges == []
    first.clock.advance(0)
    assert look(first, path)["answer"]["status"] == 403


def test_an_answer_beyond_all_measure_ends_the_job(world: World) -> None:
    gateway = world()
    path = submit(gateway, QUESTION | {"stream": True})
    gateway.upstream.latest.start()
    for _ in range(17):
        gateway.upstream.latest.data(HELLO[:-2] + b" " * (1 << 20) + b"\n\n")
    gateway.clock.advance(0)
    assert gateway.upstream.latest.cancelled
    assert (look(gateway, path)["status"], look(gateway, path)["answer"]["status"]) == ("failed", 502)
