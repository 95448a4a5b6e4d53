"""Whether limits hold: bursts of calls with kill -9 in the middle, judged by what the provider itself served and billed.

`python bench/limits.py [--rounds N] [--seed N]`; 200 rounds are the whole proof. A round is a configuration with several limits at
once, a burst, a kill of one worker or of everything (or none), what came back on the same data directory, and a second burst; the seed
fixes all that is drawn, the interleaving is the machine's.
The judge is `GET /stats` of the simulated provider: calls and billed tokens of each model name, and the name says which agent, user
and model a call was of, so that the account of every limit can be added up without asking Holdfast. Beside it, where it is installed
(`make peers`), LiteLLM takes one such burst under an equal budget.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import load
import peer_programs
import programs

from holdfast.policy.limit import Scope, Unit
from holdfast.wire import openai_chat

INPUT_NANO, OUTPUT_NANO = 1000, 4000
"""The configured price of a token, in nano-dollars."""

AGENTS, USERS, MODELS = ("a0", "a1"), ("u0", "u1", "u2"), ("m0", "m1")
KILLS: tuple["Kill", ...] = ("nothing", "worker", "everything")
BEHAVIOURS = {False: ("sim-slow-150", "sim-tokens-60"), True: ("sim-stream-25-15", "sim-tokens-60")}
"""Not streamed and streamed: something that is under way for a while when the kill comes, and something that is over at once."""

MOST_OUTPUT = (None, 32, 64, 256)
DEFAULT_OUTPUT = 16_384
PATIENCE_S = 60
BURST, ROOM = 200, 10

Kill = Literal["nothing", "worker", "everything"]


class Declared(NamedTuple):
    """A limit of the configuration. owner: the agent that declares it, "" for the top of the file. amount: nano-dollars, calls, tokens."""

    owner: str
    scope: Scope
    unit: Unit
    amount: int
    per: str

    def account(self, agent: str, user: str, model: str) -> str | None:
        """What counts a call, None when this limit does not."""
        if self.owner not in ("", agent):
            return None
        return {"all": "", "agent": agent, "user": user, "model": f"{agent}.{user}.{model}"}[self.scope]

    def yaml(self) -> str:
        amount = f"{self.amount / 1e9:.9f}" if self.unit == "usd" else str(self.amount)
        return f"{{{self.unit}: {amount}, per: {self.per}, scope: {self.scope}}}"


class Round(NamedTuple):
    """What one round does. name: sets its models apart from those of other rounds."""

    name: str
    workers: int
    streamed: bool
    kill: Kill
    concurrency: int
    most_output: int | None
    behaviours: tuple[str, ...]
    limits: tuple[Declared, ...]

    @property
    def kind(self) -> str:
        return f"{'streamed' if self.streamed else 'whole':8} {self.workers} worker{'s' if self.workers > 1 else ' '} kill {self.kill}"


class Verdict(NamedTuple):
    """over: limits that the provider saw exceeded. usable: of the account that came closest to its limit, None when nothing was
    refused. answers: by status, 0 for connections that broke."""

    over: list[str]
    usable: float | None
    answers: Counter[int]


def planned(seed: int, number: int, concurrency: int = 0, kind: tuple[int, bool, Kill] | None = None) -> Round:
    """Round `number` of a seed: the twelve kinds in turn, everything else drawn."""
    drawn = random.Random(f"{seed} {number}")
    kinds = [(workers, streamed, kill) for kill in KILLS for workers in (1, 4) for streamed in (False, True)]
    workers, streamed, kill = kind or kinds[number % len(kinds)]
    concurrency = concurrency or drawn.choice((100, 200, 400, 700, 1000))
    most_output = drawn.choice(MOST_OUTPUT)
    behaviours = BEHAVIOURS[streamed]
    plan = Round(f"r{seed}x{number}", workers, streamed, kill, concurrency, most_output, behaviours, ())
    return plan._replace(limits=tuple(_limits(drawn, plan)))


def _limits(drawn: random.Random, plan: Round) -> list[Declared]:
    """Two to four that count different things; each has room for a part of the calls that will draw on an account of it."""
    scopes: tuple[Scope, ...] = ("all", "agent", "user", "model")
    units: tuple[Unit, ...] = ("usd", "calls", "tokens") if takes_tokens() else ("usd", "calls")
    places = [(owner, scope, unit) for owner in ("", *AGENTS) for scope in scopes for unit in units if not owner or scope != "all"]
    limits = []
    for owner, scope, unit in drawn.sample(places, drawn.randint(2, 4)):
        names = [(agent, user, model) for agent in AGENTS for user in USERS for model in MODELS]
        accounts = Counter(Declared(owner, scope, unit, 0, "").account(*name) for name in names)
        share = max(count for account, count in accounts.items() if account is not None) / len(names)
        calls = max(2.0, 2 * plan.concurrency * share * drawn.uniform(0.05, 0.6))
        limits.append(Declared(owner, scope, unit, int(calls * worst_case(plan, unit)), drawn.choice(("hour", "day", "month", "total"))))
    return limits


def takes_tokens() -> bool:
    """Whether this Holdfast knows token limits in its configuration."""
    from holdfast.config import load as load_config
    from holdfast.errors import ConfigError

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "holdfast.yaml"
        file.write_text("limits: [{tokens: 1000, per: hour}]\n")
        with suppress(ConfigError):
            load_config(file, {})
            return True
    return False


def body(plan: Round, agent: str, user: str, model: str) -> bytes:
    behaviour = plan.behaviours[MODELS.index(model)]
    asked: dict[str, Any] = {"model": f"{plan.name}.{agent}.{user}.{model}:{behaviour}", "user": user}
    if plan.most_output is not None:
        asked["max_tokens"] = plan.most_output
    if plan.streamed:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(asked | {"messages": [{"role": "user", "content": "What next? " * 20}]}).encode()


def worst_case(plan: Round, unit: Unit) -> int:
    """What is reserved for one call, in a limit's unit."""
    call = openai_chat.FORMAT.parse(body(plan, AGENTS[0], USERS[0], MODELS[0]))
    output = min(plan.most_output or DEFAULT_OUTPUT, 500)  # a larger bound is lowered to what is left
    return {"usd": call.input_bound * INPUT_NANO + output * OUTPUT_NANO, "tokens": call.input_bound + output, "calls": 1}[unit]


