"""A real HTTP API called as a tool, over real connections: redirects, early answers, and bodies larger than what is held."""

import hashlib
import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MB = 1 << 20
SIZE = 40 * MB
GROWTH_KB = 12 * 1024
"""The worker's memory while it relays `SIZE`: what is held of a call is far less, and the interpreter takes a while to settle."""

PIECE = bytes(range(256)) * 256
SECRET = "api-key-of-the-company"


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """The API's address."""
    with subprocess.Popen([sys.executable, str(Path(__file__).with_name("api_program.py"))], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.terminate()


@pytest.fixture
def up(site: Any, api: str) -> Any:
    site.configure(f"tools:\n  api: {{base_url: '{api}', headers: {{X-Key: env:API_KEY}}, price_per_call: 0.01}}\n")
    return site.up(env={"API_KEY": SECRET})


class Peak:
    """How far a process's memory rises above what it was at first."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins here
        self._before = self._kb("VmRSS")

    @property
    def growth_kb(self) -> int:
        return self._kb("VmHWM") - self._before

    def _kb(self, field: str) -> int:
        return next(int(line.split()[1]) for line in self._status.read_text().splitlines() if line.startswith(field))


def connect(up: Any) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(up.gateway.removeprefix("http://"), timeout=60)


def pieces(size: int) -> Iterator[bytes]:
    for _ in range(size // len(PIECE)):
        yield PIECE


def expected(size: int) -> str:
    digest = hashlib.sha256()
    for piece in pieces(size):
        digest.update(piece)
    return digest.hexdigest()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_larger_than_what_is_held_passes_up_whole(up: Any, site: Any, chunked: bool) -> None:
    (worker,) = up.workers()
    connection = connect(up)
    peak = Peak(worker)
    for method in ("POST", "PUT"):
        connection.request(
            method, "/tools/api/sink", pieces(SIZE), {} if chunked else {"content-length": str(SIZE)}, encode_chunked=chunked
        )
        answer = connection.getresponse()
        assert json.loads(answer.read()) == {"size": SIZE, "sha256": expected(SIZE), "chunked": chunked}
    assert peak.growth_kb < GROWTH_KB
    connection.close()
    assert [call["bytes_sent"] for call in site.journal("api_call")] == [SIZE, SIZE]


@pytest.mark.parametrize("kind", ["bytes", "chunks"])
def test_an_answer_larger_than_what_is_held_passes_down_whole_at_the_readers_pace(up: Any, site: Any, kind: str, eventually: Any) -> None:
    (worker,) = up.workers()
    connection = connect(up)
    peak = Peak(worker)
    connection.request("GET", f"/tools/api/{kind}/{SIZE}")
    answer = connection.getresponse()
    assert answer.getheader("content-length") == (str(SIZE) if kind == "bytes" else None)
    digest, size = hashlib.sha256(), 0
    while piece := answer.read(1 << 16):
        digest.update(piece)
        size += len(piece)
    assert (size, digest.hexdigest()) == (SIZE, expected(SIZE))
    assert peak.growth_kb < GROWTH_KB
    connection.request("GET", "/tools/api/bytes/3")  # the connection goes on
    assert len(connection.getresponse().read()) == 3
    connection.close()


def test_a_reader_that_stands_still_holds_the_tool_up_and_not_the_gateways_memory(up: Any, eventually: Any) -> None:
    (worker,) = up.workers()
    peak = Peak(worker)
    sock = socket.create_connection(tuple(up.gateway.removeprefix("http://").split(":")), 60)
    sock.sendall(b"GET /tools/api/bytes/%d HTTP/1.1\r\nHost: x\r\n\r\n" % (64 * SIZE))
    assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert up.ask({"model": "sim-ok", "messages": [{"role": "user", "content": "Hello"}]}).status == 200  # others are served meanwhile
    assert peak.growth_kb < GROWTH_KB
    sock.close()


def test_what_is_sent_comes_back_while_it_is_sent(up: Any) -> None:
    sock = socket.create_connection(tuple(up.gateway.removeprefix("http://").split(":")), 60)
    sock.sendall(b"POST /tools/api/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
    answer = sock.makefile("rb")
    while answer.readline() != b"\r\n":
        pass
    assert answer.read(10) == b"5\r\nfirst\r\n"
    sock.sendall(b"6\r\nsecond\r\n0\r\n\r\n")
    assert answer.read(16) == b"6\r\nsecond\r\n0\r\n\r\n"
    sock.close()


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_an_answer_before_the_end_of_an_upload_reaches_the_client(up: Any, site: Any, expect: bytes) -> None:
    sock = socket.create_connection(tuple(up.gateway.removeprefix("http://").split(":")), 60)
    answer = sock.makefile("rb")
    sock.sendall(b"POST /tools/api/early HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (expect, SIZE))
    if expect:
        assert answer.readline() == b"HTTP/1.1 100 Continue\r\n" and answer.readline() == b"\r\n"
    sock.sendall(b"x" * SIZE)  # all of it, before anything is read
    head = answer.readline()
    rest = answer.read()
    assert head.startswith(b"HTTP/1.1 413")
    assert rest.endswith(b"too much for me") and b"connection: close\r\n" in rest
    sock.close()


def test_a_refusal_comes_before_the_body_is_asked_for(up: Any, site: Any) -> None:
    assert site.command("kill", "--tool", "api", "--reason", "not now").code == 0
    sock = socket.create_connection(tuple(up.gateway.removeprefix("http://").split(":")), 60)
    sock.sendall(b"POST /tools/api/sink HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % SIZE)
    assert sock.makefile("rb").readline().startswith(b"HTTP/1.1 403")
    sock.close()


def test_redirects_are_the_agents_to_follow_and_those_of_the_tool_lead_back(up: Any, ask: Any) -> None:
    moved = ask(up.gateway, "POST", "/tools/api/moved", b"{}")
    assert (moved.status, moved.headers["location"]) == (307, "/tools/api/bytes/10")
    assert ask(up.gateway, "GET", moved.headers["location"]).body == PIECE[:10]
    away = ask(up.gateway, "GET", "/tools/api/away")
    assert (away.status, away.headers["location"]) == (302, "http://127.0.0.2:9/elsewhere")


def test_methods_queries_and_heads_pass_as_they_are(up: Any, ask: Any, api: str) -> None:
    head = ask(up.gateway, "HEAD", "/tools/api/bytes/12345")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "12345")
    assert ask(up.gateway, "PROPFIND", "/tools/api/bytes/1?a=%2f&b=+&c&&a=%2F").status == 200
    missing = ask(up.gateway, "GET", "/tools/api/nothing")
    assert (missing.status, missing.body) == (404, b"no such thing, ***")
    seen = ask(api, "GET", "/seen").json()
    assert ["PROPFIND", "/bytes/1?a=%2f&b=+&c&&a=%2F", SECRET] in seen and ["HEAD", "/bytes/12345", SECRET] in seen


def test_a_client_that_leaves_within_its_upload_is_on_record_and_costs_one_call(up: Any, site: Any, eventually: Any) -> None:
    sock = socket.create_connection(tuple(up.gateway.removeprefix("http://").split(":")), 60)
    sock.sendall(b"POST /tools/api/sink HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % SIZE + b"x" * MB)
    sock.close()
    (error,) = eventually(lambda: site.journal("error"), "the leaving is on record")
    assert error["error_type"] == "cancelled"
    assert len(site.journal("api_call")) == 1 and site.journal("api_call")[0]["bytes_sent"] <= MB
