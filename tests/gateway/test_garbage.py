"""What a call leaves behind: nothing that only the garbage collector could free."""

import asyncio
import gc
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.assembly.data_plane import Listen, open_data_plane
from holdfast.http.server import ServerOptions, serve
from holdfast.system_clock import SystemClock
from holdfast.testing.gateway import options_for
from holdfast.testing.simulated_provider import Address, SimulatedProvider


@contextmanager
def collected() -> Iterator[list[str]]:
    """The types of our own objects that the block leaves to the garbage collector."""
    ours: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # what earlier tests left is not judged here
        while gc.collect():  # finalizers may leave more
            pass
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield ours
        gc.collect()
        ours += [type(left).__qualname__ for left in gc.garbage if type(left).__module__.startswith("holdfast.")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("rates", ["", "rates: [{requests: 1000, per: second, burst: 1}, {tokens: 1000000, per: second}]"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["sim-ok", "sim-error-400", "sim-cut-before"])
def test_a_call_leaves_no_circle_of_references(tmp_path: Path, model: str, stream: bool, rates: str) -> None:
    body = json.dumps({"model": model, "stream": stream, "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"

    async def calls() -> None:
        provider = await serve(SimulatedProvider().application, "127.0.0.1", 0, ServerOptions(), SystemClock())
        options = options_for(Address(provider.host, provider.port), "agents: {a: {retries: {max: 0}}}\n" + rates, tmp_path)
        plane = await open_data_plane(options, tmp_path / "data", Listen())
        for _ in range(3):
            reader, writer = await asyncio.open_connection(plane.server.host, plane.server.port)
            writer.write(head.encode() + body)
            await reader.read()
            writer.close()
            await writer.wait_closed()
        await plane.close(0)
        await provider.close(0)

    asyncio.run(calls())
    with collected() as ours:
        asyncio.run(calls())
    assert not [name for name in ours if name in {"GuardedCall", "Attempt", "_Answer", "_Call", "Request", "Call", "Turn"}]


WAYS = {
    "hedged": "routes: {'*': [simulated/sim-slow-1000]}, hedge: {after: 10ms}",
    "continued": "routes: {'*': [simulated/sim-cut-stream, simulated/sim-ok]}, fallback: {continue_streams: true}",
    "fallen back": "routes: {'*': [simulated/sim-error-500, simulated/sim-ok]}",
    "canned": "routes: {'*': [simulated/sim-error-500, {reply: sorry}]}",
    "queued": "routes: {'*': [simulated/sim-error-500]}, on_unavailable: queue, timeouts: {total: 2s}",
    "translated": "routes: {'*': [foreign/sim-ok]}",
    "tool": "",
}
OURS = {
    *("GuardedCall", "ToolCall", "TargetAttempt", "Attempt", "Relay", "Hedge", "Queueing", "Place", "Continuation", "Passage", "Turn"),
    *("TranslatedStream", "ToolAnswer", "Ending", "CallRecord", "_Answer", "_Call", "Request", "Call", "AttemptResult", "Reservation"),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_on_leaves_a_circle_of_references(tmp_path: Path, way: str) -> None:
    body = json.dumps({"model": "m", "stream": True, "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}).encode()
    path = "/tools/crm/models" if way == "tool" else "/v1/chat/completions"
    head = f"POST {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"

    async def calls() -> None:
        provider = await serve(SimulatedProvider().application, "127.0.0.1", 0, ServerOptions(), SystemClock())
        at = Address(provider.host, provider.port)
        yaml = f"  foreign: {{kind: simulated, base_url: '{at.openai}', formats: [anthropic-messages]}}\n"
        yaml += f"tools: {{crm: {{base_url: '{at.openai}'}}}}\nbreakers: off\n"
        yaml += f"agents: {{a: {{{WAYS[way] or 'routes: {}'}, retries: {{max: 0}}}}}}\n"
        plane = await open_data_plane(options_for(at, yaml, tmp_path), tmp_path / "data", Listen())
        for _ in range(2):
            reader, writer = await asyncio.open_connection(plane.server.host, plane.server.port)
            writer.write(head.encode() + body)
            assert await reader.read()
            writer.close()
            await writer.wait_closed()
        await plane.close(0)
        await provider.close(0)

    asyncio.run(calls())
    with collected() as ours:
        asyncio.run(calls())
    assert not [name for name in ours if name in OURS]
