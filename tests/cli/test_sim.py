import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

SIM = (sys.executable, "-c", "from holdfast.cli import main; main()", "sim")


@contextmanager
def sim(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running command and its first line."""
    with subprocess.Popen((*SIM, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def ask(address: dict[str, Any], body: dict[str, Any]) -> Any:
    request = Request(f"{address['openai']}/chat/completions", json.dumps(body).encode(), {"authorization": "Bearer k"})
    with urlopen(request) as answer:
        return json.load(answer)


def test_it_says_where_it_is_and_ends_cleanly_on_a_signal() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with sim() as (process, line):
            assert "OPENAI_BASE_URL=http://127.0.0.1:" in line and "ANTHROPIC_BASE_URL=http://127.0.0.1:" in line
            process.send_signal(number)
            assert process.communicate() == ("", "")
            assert process.returncode == 0


def test_it_serves_a_script_behind_a_key(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text('[{"text": "As told."}]')
    with sim("--json", "--key", "k", "--script", str(script)) as (_, line):
        address = json.loads(line)
        answer = ask(address, {"model": "gpt-5", "messages": [{"role": "user", "content": "x"}]})
        assert answer["choices"][0]["message"]["content"] == "As told."


def failing(*options: str) -> str:
    done = subprocess.run((*SIM, *options), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_a_port_in_use_is_one_sentence_and_exit_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = failing("--port", str(port))
    assert error.startswith(f"holdfast: cannot listen on 127.0.0.1 port {port}: Address already in use;")
    assert error.count("\n") == 1


def test_a_script_that_is_none_is_one_sentence_and_exit_1(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text("{")
    assert failing("--script", str(script)).startswith(f"holdfast: {script} is not a script:")


@pytest.mark.parametrize("options", [("--port", "x"), ("--port", "70000"), ("--unknown",)])
def test_wrong_usage_is_exit_2(options: tuple[str, ...]) -> None:
    assert subprocess.run((*SIM, *options), capture_output=True, check=False).returncode == 2


def test_the_help_has_an_example() -> None:
    done = subprocess.run((*SIM, "--help"), capture_output=True, text=True, check=True)
    assert "Example:\n    holdfast sim" in done.stdout
