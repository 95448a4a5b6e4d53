"""Calls that are answered later, through real processes that are killed, stopped and replaced meanwhile."""

import hmac
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from base64 import b64decode, b64encode
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import openai
import pytest

from holdfast.http.message import Request, Response
from holdfast.testing.simulated_provider import running_in_thread

LATER = {"prefer": "respond-async"}
SECRET = "whsec_" + b64encode(b"0123456789abcdef0123456789abcdef").decode()


def question(marker: str, model: str = "sim-ok") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": f"What next? marker-{marker}."}]}


def submit(ask, up, body: object, **headers: str) -> str:
    """The path of a new job."""
    more = LATER | {name.replace("_", "-"): value for name, value in headers.items()}
    taken = ask(up.gateway, "POST", "/v1/chat/completions", body, "", more)
    assert (taken.status, taken.headers["preference-applied"]) == (202, "respond-async"), taken.body
    location: str = taken.headers["location"]
    return location


def executed(site) -> Counter[str]:
    """How often the provider was asked for each marker."""
    return Counter(found[1].decode() for request in site.provider.seen if (found := re.search(rb"marker-(\w+)\.", request.body)))


def status(ask, up, path: str) -> str:
    found: str = ask(up.gateway, "GET", path).json()["status"]
    return found


def test_jobs_outlive_kill_9_of_everything_and_none_is_executed_again_whose_answer_had_come(site, eventually, ask) -> None:
    site.configure("jobs: {concurrency: 2}\n")
    up = site.up("--workers", "2")
    before = [submit(ask, up, question(f"before{number}")) for number in range(3)]
    eventually(lambda: all(status(ask, up, path) == "done" for path in before), "the first answers")
    site.provider.close_door()
    waiting = [submit(ask, up, question(f"waiting{number}")) for number in range(8)]
    eventually(lambda: site.provider.at_the_door == 4, "tries of both workers")
    up.end(signal.SIGKILL, group=True)
    site.provider.open_door()
    up = site.up("--workers", "2")
    eventually(lambda: all(status(ask, up, path) == "done" for path in waiting), "answers to all")
    for path in before + waiting:
        answer = ask(up.gateway, "GET", path + "/answer")
        assert (answer.status, answer.json()["object"]) == (200, "chat.completion")
    times = executed(site)
    assert all(times[f"before{number}"] == 1 for number in range(3))
    assert sorted(times[f"waiting{number}"] for number in range(8)) == [1] * 4 + [2] * 4
    assert len(site.journal("decision")) == 11
    jobs = {event["job"] for event in site.journal("decision")}
    assert jobs == {path.removeprefix("/jobs/") for path in before + waiting}


def test_however_often_workers_are_killed_every_job_is_answered_and_executed_no_more_afterwards(site, eventually, ask) -> None:
    site.configure("jobs: {concurrency: 2}\n")
    up, random = site.up("--workers", "2"), Random(11)
    paths = {f"job{number}": submit(ask, up, question(f"job{number}", "sim-slow-100")) for number in range(36)}
    done: dict[str, int] = {}
    kills = 0
    while len(done) < len(paths):
        reached = min(len(done) + 4, len(paths))

        def some_more(reached: int = reached) -> bool:
            for marker, path in paths.items():
                if marker not in done and len(done) < reached and _is_done(ask, up, path):
                    done[marker] = executed(site)[marker]
            return len(done) >= reached

        eventually(some_more, f"an answer to job {reached}")
        with suppress(ProcessLookupError):  # nobody has noticed yet that it was killed before
            os.kill(random.choice(eventually(up.workers, "workers")), signal.SIGKILL)
            kills += 1
    eventually(lambda: not list((site.data / "jobs" / "waiting").glob("*.ndjson")), "an end to all work")
    assert kills > 3
    assert executed(site) == done, "executed again once it was answered"
    assert len(done) < sum(done.values()) <= len(done) + 2 * kills
    eventually(lambda: up.ready, "workers")
    for path in paths.values():
        assert ask(up.gateway, "GET", path + "/answer").status == 200
    decisions = Counter(event["decision_id"] for event in site.journal("decision"))
    assert (len(decisions), max(decisions.values())) == (36, 1)


