"""Calls of tools as a proxy makes them: bodies and answers piece by piece, redirects, codings, time-outs, and what is sent again."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.clock import SECOND
from holdfast.config import load
from holdfast.errors import ConnectFailed, ConnectionCut
from holdfast.execution.upstream import BodySource
from holdfast.gateway.tool_traffic import MOST_KEPT
from holdfast.http.upload import Upload
from holdfast.testing import MemoryResponse, request
from holdfast.testing.memory_gateway import MemoryGateway

Build = Callable[..., MemoryGateway]

TOOLS = """
providers: {simulated: {kind: simulated, base_url: 'http://127.0.0.1:9/v1'}}
tools:
  crm: {base_url: "https://crm.example.com/api", headers: {X-Key: "env:CRM_TOKEN"}, %s}
  root: {base_url: "http://root.example.com:8080", insecure: true}
"""
SECRET = b"crm-secret"
JSON = ((b"content-type", b"application/json"),)


@pytest.fixture
def world(tmp_path: Path) -> Build:
    def build(options: str = "timeout: 60s") -> MemoryGateway:
        file = tmp_path / "holdfast.yaml"
        file.write_text(TOOLS % options)
        return MemoryGateway(load(file, {"CRM_TOKEN": SECRET.decode()}).gateway)

    return build


def upload_to(
    gateway: MemoryGateway, path: str = "/tools/crm/x", method: str = "POST", length: int | None = None
) -> tuple[MemoryResponse, Upload]:
    asked = request(method, path)
    asked.upload = Upload(length)
    return gateway.handle(asked), asked.upload


class Taken:
    """What the transport would send."""

    def __init__(self, gateway: MemoryGateway) -> None:
        source = gateway.upstream.latest.request.upload
        assert source is not None
        self.source: BodySource = source
        self.data = b""
        self.ended = False
        source.start(self)

    def body_data(self, data: bytes) -> None:
        self.data += data

    def body_ended(self) -> None:
        self.ended = True


def test_an_upload_passes_piece_by_piece_and_its_size_is_on_record(world: Build) -> None:
    gateway = world()
    response, upload = upload_to(gateway, length=7)
    taken = Taken(gateway)
    assert taken.source.length == 7
    upload.push(b"abcd")
    upload.deliver()
    assert taken.data == b"abcd"
    upload.push(b"efg")
    upload.finish()
    upload.deliver()
    assert (taken.data, taken.ended) == (b"abcdefg", True)
    gateway.upstream.latest.answer(b"{}")
    assert response.ended and [call.bytes_sent for call in gateway.recorder.api_calls] == [7]


def test_an_answer_may_come_before_the_upload_ends(world: Build) -> None:
    gateway = world()
    response, upload = upload_to(gateway)
    taken = Taken(gateway)
    upload.push(b"abcd")
    upload.deliver()
    gateway.upstream.latest.answer(b"too much", 413)
    assert (response.status, response.body, taken.ended) == (413, b"too much", False)
    assert [call.bytes_sent for call in gateway.recorder.api_calls] == [4]


def test_a_client_that_leaves_within_its_upload_stops_the_tool(world: Build) -> None:
    gateway = world()
    response, _ = upload_to(gateway)
    Taken(gateway)
    response.leave()
    assert gateway.upstream.latest.cancelled and [error.error_type for error in gateway.recorder.errors] == ["cancelled"]


def test_an_upload_that_is_taken_slowly_is_the_tools_delay_and_one_that_comes_slowly_is_not(world: Build) -> None:
    gateway = world("timeouts: {idle: 2s, first_byte: 3s, total: 60s}")
    response, upload = upload_to(gateway)
    taken = Taken(gateway)
    gateway.clock.advance(20 * SECOND)
    assert not response.over
    taken.source.pause()
    gateway.clock.advance(SECOND)
    taken.source.resume()
    gateway.clock.advance(20 * SECOND)
    assert not response.over
    upload.finish()
    upload.deliver()
    gateway.clock.advance(3 * SECOND)
    assert response.status == 504 and "first_byte time-out" in gateway.recorder.errors[-1].message
    stuck, _ = upload_to(gateway)
    Taken(gateway).source.pause()
    gateway.clock.advance(2 * SECOND)
    assert stuck.status == 504 and "idle time-out" in gateway.recorder.errors[-1].message


def test_a_tool_that_trickles_lives_and_one_that_falls_silent_is_cut(world: Build) -> None:
    gateway = world("timeouts: {idle: 2s, total: 60s}")
    response = gateway.call("GET", "/tools/crm/x")
    gateway.clock.advance(10 * SECOND)
    gateway.upstream.latest.start(200, JSON)
    for _ in range(10):
        gateway.clock.advance(SECOND)
        gateway.upstream.latest.data(b"a")
    assert not response.over
    gateway.clock.advance(2 * SECOND)
    assert response.aborted and gateway.upstream.latest.cancelled
    assert "idle time-out" in gateway.recorder.errors[0].message


def test_a_slow_agent_is_not_the_tools_delay(world: Build) -> None:
    gateway = world("timeouts: {idle: 2s, total: 60s}")
    response = gateway.call("GET", "/tools/crm/x")
    gateway.upstream.latest.start(200, JSON)
    assert response.pausing is not None and response.resuming is not None
    response.pausing()
    gateway.clock.advance(30 * SECOND)
    assert not response.over and gateway.upstream.latest.paused
    response.resuming()
    gateway.clock.advance(2 * SECOND)
    assert response.aborted


@pytest.mark.parametrize(
    ("method", "headers", "sent"),
    [
        ("GET", {}, 3),
        ("HEAD", {}, 3),
        ("OPTIONS", {}, 3),
        ("PROPFIND", {}, 3),
        ("PUT", {}, 1),
        ("DELETE", {}, 1),
        ("POST", {}, 1),
        ("PATCH", {}, 1),
        ("POST", {"idempotency-key": "k"}, 3),
    ],
)
@pytest.mark.parametrize("failure", ["503", "cut", "time"])
def test_only_what_may_be_done_twice_is_sent_again(world: Build, method: str, headers: dict[str, str], sent: int, failure: str) -> None:
    gateway = world("timeouts: {first_byte: 2s, total: 60s}")
    response = gateway.call(method, "/tools/crm/x", b"body", headers)
    for _ in range(4):
        if failure == "503":
            gateway.upstream.latest.answer(b"down", 503)
        elif failure == "cut":
            gateway.upstream.latest.fail(ConnectionCut("closed"))
        gateway.clock.advance(9 * SECOND)
    assert len(gateway.upstream.exchanges) == sent and response.over
    assert {exchange.request.body for exchange in gateway.upstream.exchanges} == {b"body"}
    assert {exchange.request.once for exchange in gateway.upstream.exchanges} == {sent == 1}  # the transport repeats no more than this does
    assert [call.retry_count for call in gateway.recorder.api_calls] == list(range(sent))
    assert [error.recovery_action for error in gateway.recorder.errors] == ["retried"] * (sent - 1) + ["none"]


def test_methods_are_repeated_where_the_configuration_says_so(world: Build) -> None:
    gateway = world("retries: {max: 1, methods: [PUT]}, timeout: 60s")
    for method in ("PUT", "DELETE"):
        gateway.call(method, "/tools/crm/x")
        gateway.upstream.latest.answer(b"", 503)
        gateway.clock.advance(9 * SECOND)
    assert [exchange.request.method for exchange in gateway.upstream.exchanges] == [b"PUT", b"PUT", b"DELETE"]


def test_an_answer_after_a_retry_is_as_if_nothing_had_been(world: Build) -> None:
    gateway = world()
    response = gateway.call("GET", "/tools/crm/x")
    gateway.upstream.latest.answer(b"slow down", 429, ((b"retry-after", b"7"),))
    gateway.clock.advance(7 * SECOND - 1)
    assert len(gateway.upstream.exchanges) == 1
    gateway.clock.advance(1)
    gateway.upstream.latest.answer(b"ok", 200)
    assert (response.status, response.body, dict(response.headers)[b"x-holdfast-attempts"]) == (200, b"ok", b"2")
    assert [error.error_type for error in gateway.recorder.errors] == ["tool_error"]


def test_a_wait_that_would_not_fit_is_not_begun(world: Build) -> None:
    gateway = world("timeout: 5s")
    response = gateway.call("GET", "/tools/crm/x")
    gateway.upstream.latest.answer(b"slow down", 429, ((b"retry-after", b"7"),))
    assert (response.status, response.body) == (429, b"slow down")


def test_an_upload_is_sent_again_only_while_nothing_of_it_was_taken(world: Build) -> None:
    gateway = world()
    gateway.upstream.refusing = ConnectFailed("refused")
    response, _ = upload_to(gateway, method="PROPFIND")
    gateway.upstream.refusing = None
    gateway.clock.advance(SECOND)
    assert len(gateway.upstream.exchanges) == 2
    Taken(gateway)
    gateway.upstream.latest.fail(ConnectionCut("closed"))
    gateway.clock.advance(9 * SECOND)
    assert len(gateway.upstream.exchanges) == 2 and response.over


def test_a_client_that_leaves_while_a_retry_is_due_is_not_served(world: Build) -> None:
    gateway = world()
    response = gateway.call("GET", "/tools/crm/x")
    gateway.upstream.latest.answer(b"", 503)
    response.leave()
    gateway.clock.advance(9 * SECOND)
    assert len(gateway.upstream.exchanges) == 1


def test_a_kill_while_a_retry_is_due_refuses(world: Build) -> None:
    gateway = world()
    response = gateway.call("GET", "/tools/crm/x")
    gateway.upstream.latest.answer(b"", 503)
    gateway.kill("tool", "crm")
    gateway.clock.advance(9 * SECOND)
    assert response.status == 403 and len(gateway.upstream.exchanges) == 1


@pytest.mark.parametrize(
    ("tool", "location", "passed"),
    [
        ("crm", "https://crm.example.com/api/v1/x?y=1#z", "/tools/crm/v1/x?y=1#z"),
        ("crm", "HTTPS://CRM.example.com:443/api", "/tools/crm"),
        ("crm", "/api/x", "/tools/crm/x"),
        ("crm", "/api?x", "/tools/crm?x"),
        ("crm", "x/y", "x/y"),
        ("crm", "/apis/x", "/apis/x"),
        ("crm", "/other", "/other"),
        ("crm", "http://crm.example.com/api/x", "http://crm.example.com/api/x"),
        ("crm", "https://evil.example.com/api/x", "https://evil.example.com/api/x"),
        ("crm", "https://crm.example.com@evil.example.com/api/x", "https://crm.example.com@evil.example.com/api/x"),
        ("crm", "https://crm.example.com:444/api/x", "https://crm.example.com:444/api/x"),
        ("crm", "//crm.example.com/api/x", "//crm.example.com/api/x"),
        ("crm", "/api/x?token=crm-secret", "/tools/crm/x?token=***"),
        ("root", "http://root.example.com:8080/x", "/tools/root/x"),
        ("root", "http://root.example.com:8080", "/tools/root/"),
        ("root", "/x", "/tools/root/x"),
    ],
)
@pytest.mark.parametrize("status", [201, 307])
def test_a_redirect_within_the_tool_leads_back_through_here(world: Build, tool: str, location: str, passed: str, status: int) -> None:
    gateway = world()
    response = gateway.call("GET", f"/tools/{tool}/x")
    gateway.upstream.latest.answer(b"", status, ((b"location", location.encode()),))
    assert (response.status, dict(response.headers)[b"location"].decode()) == (status, passed)
    assert len(gateway.upstream.exchanges) == 1  # it is the agent's to follow


@pytest.mark.parametrize(
    ("asked", "coding"),
    [("gzip, deflate, br", b"gzip"), ("GZIP;q=0.5", b"gzip"), ("br", b"identity"), ("gzip;q=0", b"identity"), ("", b"identity")],
)
def test_an_answer_may_be_compressed_as_the_agent_likes_it_where_errors_can_be_read(world: Build, asked: str, coding: bytes) -> None:
    gateway = world()
    body = gzip.compress(b"x" * 100)
    response = gateway.call("GET", "/tools/crm/x", headers={"accept-encoding": asked} if asked else {})
    assert dict(gateway.upstream.latest.request.headers)[b"accept-encoding"] == coding
    gateway.upstream.latest.answer(body, 200, ((b"content-encoding", b"gzip"), *JSON))
    assert response.body == body and dict(response.headers)[b"content-encoding"] == b"gzip"


def test_a_compressed_body_goes_out_as_it_is(world: Build) -> None:
    gateway = world()
    gateway.call("POST", "/tools/crm/x", b"\x1f\x8bzipped", {"content-encoding": "gzip"})
    sent = gateway.upstream.latest.request
    assert sent.body == b"\x1f\x8bzipped" and dict(sent.headers)[b"content-encoding"] == b"gzip"


@pytest.mark.parametrize("size", [0, MOST_KEPT - 100, MOST_KEPT + 100])
@pytest.mark.parametrize("coding", [b"", b"gzip"])
@pytest.mark.parametrize("step", [7, 1 << 20])
def test_no_secret_leaves_in_an_error_however_long_and_however_it_is_cut(world: Build, size: int, coding: bytes, step: int) -> None:
    step = step if size == 0 else max(step, 997)
    gateway = world()
    response = gateway.call("POST", "/tools/crm/x")
    said = b"bad key " + SECRET + b"x" * size + SECRET
    data = gzip.compress(said) if coding else said
    headers = ((b"content-encoding", coding),) if coding else ()
    gateway.upstream.latest.start(401, (*headers, (b"x-told", b"key=" + SECRET)))
    for at in range(0, len(data), step):
        gateway.upstream.latest.data(data[at : at + step])
    gateway.upstream.latest.end()
    assert (response.status, response.ended, response.body) == (401, True, b"bad key ***" + b"x" * size + b"***")
    assert b"content-encoding" not in dict(response.headers) and dict(response.headers)[b"x-told"] == b"key=***"
    assert SECRET.decode() not in repr(gateway.recorder.errors)


def test_an_error_in_a_coding_that_cannot_be_read_is_not_passed_on(world: Build) -> None:
    gateway = world()
    response = gateway.call("POST", "/tools/crm/x")
    gateway.upstream.latest.answer(b"???", 401, ((b"content-encoding", b"br"),))
    assert response.status == 502 and b"???" not in response.body


def test_the_length_of_an_answer_is_passed_on_and_its_last_piece_waits_for_the_record(world: Build) -> None:
    gateway = world()
    response = gateway.call("GET", "/tools/crm/x")
    gateway.upstream.latest.start(200, ((b"content-length", b"6"), *JSON))
    gateway.upstream.latest.data(b"abc")
    assert (response.length, response.writes) == (6, [b"abc"])
    gateway.upstream.latest.data(b"def")
    assert response.writes == [b"abc"]
    gateway.upstream.latest.end()
    assert response.writes == [b"abc", b"def"] and response.ended and len(gateway.recorder.api_calls) == 1


def test_a_failing_tool_is_a_tool_error(world: Build) -> None:
    gateway = world()
    gateway.call("POST", "/tools/crm/x")
    gateway.upstream.latest.answer(b'{"error": "no such customer"}', 404)
    (error,) = gateway.recorder.errors
    assert (error.error_type, error.full_traceback) == ("tool_error", '{"error": "no such customer"}')
    assert gateway.recorder.api_calls[0].error_id == error.error_id
