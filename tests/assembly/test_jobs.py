"""What becomes of jobs when their worker has to end."""

import http.client
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.config.jobs import JobsConfig
from holdfast.http.message import Request, Response
from holdfast.store.jobs import JobFiles
from holdfast.testing.gateway import gateway_in_thread, options_for
from holdfast.testing.simulated_provider import Address, SimulatedProvider, running_in_thread

QUESTION = json.dumps({"model": "sim-ok", "messages": [{"role": "user", "content": "Hello"}]})


def ask(address: Address, method: str, path: str, body: str = QUESTION, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    try:
        connection.request(method, path, body if method == "POST" else None, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_a_try_that_does_not_end_in_time_is_broken_off_and_made_again_by_the_next_worker(tmp_path: Path) -> None:
    simulated, hold = SimulatedProvider(), True
    held: list[tuple[Request, Response]] = []

    def application(request: Request, response: Response) -> None:
        if hold:
            held.append((request, response))
        else:
            simulated.application(request, response)

    with running_in_thread(application) as provider:
        options = options_for(provider, "agents: {a: {routes: {'*': [openai/*]}}}", tmp_path)
        with gateway_in_thread(options, tmp_path / "data", jobs=JobsConfig()) as gateway:
            status, headers, _ = ask(gateway, "POST", "/v1/chat/completions", prefer="respond-async")
            assert status == 202
            path = headers["location"]
            wait_for(lambda: bool(held), gateway, path)
        hold = False
        job = JobFiles(tmp_path / "data").read(path.removeprefix("/jobs/"))
        assert job is not None
        assert (job.status, job.tries, job.failures) == ("queued", 1, 0)
        with gateway_in_thread(options, tmp_path / "data", jobs=JobsConfig()) as gateway:
            status, _, body = ask(gateway, "GET", path + "/answer", prefer="wait=30")
            assert (status, json.loads(body)["object"]) == (200, "chat.completion")


@pytest.mark.parametrize(
    ("path", "body", "mark"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}], "stream": True}, b"data: [DONE]"),
        ("/v1/responses", {"input": "Hello"}, b'"object":"response"'),
        ("/v1/responses", {"input": "Hello", "stream": True}, b"event: response.completed"),
        ("/v1/embeddings", {"input": "Hello"}, b'"object":"embedding"'),
        ("/v1/messages", {"max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}, b'"type":"message"'),
        ("/v1/messages", {"max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}], "stream": True}, b"event: message_stop"),
    ],
)
def test_every_format_can_be_answered_later(tmp_path: Path, path: str, body: dict[str, object], mark: bytes) -> None:
    with running_in_thread(SimulatedProvider().application) as provider:
        options = options_for(provider, "", tmp_path)
        with gateway_in_thread(options, tmp_path / "data", jobs=JobsConfig()) as gateway:
            question = json.dumps({"model": "sim-ok", **body})
            status, headers, said = ask(gateway, "POST", path, question, prefer="respond-async")
            assert status == 202, said
            status, _, answer = ask(gateway, "GET", headers["location"] + "/answer", prefer="wait=30")
    assert status == 200
    assert mark in answer.replace(b'": "', b'":"')


def wait_for(condition: Callable[[], bool], gateway: Address, path: str) -> None:
    """Ask on until it is so: each question takes the gateway a turn."""
    for _ in range(1000):
        if condition():
            return
        ask(gateway, "GET", path)
    raise AssertionError("never happened")
