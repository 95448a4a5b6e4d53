"""A hundred calls at once against room for ten, through `holdfast up`: the provider answers nobody before all have been decided."""

import json
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice, product
from typing import Any

import pytest

from holdfast.wire import anthropic_messages, openai_chat

CALLS = 100
ROOM = 10
OUTPUT = 200
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
FORMATS = {"openai": openai_chat.FORMAT, "anthropic": anthropic_messages.FORMAT}

Kind = tuple[str, str, str]
KINDS: list[Kind] = list(product(["calls", "usd"], ["openai", "anthropic"], ["whole", "streamed"]))
ids = "-".join


def body(family: str, manner: str, model: str, output: int = OUTPUT) -> bytes:
    asked = {"model": model, "max_tokens": output, "messages": [{"role": "user", "content": "What next?"}]}
    if manner == "streamed":
        asked["stream"] = True
    return json.dumps(asked).encode()


def model_of(kind: Kind, output: int = OUTPUT) -> str:
    """A name of its own for each kind of call, so that the provider's account tells them apart."""
    return f"{ids(kind)}:sim-tokens-{output}"


def reservation(kind: Kind, output: int = OUTPUT) -> int:
    """Nano-dollars: what one call may cost at 1 USD per million tokens of input and 4 of output."""
    _, family, manner = kind
    return 1000 * FORMATS[family].parse(body(family, manner, model_of(kind, output), output)).input_bound + 4000 * output


def agents(output: int) -> str:
    """An agent for each kind of call, with room for ten."""
    lines = []
    for kind in KINDS:
        amount = ROOM if kind[0] == "calls" else f"{ROOM * reservation(kind, output) / 1e9:.9f}"
        lines.append(f"  {ids(kind)}: {{key: env:KEY_{ids(kind).replace('-', '_')}, limits: [{{{kind[0]}: {amount}}}]}}\n")
    return "agents:\n" + "".join(lines) + "  saver: {key: env:KEY_saver, limits: [{usd: 0.05}]}\n"


def keys() -> dict[str, str]:
    return {f"KEY_{name.replace('-', '_')}": f"key-of-{name}" for name in [*map(ids, KINDS), "saver"]}


@pytest.fixture(scope="module")
def one_worker(shared_site) -> Any:
    shared_site.configure(agents(OUTPUT))
    return shared_site.up(env=keys())


@pytest.fixture(scope="module")
def two_workers(shared_site) -> Any:
    """Calls of at most 16 tokens are never cut shorter, so that what is left over between two workers serves nobody."""
    shared_site.configure(agents(16))
    return shared_site.up("--workers", "2", "--data-dir", str(shared_site.folder / "two"), env=keys())


def storm(site, up, kind: Kind, output: int = OUTPUT) -> list[Any]:
    """All answers; the refusals first, which must come while nobody is served."""
    _, family, manner = kind
    asked = body(family, manner, model_of(kind, output), output)
    site.provider.close_door()
    with ThreadPoolExecutor(CALLS) as pool:
        calls = [pool.submit(up.ask, asked, f"key-of-{ids(kind)}", PATHS[family]) for _ in range(CALLS)]
        try:
            done = as_completed(calls, timeout=20)
            answers = [call.result() for call in islice(done, CALLS - ROOM)]
            assert {answer.status for answer in answers} == {402}
        finally:
            site.provider.open_door()
        return answers + [call.result() for call in done]


@pytest.mark.parametrize("kind", KINDS, ids=ids)
def test_exactly_ten_are_served(shared_site, one_worker, kind: Kind) -> None:
    statuses = [answer.status for answer in storm(shared_site, one_worker, kind)]
    tally = shared_site.provider.of_model(model_of(kind))
    assert (statuses.count(200), statuses.count(402)) == (ROOM, CALLS - ROOM)
    assert (tally["served"], tally["calls"]) == (ROOM, ROOM)
    if kind[0] == "usd":
        assert shared_site.provider.billed(model_of(kind)) <= ROOM * reservation(kind)


@pytest.mark.parametrize("kind", KINDS, ids=ids)
def test_two_workers_that_share_the_ledger_serve_no_more(shared_site, two_workers, kind: Kind) -> None:
    answers = storm(shared_site, two_workers, kind, 16)
    served = sum(answer.status == 200 for answer in answers)
    tally = shared_site.provider.of_model(model_of(kind, 16))
    assert {answer.status for answer in answers} == {200, 402}
    assert tally["calls"] == tally["served"] == served
    if kind[0] == "calls":
        assert served == ROOM
    else:
        assert ROOM - 1 <= served <= ROOM


@pytest.mark.parametrize("workers", ["one_worker", "two_workers"])
def test_one_call_after_the_other_spends_nearly_all_of_a_limit(shared_site, workers: str, request: pytest.FixtureRequest) -> None:
    up = request.getfixturevalue(workers)
    model = f"{workers}:sim-tokens-500"
    refused_in_a_row = 0
    while refused_in_a_row < 5:  # with two workers, one may have nothing left while the other has
        answer = up.ask({"model": model, "max_tokens": 500, "messages": [{"role": "user", "content": "And now?"}]}, "key-of-saver")
        refused_in_a_row = 0 if answer.status == 200 else refused_in_a_row + 1
        assert answer.status in (200, 402)
    assert 0.95 * 50_000_000 <= shared_site.provider.billed(model) <= 50_000_000


def test_a_refusal_names_the_numbers_and_is_not_to_be_retried(shared_site, one_worker) -> None:
    body = {"model": "sim-ok", "max_tokens": 10_000_000, "messages": [{"role": "user", "content": "x" * 60_000}]}
    answer = one_worker.ask(body, "key-of-saver")
    error = answer.json()["error"]
    assert (answer.status, answer.headers["x-should-retry"], error["code"]) == (402, "false", "spend_limit_reached")
    assert "the limit agent saver: 0.05 USD in total is reached" in error["message"]
