"""Client: kept connections that have gone stale, and what is sent once more over another."""

import asyncio
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.errors import ConnectionCut, Withdrawn
from holdfast.http.client import Client, ClientOptions
from holdfast.testing.clock import FakeClock

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def forever(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await peer.read_request(reader)
        writer.write(OK)


async def call(client: Client, request: Any, heard: Any) -> Any:
    """Send and hear it to its end."""
    ear = heard()
    ear.exchange = client.send(request, ear)
    await asyncio.wait_for(ear.over, 5)
    return ear


def with_client(use: Any, clock: FakeClock | None = None, options: ClientOptions | None = None) -> None:
    async def main() -> None:
        client = Client(options or ClientOptions(), clock or FakeClock())
        try:
            await use(client)
        finally:
            await client.close()

    asyncio.run(main())


def cutting(before: bytes) -> Any:
    """A script that answers once, then takes another request, writes `before` and closes."""

    async def script(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read_request(reader)
        writer.write(OK)
        await peer.read_request(reader)
        writer.write(before)

    return script


def test_a_stale_connection_is_replaced_once(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        async with upstream(cutting(b""), forever) as (peer, origin):
            await call(client, request_to(origin), heard)
            ear = await call(client, request_to(origin, target=b"/second"), heard)
            assert (ear.error, ear.body) == (None, b"ok")
            assert [head.split()[1] for head in peer.heads] == [b"/v1", b"/second", b"/second"]

    with_client(use)


def test_what_must_not_be_sent_twice_is_not_although_its_connection_looks_stale(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        async with upstream(cutting(b""), forever) as (peer, origin):
            await call(client, request_to(origin), heard)
            ear = await call(client, request_to(origin, target=b"/second", once=True), heard)
            assert isinstance(ear.error, ConnectionCut)
            assert [head.split()[1] for head in peer.heads] == [b"/v1", b"/second"]

    with_client(use)


def test_what_must_not_be_sent_twice_takes_no_connection_that_has_been_idle_for_a_while(upstream: Any, heard: Any, request_to: Any) -> None:
    clock = FakeClock()

    async def use(client: Client) -> None:
        async with upstream(forever, forever) as (peer, origin):
            for pause_ns, connections in ((0, 1), (SECOND - 1, 1), (SECOND + 1, 2), (0, 2)):
                clock.advance(pause_ns)
                assert (await call(client, request_to(origin, once=True), heard)).error is None
                assert peer.connections == connections
            clock.advance(SECOND + 1)
            await call(client, request_to(origin), heard)
            assert peer.connections == 2

    with_client(use, clock)


def test_a_request_that_is_withdrawn_meanwhile_is_not_sent_a_second_time(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        async with upstream(cutting(b""), forever) as (peer, origin):
            await call(client, request_to(origin), heard)
            ear = await call(client, request_to(origin, target=b"/second", withdrawn=lambda: len(peer.heads) == 2), heard)
            assert isinstance(ear.error, Withdrawn)
            assert [head.split()[1] for head in peer.heads] == [b"/v1", b"/second"]

    with_client(use)


def test_a_request_that_the_upstream_may_have_worked_on_is_not_sent_again(upstream: Any, heard: Any, request_to: Any) -> None:
    clock = FakeClock()

    async def working_then_closing(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read_request(reader)
        writer.write(OK)
        await peer.read_request(reader)
        clock.advance(SECOND)

    async def use(client: Client) -> None:
        async with upstream(working_then_closing, forever) as (peer, origin):
            await call(client, request_to(origin), heard)
            ear = await call(client, request_to(origin), heard)
            assert isinstance(ear.error, ConnectionCut)
            assert len(peer.heads) == 2

    with_client(use, clock)


def test_the_second_try_is_the_last(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        async with upstream(cutting(b""), answering_nothing) as (peer, origin):
            await call(client, request_to(origin), heard)
            ear = await call(client, request_to(origin), heard)
            assert isinstance(ear.error, ConnectionCut)
            assert peer.connections == 2

    async def answering_nothing(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read_request(reader)

    with_client(use)


def test_after_an_answer_byte_nothing_is_sent_again(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        async with upstream(cutting(b"H")) as (peer, origin):
            await call(client, request_to(origin), heard)
            ear = await call(client, request_to(origin), heard)
            assert isinstance(ear.error, ConnectionCut)
            assert (peer.connections, len(peer.heads)) == (1, 2)

    with_client(use)


def test_a_cancelled_call_on_a_used_connection_is_not_sent_again(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        async with upstream(cutting(b"")) as (peer, origin):
            await call(client, request_to(origin), heard)
            client.send(request_to(origin), heard()).cancel()
            while client._open:
                await asyncio.sleep(0)
            assert not client._connecting
            assert peer.connections == 1

    with_client(use)


def test_the_client_runs_on_uvloop_as_well(upstream: Any, heard: Any, request_to: Any) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        client = Client(ClientOptions(), FakeClock())
        async with upstream(cutting(b""), forever) as (_, origin):
            for _ in range(3):
                assert (await call(client, request_to(origin), heard)).error is None
            await client.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