def _is_done(ask, up, path: str) -> bool:
    try:
        return status(ask, up, path) == "done"
    except (OSError, http.client.HTTPException):  # the worker that had the connection was killed
        return False


def test_workers_that_are_replaced_or_stopped_finish_the_jobs_that_they_have_begun(site, eventually, ask) -> None:
    site.configure()
    up = site.up("--workers", "1")
    site.provider.close_door()
    path = submit(ask, up, question("reloaded"))
    eventually(lambda: site.provider.at_the_door == 1, "the try")
    assert site.command("reload").code == 0
    later = submit(ask, up, question("after"))
    eventually(lambda: site.provider.at_the_door == 2, "a try of the successor")
    site.provider.open_door()
    eventually(lambda: [status(ask, up, each) for each in (path, later)] == ["done", "done"], "both answers")
    assert executed(site) == {"reloaded": 1, "after": 1}


def test_the_official_sdk_can_ask_for_a_job_and_fetch_the_answer_as_if_it_had_waited(site, eventually, ask) -> None:
    site.configure()
    up = site.up("--workers", "1")
    client = openai.OpenAI(base_url=up.gateway + "/v1", api_key="any")
    taken = client.chat.completions.with_raw_response.create(
        model="sim-ok", messages=[{"role": "user", "content": "hello"}], extra_headers={"Prefer": "respond-async"}
    )
    assert taken.status_code == 202
    location = taken.headers["location"]
    fetched = client.with_options(base_url=up.gateway).get(
        location + "/answer", cast_to=openai.types.chat.ChatCompletion, options={"headers": {"Prefer": "wait=30"}}
    )
    assert fetched.choices[0].message.content
    client.close()


@pytest.mark.parametrize("kill", [False, True])
def test_a_webhook_hears_of_the_end_signed_also_after_kill_9(site, eventually, ask, kill: bool) -> None:
    heard: list[Request] = []
    open_for_business = not kill

    def receive(request: Request, response: Response) -> None:
        heard.append(request)
        response.send(204 if open_for_business else 503, (), b"")

    with running_in_thread(receive) as receiver:
        site.configure(f"webhooks: {{crm: {{url: 'http://127.0.0.1:{receiver.port}/hooks', secret: env:HOOK_SECRET}}}}\n")
        up = site.up("--workers", "1", env={"HOOK_SECRET": SECRET})
        path = submit(ask, up, question("hook"), x_holdfast_webhook="crm")
        eventually(lambda: heard, "a word to the webhook")
        if kill:
            up.end(signal.SIGKILL, group=True)
            open_for_business = True
            up = site.up("--workers", "1", env={"HOOK_SECRET": SECRET})
        eventually(lambda: ask(up.gateway, "GET", path).json()["webhook"]["told"], "that it was taken")
        message = heard[-1]
        headers = dict(message.headers)
        signed = headers[b"webhook-id"] + b"." + headers[b"webhook-timestamp"] + b"." + message.body
        expected = b64encode(hmac.digest(b64decode(SECRET.removeprefix("whsec_")), signed, "sha256"))
        assert headers[b"webhook-signature"] == b"v1," + expected
        assert json.loads(message.body)["data"]["answer"]["body"]["object"] == "chat.completion"
        assert executed(site) == {"hook": 1}
        assert len(heard) == (2 if kill else 1)
    assert SECRET not in json.dumps(site.journal()) + "".join(up.err)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page speaks to readers who have curl")
def test_the_page_about_jobs_shows_what_works(site) -> None:
    site.configure()
    up = site.up("--workers", "1")
    page = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text("utf-8")
    (script,) = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    script = script.replace("http://127.0.0.1:8787", up.gateway)
    done = subprocess.run(("sh", "-e", "-c", script), cwd=site.folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("HTTP/1.1 202 ")
    assert json.loads(done.stdout.splitlines()[-1])["object"] == "chat.completion"
