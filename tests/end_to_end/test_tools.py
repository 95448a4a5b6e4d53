"""Calls through tools over real connections and real processes; what arrived at the tool's own server is the judge."""

import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

SECRET = "crm-secret-token"
NO_BODY = (204, 304)


class Tool(ThreadingHTTPServer):
    """An API that keeps what it is asked. `/status/N` answers so, `/drip` streams one piece and waits for `go_on`."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Tool

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        if self.path == "/api/drip":
            self.drip()
            return
        status = int(self.path.rpartition("/")[2]) if "/status/" in self.path else 200
        said = b"" if status in NO_BODY else json.dumps({"key": self.headers.get("authorization")} if status == 401 else {"n": 1}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the standard library's names

    def drip(self) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"3\r\none\r\n")
        self.server.go_on.wait(30)
        self.wfile.write(b"3\r\ntwo\r\n0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def tool() -> Iterator[Tool]:
    with Tool() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


def configured(tool: Tool, more: str = "") -> str:
    header = "headers: {Authorization: 'Bearer env:CRM_TOKEN'}"
    return f"tools:\n  crm: {{base_url: '{tool.url}', {header}, price_per_call: 0.002}}\n  mail: {{base_url: '{tool.url}'}}\n{more}"


ENVIRONMENT = {"CRM_TOKEN": SECRET}


def test_answers_come_back_as_the_tool_gave_them(site, ask, tool: Tool) -> None:
    site.configure(configured(tool))
    up = site.up(env=ENVIRONMENT)
    asked = [("GET", "/a/?x=1", 200), ("HEAD", "/a", 200), ("POST", "/b", 200), ("PUT", "/status/204", 204), ("GET", "/status/304", 304)]
    asked += [("DELETE", "/status/404", 404), ("GET", "/status/401", 401), ("GET", "/status/503", 503)]
    for method, path, status in asked:
        reply = ask(up.gateway, method, f"/tools/crm{path}", b"body" if method == "POST" else None, "any-key")
        assert (reply.status, reply.headers["x-holdfast-served-by"]) == (status, "tool/crm")
        assert reply.body == (b"" if status in NO_BODY or method == "HEAD" else b'{"key": "Bearer ***"}' if status == 401 else b'{"n": 1}')
        assert SECRET not in str(reply)
    again = [("GET", "/api/status/503")] * 2  # the default retries
    assert [(method, path) for method, path, _, _ in tool.seen] == [(method, f"/api{path}") for method, path, _ in asked] + again
    assert {headers["authorization"] for _, _, headers, _ in tool.seen} == {f"Bearer {SECRET}"}
    assert "any-key" not in str(tool.seen) and tool.seen[2][3] == b"body"
    assert SECRET not in "".join(file.read_text() for file in (site.data / "journal").glob("*.ndjson"))
    calls = site.journal("api_call")
    assert [(call["target_api"], call.get("cost", 0)) for call in calls[:2]] == [
        ("tool/crm GET /a/", 2_000_000),
        ("tool/crm HEAD /a", 2_000_000),
    ]
    assert "cost" not in calls[-1] or not calls[-1]["cost"]  # 503


def test_a_limit_on_each_tool_is_exact_over_two_workers(site, ask, tool: Tool) -> None:
    site.configure(configured(tool, "limits: [{calls: 25, per: total, scope: tool}, {calls: 200, per: day}]\n"))
    up = site.up("--workers", "2", env=ENVIRONMENT)

    def call(number: int) -> tuple[str, int]:
        name = ("crm", "mail")[number % 2]
        return name, ask(up.gateway, "GET", f"/tools/{name}/{name}").status

    with ThreadPoolExecutor(16) as pool:
        outcomes = Counter(pool.map(call, range(120)))
    assert Counter(path for _, path, _, _ in tool.seen) == {"/api/crm": 25, "/api/mail": 25}
    assert outcomes == {("crm", 200): 25, ("crm", 402): 35, ("mail", 200): 25, ("mail", 402): 35}
    assert up.ask({"model": "sim-ok", "messages": [{"role": "user", "content": "Hello"}]}).status == 200  # no tool, no such limit


def test_a_spend_limit_pays_for_so_many_calls_through_a_tool_and_no_more(site, ask, tool: Tool) -> None:
    site.configure(configured(tool, "limits: [{usd: 0.02, per: day, scope: tool}]\n"))
    up = site.up("--workers", "2", env=ENVIRONMENT)
    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(lambda _: ask(up.gateway, "GET", "/tools/crm/x").status, range(40)))
    assert statuses.keys() == {200, 402} and 9 <= len(tool.seen) == statuses[200] <= 10  # a slice may leave the room of one call


def test_a_killed_tool_is_called_no_more_by_any_worker(site, ask, tool: Tool) -> None:
    site.configure(configured(tool))
    up = site.up("--workers", "2", env=ENVIRONMENT)
    connection = http.client.HTTPConnection(up.gateway.removeprefix("http://"), timeout=30)
    connection.request("GET", "/tools/crm/drip")
    streaming = connection.getresponse()
    assert streaming.read(3) == b"one"  # while the tool has not ended
    assert site.command("kill", "--tool", "crm", "--cut", "--reason", "it deletes customers").code == 0
    made = len(tool.seen)
    replies = [ask(up.gateway, "GET", "/tools/crm/x") for _ in range(20)]
    assert {reply.status for reply in replies} == {403} and b"it deletes customers" in replies[0].body
    assert len(tool.seen) == made
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        streaming.read()
    connection.close()
    assert ask(up.gateway, "GET", "/tools/mail/x").status == 200
    assert site.command("resume", "--tool", "crm").code == 0
    assert ask(up.gateway, "GET", "/tools/crm/x").status == 200


def test_an_agent_under_run_finds_its_tools_and_not_their_secrets(site, tool: Tool) -> None:
    site.configure(configured(tool))
    agent = """
assert not [name for name, value in os.environ.items() if "crm-secret-token" in value]
key = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
with urlopen(Request(os.environ["HOLDFAST_TOOLS_URL"] + "/crm/contacts", headers=key)) as answer:
    print(answer.read().decode())
"""
    done = site.run("--cost-limit", "1", agent=agent, env=ENVIRONMENT)
    assert (done.code, done.out) == (0, '{"n": 1}\n'), done.err
    assert [path for _, path, _, _ in tool.seen] == ["/api/contacts"]
    (call,) = site.journal("api_call")
    assert call["target_api"] == "tool/crm GET /contacts" and call["run"]
