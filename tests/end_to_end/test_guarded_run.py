"""`holdfast run` around programs that know nothing of Holdfast; what the provider served and billed is the judge."""

import json
import sys
from pathlib import Path

import pytest

RUNAWAY = """
for _ in range(500):  # as good as for ever
    print(ask("sim-tokens-500", max_tokens=500)[0], flush=True)
"""
LIMIT = 50_000_000
"""Nano-dollars: about 25 calls of 500 tokens. What the least call may need is a hundredth of it, so that all but that can be spent."""


def usd(nano: int) -> str:
    return f"{nano / 1e9:.9f}"


def test_a_cost_limit_ends_a_runaway_before_it_is_passed(site) -> None:
    site.configure()
    done = site.run("--cost-limit", usd(LIMIT), agent=RUNAWAY)
    total = site.provider.stats()["total"]
    said = done.out.split()
    assert done.code == 122
    assert said.count("200") == total["served"] == total["calls"]
    assert said == sorted(said)
    assert 0.95 * LIMIT <= site.provider.billed() <= LIMIT
    assert "stopped at a hard limit (exit 122)" in done.err


def test_the_summary_is_what_the_provider_billed(site) -> None:
    site.configure()
    agent = 'for model in ("sim-tokens-7", "sim-tool", "sim-error-404"): ask(model)\nask("sim-ok", stream=True)\nsys.exit(7)'
    done = site.run("--summary", "s.json", "--user", "ann", "--release", "v7", agent=agent)
    summary = json.loads((site.folder / "s.json").read_text())
    total = site.provider.stats()["total"]
    assert (done.code, summary["exit_code"], summary["reason"]) == (7, 7, "exited")
    assert round(summary["cost_usd"] * 1e9) == site.provider.billed() > 0
    assert (summary["tokens"]["input"], summary["tokens"]["output"]) == (total["input_tokens"], total["output_tokens"])
    assert (summary["calls"], summary["attempts"], total["calls"]) == (4, 4, 4)
    assert (summary["decisions"], summary["errors"], summary["refusals"]) == (3, 1, 0)
    assert (summary["user"], summary["release"]) == ("ann", "v7")
    ended = site.journal("run_ended")
    assert [(event["run"], event["exit_code"], event["calls"]) for event in ended] == [(summary["run"], 7, 4)]


@pytest.mark.parametrize("option", ["--call-limit", "--calls-per-hour"])
def test_a_call_limit_ends_a_runaway(site, option: str) -> None:
    site.configure()
    done = site.run(option, "5", agent=RUNAWAY)
    assert done.code == 122
    assert site.provider.stats()["total"]["calls"] == site.provider.stats()["total"]["served"] == 5


def test_a_token_limit_ends_a_runaway_before_it_is_passed(site) -> None:
    site.configure()
    done = site.run("--token-limit", "20000", agent=RUNAWAY)
    total = site.provider.stats()["total"]
    assert done.code == 122
    assert 0.9 * 20_000 <= total["input_tokens"] + total["output_tokens"] <= 20_000
    assert "stopped at a hard limit (exit 122)" in done.err


OPENAI_SDK = """
import openai
client = openai.OpenAI()
for turn in range(500):
    try:
        asked = dict(model="sim-tokens-500", messages=[{"role": "user", "content": f"Turn {turn}"}], max_tokens=500)
        if turn % 2:
            client.chat.completions.create(**asked)
        else:
            list(client.chat.completions.create(**asked, stream=True))
        print("served", flush=True)
    except openai.APIError as error:
        print(error.status_code, flush=True)
"""
ANTHROPIC_SDK = """
import anthropic
client = anthropic.Anthropic()
for turn in range(500):
    try:
        asked = dict(model="sim-tokens-500", messages=[{"role": "user", "content": f"Turn {turn}"}], max_tokens=500)
        if turn % 2:
            client.messages.create(**asked)
        else:
            list(client.messages.create(**asked, stream=True))
        print("served", flush=True)
    except anthropic.APIError as error:
        print(error.status_code, flush=True)
"""


