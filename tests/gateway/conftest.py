"""Gateways under the test's hand, in process and over connections."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from holdfast.config.jobs import JobsConfig
from holdfast.gateway.job_webhook import Webhook
from holdfast.gateway.options import GatewayOptions
from holdfast.policy.job import JobOptions
from holdfast.testing.gateway import options_for
from holdfast.testing.memory_gateway import MemoryGateway
from holdfast.testing.simulated_provider import Address

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
