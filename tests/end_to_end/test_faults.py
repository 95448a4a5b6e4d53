"""Wrong input and broken surroundings on the whole product: one clear sentence or status, no money spent, everything usable afterwards."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

HOLDFAST = (sys.executable, "-c", "from holdfast.cli import main; main()")
MESSAGES = [{"role": "user", "content": "Hello"}]
ASKED = {"model": "sim-ok", "messages": MESSAGES}
AGENTS = """
agents:
  free: {key: env:KEY_FREE}
  capped: {key: env:KEY_CAPPED, limits: [{usd: 1}]}
"""
PASSTHROUGH = """
  local:
    kind: simulated
    base_url: "{openai}"
    passthrough: [{{path: "/v1/files*"}}, {{path: "/v1/moderations", price_per_call: 0.001}}]
"""
KEYS = {"KEY_FREE": "key-of-free", "KEY_CAPPED": "key-of-capped"}


@pytest.fixture(scope="module")
def up(shared_site) -> Any:
    shared_site.configure(PASSTHROUGH.format(openai=shared_site.provider.address.openai) + AGENTS)
    return shared_site.up(env=KEYS)


def sentence(done, code: int, *said: str) -> None:
    """Nothing on stdout, one sentence on stderr."""
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("holdfast: ") and done.err.count("\n") == 1, done.err
    for part in said:
        assert part in done.err


COMMANDS = [["up", "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0", "--workers", "2"], ["run", "--", "true"]]
both = pytest.mark.parametrize("command", COMMANDS, ids=["up", "run"])


@both
def test_a_typo_in_the_configuration_is_named_with_its_place_and_the_nearest_key(site, command: list[str]) -> None:
    file = site.configure("agents:\n  support:\n    limts: [{calls: 1}]\n")
    line = file.read_text().splitlines().index("    limts: [{calls: 1}]") + 1
    sentence(site.command(*command), 1, f'{file.name}:{line}: agents.support.limts: unknown key; did you mean "limits"?')


@both
def test_a_configuration_that_is_not_there_is_named(site, command: list[str]) -> None:
    sentence(site.command(command[0], "--config", "no.yaml", *command[1:]), 1, "no.yaml: cannot be read: No such file or directory")


@both
def test_a_variable_with_nonsense_is_named(site, command: list[str]) -> None:
    done = site.command(*command, env={"API_CALL_BUDGET_PER_HOUR": "many"})
    sentence(done, 1, "API_CALL_BUDGET_PER_HOUR")


@both
def test_a_file_in_the_way_of_the_data_directory_is_one_sentence(site, command: list[str]) -> None:
    (site.folder / "file").touch()
    done = site.command(command[0], "--data-dir", "file/data", *command[1:])
    sentence(done, 1, "the data directory", "file/data cannot be made: Not a directory; name another with --data-dir")


@both
def test_a_damaged_ledger_is_one_sentence(site, command: list[str]) -> None:
    site.data.mkdir(mode=0o700)
    (site.data / "ledger.sqlite").write_bytes(b"no ledger at all" * 100)
    sentence(site.command(*command), 1, "is damaged", "restore it from a backup")


@pytest.mark.skipif(os.getuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere")
@pytest.mark.parametrize("name", ["", "data"])
def test_a_data_directory_in_a_read_only_place_is_one_sentence(site, name: str) -> None:
    as_nobody = ("setpriv", "--reuid", "65534", "--clear-groups") if os.getuid() == 0 else ()
    if as_nobody and subprocess.run((*as_nobody, sys.executable, "-c", "import holdfast"), capture_output=True, check=False).returncode:
        pytest.skip("this Python, or this checkout, is for root alone")
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        site.folder.chmod(0o755)
        done = site.command("run", "--config", "/dev/null", "--data-dir", f"{folder}/{name}", "--", "true", via=(*as_nobody, *HOLDFAST))
    sentence(done, 1, folder, "Permission denied; name another with --data-dir" if name else "check that its folder exists")


@pytest.mark.parametrize(
    "words", [["up", "--workers", "0"], ["up", "--gateway", "here"], ["up", "--port", "1"], ["decisions", "show"], ["no"]]
)
def test_wrong_words_are_exit_2_without_a_traceback(site, words: list[str]) -> None:
    done = site.command(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err and "Traceback" not in done.err


def raw(base: str, sent: bytes) -> bytes:
    """Everything that comes back on a connection until it closes."""
    host, port = base.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)), timeout=30)) as connection:
        connection.sendall(sent)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head("Host: x", f"Content-Length: {33 << 20}"), 413),
        (head("Host: x", "X-Long: " + "x" * 40_000), 431),
        (head("Host: x", *(f"X-{number}: y" for number in range(300))), 431),
        (head("Host: x", "Content-Length: 2", "Transfer-Encoding: chunked") + b"{}", 400),
        (head("Host: x", "Host: y", "Content-Length: 0"), 400),
        (head("Content-Length: 0"), 400),
        (head("Host: x", "Transfer-Encoding: chunked") + b"zz\r\n", 400),
        (b"GARBAGE\r\n\r\n", 400),
        (b"POST /v1/chat/comp", 408),  # and then nothing more, for ten seconds
    ],
    ids=["body", "header", "headers", "both lengths", "two hosts", "no host", "chunk size", "not http", "slow"],
)
def test_unsafe_requests_are_turned_away(shared_site, up, sent: bytes, status: int) -> None:
    calls = shared_site.provider.stats()["total"]["calls"]
    assert raw(up.gateway, sent).startswith(b"HTTP/1.1 %d " % status)
    assert shared_site.provider.stats()["total"]["calls"] == calls
    assert up.ask(ASKED, "key-of-free").status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        ({**ASKED, "messages": "Hello"}, 400),
        ({**ASKED, "max_tokens": -5}, 400),
        ({"model": 5, "messages": MESSAGES}, 400),
        ({"messages": MESSAGES}, 400),
    ],
)
def test_malformed_calls_are_refused_in_the_callers_format(shared_site, up, body: Any, status: int) -> None:
    calls = shared_site.provider.stats()["total"]["calls"]
    for path in ("/v1/chat/completions", "/v1/messages"):
        answer = up.ask(body, "key-of-capped", path)
        assert answer.status == status
        assert answer.json()["error"]["message"]
    assert shared_site.provider.stats()["total"]["calls"] == calls


def test_there_is_no_route_around_the_guard(shared_site, up, ask) -> None:
    """Unknown keys and paths are refused; paths that are let through only at a price where money is limited."""
    seen = len(shared_site.provider.seen)
    assert ask(up.gateway, "POST", "/v1/chat/completions", ASKED, "key-of-nobody").status == 403
    assert up.ask(ASKED, "key-of-free", "/v1/images/generations").status == 404
    assert up.ask(ASKED, "key-of-free", "/v1/files/../chat/completions").status == 404
    assert up.ask(ASKED, "key-of-free", "/V1/chat/completions").status == 404
    priceless = up.ask(ASKED, "key-of-capped", "/v1/files")
    assert (priceless.status, priceless.headers["x-holdfast-refusal"]) == (402, "model_without_price")
    assert len(shared_site.provider.seen) == seen
    assert up.ask(ASKED, "key-of-free", "/v1/files").headers["x-holdfast-served-by"] == "local"
    priced = up.ask(ASKED, "key-of-capped", "/v1/moderations")
    assert priced.headers["x-holdfast-served-by"] == "local"
    assert [request.path for request in shared_site.provider.seen[seen:]] == [b"/v1/files", b"/v1/moderations"]


def test_a_client_that_leaves_mid_stream_stops_the_provider_and_pays_for_what_came(shared_site, up, eventually) -> None:
    model = "left:sim-stream-500-20"
    body = json.dumps({"model": model, "stream": True, "max_tokens": 500, "messages": MESSAGES}).encode()
    host, port = up.gateway.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)), timeout=30)) as connection:
        connection.sendall(head("Host: x", "Authorization: Bearer key-of-capped", f"Content-Length: {len(body)}") + body)
        received = b""
        while received.count(b"data: ") < 5:
            received += connection.recv(65536)
    eventually(lambda: shared_site.provider.of_model(model).get("cancelled"), "a cancelled stream")
    made = eventually(lambda: [each for each in shared_site.journal("decision") if each["model"] == model], "the decision")
    decision, billed = made[0], shared_site.provider.billed(model)
    assert not decision["complete"]
    assert decision["cost_source"] == "bound"
    assert 0 < billed <= decision["cost"] < 500 * 4000
    errors = [each["error_type"] for each in shared_site.journal("error") if each.get("decision_id") == decision["decision_id"]]
    assert errors == ["cancelled"]


@pytest.mark.skipif(sys.platform != "linux", reason="the size of another process's files is limited with prlimit(2)")
def test_a_full_disk_refuses_calls_before_they_cost_anything_and_recovers(site) -> None:
    site.configure(AGENTS)
    up = site.up(env=KEYS)
    worker = up.workers()[0]
    assert up.ask(ASKED, "key-of-free").status == 200
    (journal,) = (site.data / "journal").iterdir()
    _, hard = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (journal.stat().st_size + 500, hard))
    assert up.ask(ASKED, "key-of-free").status == 503  # this one found out
    calls = site.provider.stats()["total"]["calls"]
    for _ in range(3):
        refused = up.ask(ASKED, "key-of-free")
        assert (refused.status, refused.headers["x-holdfast-refusal"]) == (503, "record_unavailable")
        assert "retry-after" in refused.headers
    assert site.provider.stats()["total"]["calls"] == calls
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    assert up.ask(ASKED, "key-of-free").status == 200
    assert site.provider.stats()["total"]["calls"] == calls + 1
    listed = site.command("decisions", "list", "--json")
    assert listed.err == ""
    assert len(listed.events()) == site.provider.stats()["total"]["served"]
    refused = [event for event in site.journal("error") if event["recovery_action"] == "refused"]
    assert len(refused) >= 3  # on record as soon as that was possible
    assert up.end(signal.SIGTERM) == 0


def test_a_run_whose_disk_is_full_says_so(site) -> None:
    """The same through `holdfast run`: the agent is refused, nothing is spent, the end is one sentence."""
    site.configure()
    assert site.run(agent="pass").code == 0  # what is shared lies there by now, larger than the limit
    limited = ("sh", "-c", 'ulimit -f 200; exec "$@"', "sh", *HOLDFAST)
    agent = 'statuses = [ask("sim-ok", user="x" * 8000)[0] for _ in range(20)]\nprint(*statuses)'
    done = site.run(agent=agent, via=limited)
    statuses = done.out.split()
    assert statuses == sorted(statuses) and set(statuses) == {"200", "503"}
    assert site.provider.stats()["total"]["calls"] <= statuses.count("200") + 1
    assert done.code == 1
    assert done.err.endswith("File too large): free space or change --data-dir\n")
    assert re.search(r"calls +20 \(\d+ attempts\), (\d+) refused", done.err), done.err  # the summary comes all the same
    assert "Traceback" not in done.err