@pytest.mark.parametrize("script", [OPENAI_SDK, ANTHROPIC_SDK], ids=["openai", "anthropic"])
def test_a_runaway_on_an_official_sdk_is_ended_at_its_cost_limit(site, script: str) -> None:
    site.configure()
    done = site.command("run", "--cost-limit", usd(LIMIT), "--summary", "s.json", "--", sys.executable, "-c", script)
    total = site.provider.stats()["total"]
    said = done.out.split()
    assert done.code == 122, done.err
    assert said.count("served") == total["served"] == total["calls"]
    assert set(said) <= {"served", "402"}
    assert 0.95 * LIMIT <= site.provider.billed() <= LIMIT
    summary = json.loads((site.folder / "s.json").read_text())
    assert round(summary["cost_usd"] * 1e9) == site.provider.billed()
    assert summary["refusals"] >= 1
    assert summary["decisions"] == total["served"]


def test_without_a_configuration_the_sdks_own_variables_say_where_the_provider_is(site) -> None:
    limit = 300_000
    agent = 'for _ in range(500): ask("gpt-4o-mini", max_tokens=30)'
    done = site.run("--cost-limit", usd(limit), agent=agent, env={"OPENAI_BASE_URL": site.provider.address.openai})
    total = site.provider.stats()["total"]
    assert done.code == 122
    assert total["served"] == total["calls"] > 0
    assert {request.header(b"authorization") for request in site.provider.seen} == {b"Bearer sk-real-key-of-the-company"}
    assert total["input_tokens"] * 150 + total["output_tokens"] * 600 <= limit


STUBBORN_TREE = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
os.wait()
if os.fork(): print("up", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_the_exit_code_is_the_agents_also_when_nobody_hears_the_summary(site, redirection: str) -> None:
    words = f'exec "$0" -c "from holdfast.cli import main; main()" "$@" {redirection}'
    done = site.command("run", "--", "sh", "-c", "exit 7", via=("sh", "-c", words, sys.executable))
    assert (done.code, done.err) == (7, "")
    assert [event["exit_code"] for event in site.journal("run_ended")] == [7]


def test_a_time_limit_ends_a_tree_that_ignores_term_whole(site) -> None:
    done = site.run("--timeout", "2", "--summary", "s.json", agent=STUBBORN_TREE)
    assert (done.code, done.out) == (124, "up\n")
    summary = json.loads((site.folder / "s.json").read_text())
    assert (summary["reason"], summary["survivors"]) == ("timeout", [])


def test_a_limit_ends_a_runaway_with_all_that_it_started(site) -> None:
    site.configure()
    tree = "for _ in range(3): os.fork()\nif os.fork() == 0: os.setsid()\n"
    assert site.run("--call-limit", "20", agent=tree + RUNAWAY).code == 122
    assert 0 < site.provider.stats()["total"]["calls"] <= 20  # the last ones admitted may end with their callers before they are sent


def test_the_time_limit_holds_while_a_call_hangs(site) -> None:
    site.configure()
    done = site.run("--timeout", "2", "--summary", "s.json", agent='print("asking", flush=True)\nask("sim-hang")\nprint("answered")')
    assert (done.code, done.out) == (124, "asking\n")
    assert site.provider.stats()["total"]["cancelled"] == 1
    summary = json.loads((site.folder / "s.json").read_text())
    assert (summary["calls"], summary["attempts"], summary["errors"]) == (1, 1, 1)
    assert (summary["cost_usd"], summary["calls_of_unknown_cost"]) == (None, 1)  # no answer, and nothing bounded it


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["--", "no-such-agent"], 127, "holdfast: there is no command 'no-such-agent'"),
        (["--", "/"], 126, "holdfast: '/' cannot be run"),
        (
            ["--agent", "nobody", "--", "true"],
            2,
            "there is no agent 'nobody' in the configuration; choose with --agent one of: billing, sup",
        ),
        (["--", "true"], 2, "the configuration names several agents; choose with --agent one of: billing, support"),
        (["--cost-limit", "cheap", "--agent", "support", "--", "true"], 2, "--cost-limit cheap is not an amount of USD"),
        (["--cost-limmit", "5", "--", "true"], 2, "No such option: --cost-limmit"),
    ],
)
def test_what_cannot_run_is_said_in_a_sentence(site, command: list[str], code: int, said: str) -> None:
    site.configure("agents: {support: {}, billing: {}}\n")
    named = ["--agent", "support"] if code > 2 else []
    done = site.command("run", *named, *command)
    assert done.code == code
    assert said in done.err
    assert "Traceback" not in done.err


