"""Gateways under the test's hand, in process and over connections."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.config.jobs import JobsConfig
from holdfast.gateway.job_webhook import Webhook
from holdfast.gateway.options import GatewayOptions
from holdfast.http.message import Request, Response
from holdfast.policy.job import JobOptions
from holdfast.testing.gateway import gateway_in_thread, options_for
from holdfast.testing.meaning.questions import FORMATS, SCRIPT
from holdfast.testing.memory_gateway import MemoryGateway
from holdfast.testing.simulated_provider import Address, Scripts, SimulatedProvider, running_in_thread

ROUTED = "agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 0}}}"


@pytest.fixture(scope="session")
def options_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], GatewayOptions]:
    """The options of a piece of configuration, each read once."""
    folder = tmp_path_factory.mktemp("options")
    return cache(lambda yaml: options_for(Address("127.0.0.1", 9), yaml, folder))


@pytest.fixture
def gateway(options_of: Callable[[str], GatewayOptions]) -> Callable[[str], MemoryGateway]:
    """Builds a gateway in memory from a piece of configuration; its providers are `openai`, `anthropic` and `simulated`."""
    return lambda yaml: MemoryGateway(options_of(yaml))


@pytest.fixture
def world(options_of: Callable[[str], GatewayOptions], tmp_path: Path) -> Callable[..., MemoryGateway]:
    """Builds gateways that keep jobs under tmp_path/data, or wherever `at` says; other keywords are options of jobs."""

    def build(yaml: str = ROUTED, at: str = "data", webhooks: tuple[Webhook, ...] = (), **options: Any) -> MemoryGateway:
        config = JobsConfig(options=JobOptions(**options), webhooks=webhooks)
        return MemoryGateway(options_of(yaml), jobs=tmp_path / at, job_options=config, seed=len(at))

    return build


class Served(msgspec.Struct, frozen=True):
    """A gateway whose agents `to-FORMAT` are served by a provider that speaks that format alone. arrived: what it was sent. models:
    the simulated model by which it answers requests with a key, whatever model they name."""

    gateway: Address
    upstream: Address
    provider: SimulatedProvider
    arrived: list[Request]
    models: dict[str, str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    arrived: list[Request] = []
    models: dict[str, str] = {}
    provider = SimulatedProvider(scripts=Scripts((SCRIPT,)))

    def application(request: Request, response: Response) -> None:
        arrived.append(request)
        key = (request.header(b"x-api-key") or (request.header(b"authorization") or b"").removeprefix(b"Bearer ")).decode()
        if key in models:
            request.body = msgspec.json.encode({**msgspec.json.decode(request.body), "model": models[key]})
        provider.application(request, response)

    folder = tmp_path_factory.mktemp("gateway")
    with (
        running_in_thread(application) as upstream,
        gateway_in_thread(options_for(upstream, _each_format(upstream), folder), folder) as gateway,
    ):
        yield Served(gateway, upstream, provider, arrived, models)


def _each_format(upstream: Address) -> str:
    """A provider that speaks one format alone for each of them; agents that are served by it, or by its `sim-ok` after the two others."""
    base = f"kind: simulated, base_url: '{upstream.openai}'"
    providers = "".join(f"  only-{target}: {{{base}, formats: [{target}], breaker: off}}\n" for target in FORMATS)
    agents = "".join(f"  to-{target}: {{routes: {{'*': [only-{target}/*]}}, retries: {{max: 0}}}}\n" for target in FORMATS)
    for last in FORMATS:
        route = ", ".join([*(f"only-{other}/*" for other in FORMATS if other != last), f"only-{last}/sim-ok"])
        agents += f"  last-{last}: {{routes: {{'*': [{route}]}}, retries: {{max: 0}}}}\n"
    return f"{providers}breakers: off\nagents:\n{agents}"  # many tests fail on purpose through the same gateway
