"""Fixtures for the tests of the test doubles."""

from collections.abc import Iterator

import anthropic
import openai
import pytest

from holdfast.testing.simulated_provider import Address, SimulatedProvider, running_in_thread


@pytest.fixture
def provider() -> SimulatedProvider:
    return SimulatedProvider()


@pytest.fixture
def address(provider: SimulatedProvider) -> Iterator[Address]:
    with running_in_thread(provider.application) as address:
        yield address


@pytest.fixture
def openai_client(address: Address) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=address.openai, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(address: Address) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=address.anthropic, api_key="any", max_retries=0) as client:
        yield client