def test_an_agents_own_limits_hold_beside_those_of_the_command_line(site) -> None:
    site.configure("agents:\n  support: {limits: [{calls: 3, per: run}]}\n  other: {}\n")
    agent = 'print(*(ask("sim-ok")[0] for _ in range(5)), flush=True)\ntime.sleep(60)'
    done = site.run("--agent", "support", "--call-limit", "100", agent=agent)
    assert done.code == 122
    assert site.provider.stats()["total"]["calls"] == 3
    assert {event["agent"] for event in site.journal("decision")} == {"support"}


def test_the_checklists_variables_hold_across_runs(site) -> None:
    """A limit on everything refuses, and goes on counting in the next run; it does not end the run, which may know what to do."""
    site.configure()
    agent = 'print(*(ask("sim-ok")[0] for _ in range(4)))'
    env = {"API_CALL_BUDGET_PER_HOUR": "3"}
    assert site.run(agent=agent, env=env)[:2] == (0, "200 200 200 402\n")
    assert site.run(agent=agent, env=env)[:2] == (0, "402 402 402 402\n")
    assert site.provider.stats()["total"]["calls"] == 3
    assert {event["limit"] for event in site.journal("limit_refusal")} == {"everything: 3 calls per hour"}


def test_the_alert_mark_is_told_once(site) -> None:
    site.configure()
    agent = 'for _ in range(20): assert ask("sim-tokens-100")[0] == 200'
    assert site.run(agent=agent, env={"COST_THRESHOLD_ALERT": "0.002"}).code == 0
    marks = site.journal("limit_mark")
    assert [(mark["scope"], mark["unit"], mark["mark"]) for mark in marks] == [("all", "usd", 2_000_000)]
    assert marks[0]["spent"] >= 2_000_000


def test_the_real_key_reaches_the_provider_and_nobody_else(site) -> None:
    site.configure()
    agent = """
print(json.dumps(dict(os.environ)))
print(os.popen("env").read())
ask("sim-ok")
"""
    done = site.run(agent=agent, env={"MY_COPY": "prefix sk-real-key-of-the-company", "ANTHROPIC_AUTH_TOKEN": "sk-other"})
    seen = json.loads(done.out.splitlines()[0])
    assert done.code == 0
    assert "sk-real" not in done.out + done.err and "sk-other" not in done.out
    assert seen["OPENAI_API_KEY"] == seen["ANTHROPIC_API_KEY"]
    assert [request.header(b"authorization") for request in site.provider.seen] == [b"Bearer sk-real-key-of-the-company"]
    everywhere = b"".join(file.read_bytes() for file in site.data.rglob("*") if file.is_file())
    assert b"sk-real" not in everywhere
    assert seen["OPENAI_API_KEY"].encode() not in everywhere


RETRYING = """
import openai
for model in sys.argv[1:]:
    try:
        openai.OpenAI().chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}])
    except openai.APIStatusError as error:
        print(error.status_code)
"""


def test_the_sdks_own_retries_do_not_multiply_ours(site) -> None:
    site.configure()
    models = ("sim-error-500", "sim-error-429", "sim-error-400")
    done = site.command("run", "--max-retries", "1", "--", sys.executable, "-c", "import sys\n" + RETRYING, *models)
    assert (done.code, done.out.split()) == (0, ["500", "429", "400"])
    assert [site.provider.of_model(model)["calls"] for model in models] == [2, 2, 1]


@pytest.mark.parametrize("retries", [0, 2])
def test_so_many_retries_and_no_more(site, retries: int) -> None:
    site.configure()
    agent = 'status, _, headers = ask("sim-error-500")\nprint(status, headers["x-should-retry"], headers["x-holdfast-attempts"])'
    done = site.run("--max-retries", str(retries), agent=agent)
    assert done.out == f"500 false {retries + 1}\n"
    assert site.provider.stats()["total"]["calls"] == retries + 1
    assert [call["attempt"] for call in site.journal("api_call")] == list(range(1, retries + 2))
