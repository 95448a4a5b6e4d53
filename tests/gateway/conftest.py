"""Gateways under the test's hand, in process and over connections."""

from collections.abc import Callable
from functools import cache

import pytest

from holdfast.gateway.options import GatewayOptions
from holdfast.testing.gateway import options_for
from holdfast.testing.memory_gateway import MemoryGateway
from holdfast.testing.simulated_provider import Address


@pytest.fixture(scope="session")
def options_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], GatewayOptions]:
    """The options of a piece of configuration, each read once."""
    folder = tmp_path_factory.mktemp("options")
    return cache(lambda yaml: options_for(Address("127.0.0.1", 9), yaml, folder))


@pytest.fixture
def gateway(options_of: Callable[[str], GatewayOptions]) -> Callable[[str], MemoryGateway]:
    """Builds a gateway in memory from a piece of configuration; its providers are `openai`, `anthropic` and `simulated`."""
    return lambda yaml: MemoryGateway(options_of(yaml))