def configuration(plan: Round, provider: int) -> str:
    lines = [
        "providers:",
        f'  openai: {{kind: openai, base_url: "http://127.0.0.1:{provider}/v1", api_key: env:BENCH_KEY, '
        'prices: {"*": {input_per_million: 1, output_per_million: 4}}}',
        "limits: [" + ", ".join(limit.yaml() for limit in plan.limits if not limit.owner) + "]",
        "agents:",
    ]
    for agent in AGENTS:
        own = ", ".join(limit.yaml() for limit in plan.limits if limit.owner == agent)
        lines.append(f"  {agent}: {{key: env:BENCH_KEY_{agent}, limits: [{own}]}}")
    return "\n".join(lines) + "\n"


def run(plan: Round, provider: int, drawn: random.Random) -> Verdict:
    """One round from its start to the judge's word. provider: the simulated provider's port."""
    keys = {"BENCH_KEY": "sk-real"} | {f"BENCH_KEY_{agent}": f"key-of-{agent}" for agent in AGENTS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        data = Path(folder) / "data"
        up = stack.enter_context(programs.up(configuration(plan, provider), data, plan.workers, keys))
        answers = asyncio.run(_burst(plan, up, drawn, plan.kill))
        if plan.kill == "everything":
            up = stack.enter_context(programs.up(configuration(plan, provider), data, plan.workers, keys))
        answers += asyncio.run(_burst(plan, up, drawn, "nothing"))
        return judge(plan, _settled(provider), answers)


async def _burst(plan: Round, up: programs.Up, drawn: random.Random, kill: Kill) -> Counter[int]:
    """All calls at once, the kill while they are under way; how many were answered with which status."""
    answers: Counter[int] = Counter()
    enough = drawn.randrange(1, plan.concurrency // 2)
    killing = asyncio.Event()

    async def one(message: bytes) -> None:
        try:
            connection = await load.connect(up.port)
            answer = await asyncio.wait_for(connection.call(message), PATIENCE_S)
            answers[int(answer[9:12])] += 1
            connection.close()
        except (OSError, ConnectionError):
            answers[0] += 1
        if answers.total() >= enough:
            killing.set()

    async def kill_it() -> None:
        delay = drawn.uniform(0.0, 0.3)
        with suppress(TimeoutError):  # after so many answers, or so much time: while much is open, or much is being decided
            await asyncio.wait_for(killing.wait(), 0.1 + delay)
        await asyncio.to_thread(up.kill_everything if kill == "everything" else up.kill_worker)

    killer = [] if kill == "nothing" else [kill_it()]
    names = [tuple(map(drawn.choice, (AGENTS, USERS, MODELS))) for _ in range(plan.concurrency)]
    messages = [load.message(up.port, body(plan, *name), key=f"key-of-{name[0]}") for name in names]
    await asyncio.gather(*killer, *map(one, messages))
    await asyncio.sleep(0.01)  # connections close in the next turn of the loop
    return answers


def _settled(provider: int) -> dict[str, Any]:
    """The provider's account once nothing is open."""
    for _ in range(PATIENCE_S * 50):
        stats = programs.fetch(provider, "/stats")
        if not stats["total"]["open"]:
            models: dict[str, Any] = stats["models"]
            return models
        time.sleep(0.02)
    raise RuntimeError("calls stay open at the provider")


def judge(plan: Round, models: dict[str, Any], answers: Counter[int]) -> Verdict:
    used: dict[tuple[Declared, str], int] = defaultdict(int)
    for name, tally in models.items():
        round_name, *who = name.partition(":")[0].split(".")
        if round_name != plan.name:
            continue
        money = tally["input_tokens"] * INPUT_NANO + tally["output_tokens"] * OUTPUT_NANO
        amounts = {"usd": money, "calls": tally["calls"], "tokens": tally["input_tokens"] + tally["output_tokens"]}
        for limit in plan.limits:
            account = limit.account(*who)
            if account is not None:
                used[limit, account] += amounts[limit.unit]
    over = [
        f"{limit.yaml()} of {limit.owner or 'all'}: {account} used {amount}"
        for (limit, account), amount in used.items()
        if amount > limit.amount
    ]
    usable = max((amount / limit.amount for (limit, _), amount in used.items()), default=0.0)
    return Verdict(over, usable if answers[402] else None, answers)


def prove(rounds: int, seed: int, concurrency: int = 0) -> list[tuple[Round, Verdict]]:
    """Rounds one after the other before one provider."""
    done = []
    with programs.sim() as provider:
        for number in range(rounds):
            plan = planned(seed, number, concurrency)
            done.append((plan, run(plan, provider, random.Random(f"{seed} {number} calls"))))
            for excess in done[-1][1].over:
                print(f"OVER THE LIMIT in round {number} of seed {seed}: {excess}", flush=True)
    return done


def _report(done: list[tuple[Round, Verdict]], seconds: float) -> None:
    kinds: dict[str, list[Verdict]] = defaultdict(list)
    for plan, verdict in done:
        kinds[plan.kind].append(verdict)
    print("kind of round                      rounds  over   usable: median  least    answers: 200    402  broken  other")
    for kind, verdicts in sorted(kinds.items()):
        answers = sum((verdict.answers for verdict in verdicts), Counter[int]())
        shares = [verdict.usable for verdict in verdicts if verdict.usable is not None] or [float("nan")]
        other = answers.total() - answers[200] - answers[402] - answers[0]
        print(
            f"{kind:34} {len(verdicts):6} {sum(bool(verdict.over) for verdict in verdicts):5} {median(shares):16.1%} {min(shares):6.1%}"
            f" {answers[200]:15} {answers[402]:6} {answers[0]:7} {other:6}"
        )
    over = sum(bool(verdict.over) for _, verdict in done)
    calls = sum(verdict.answers.total() for _, verdict in done)
    print(f"{len(done)} rounds, {calls} calls, {seconds:.0f} s: rounds over a limit: {over} (bound: 0)", flush=True)


def _beside_litellm(seed: int) -> None:
    """One burst under a budget worth ten calls, through both."""
    plan = planned(seed, 0, BURST, (1, False, "nothing"))._replace(name="beside", most_output=60, behaviours=("sim-tokens-60",) * 2)
    budget = ROOM * worst_case(plan, "usd")
    plan = plan._replace(limits=(Declared("", "all", "usd", budget, "day"),))
    ask = body(plan, AGENTS[0], USERS[0], MODELS[0])
    real = json.loads(ask)["model"]

    async def burst(port: int, key: str) -> Counter[int]:
        async def one() -> int:
            connection = await load.connect(port)
            answer = await asyncio.wait_for(connection.call(load.message(port, ask, key=key)), PATIENCE_S)
            connection.close()
            return int(answer[9:12])

        return Counter(await asyncio.gather(*(one() for _ in range(BURST))))

    def told(who: str, provider: int, answers: Counter[int]) -> None:
        tally = _settled(provider)[real]
        spent = (tally["input_tokens"] * INPUT_NANO + tally["output_tokens"] * OUTPUT_NANO) / budget
        print(f"{who}: {tally['served']} of {BURST} calls at once were served, {spent:.0%} of the budget spent; answers {dict(answers)}")

    print(f"\nOne budget of {budget / 1e9} USD a day, worth {ROOM} calls at their worst:")
    keys = {"BENCH_KEY": "sk-real", "BENCH_KEY_a0": "key-of-a0", "BENCH_KEY_a1": "key-of-a1"}
    with ExitStack() as stack:
        provider, folder = stack.enter_context(programs.sim()), stack.enter_context(tempfile.TemporaryDirectory())
        up = stack.enter_context(programs.up(configuration(plan, provider), Path(folder) / "data", 1, keys))
        told("Holdfast", provider, asyncio.run(burst(up.port, "key-of-a0")))
    peer = peer_programs.LiteLLM()
    if why := peer.missing():
        print(f"skipped: LiteLLM, because {why}")
        return
    prices = {"input_cost_per_token": INPUT_NANO / 1e9, "output_cost_per_token": OUTPUT_NANO / 1e9}
    with programs.sim() as provider, peer.budgeted(provider, real, budget / 1e9, prices) as port:
        told(f"LiteLLM {peer.version()}", provider, asyncio.run(burst(port, peer_programs.KEY)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=0, help="of every burst; by default drawn from 100 to 1,000")
    options = parser.parse_args()
    print(programs.machine())
    if not takes_tokens():
        print("this Holdfast has no token limits: rounds use money and calls")
    began = time.perf_counter()
    done = prove(options.rounds, options.seed, options.concurrency)
    _report(done, time.perf_counter() - began)
    _beside_litellm(options.seed)
    sys.exit(any(verdict.over for _, verdict in done))


if __name__ == "__main__":
    main()
