"""Gateways under the test's hand, in process and over connections."""

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.testing.gateway import options_for
from holdfast.testing.memory_gateway import MemoryGateway
from holdfast.testing.simulated_provider import Address


@pytest.fixture
def gateway(tmp_path: Path) -> Callable[[str], MemoryGateway]:
    """Builds a gateway in memory from a piece of configuration; its providers are `openai`, `anthropic` and `simulated`."""

    def build(yaml: str = "") -> MemoryGateway:
        return MemoryGateway(options_for(Address("127.0.0.1", 9), yaml, tmp_path))

    return build
