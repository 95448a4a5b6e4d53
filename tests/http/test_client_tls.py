"""Client over TLS: who is trusted, and what an untrusted or silent other side becomes."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from holdfast.errors import ConnectFailed
from holdfast.execution.upstream import Origin
from holdfast.http.client import Client, ClientOptions
from holdfast.testing.clock import FakeClock


async def forever(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await peer.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def call(client: Client, request: Any, ear: Any) -> Any:
    client.send(request, ear)
    await asyncio.wait_for(ear.over, 5)
    return ear


def with_client(use: Any, tls: ssl.SSLContext | None = None) -> None:
    async def main() -> None:
        client = Client(ClientOptions(), FakeClock(), tls)
        try:
            await use(client)
        finally:
            await client.close()

    asyncio.run(main())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def serving(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_tls_trusts_what_the_system_trusts(
    upstream: Any, heard: Any, request_to: Any, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    async def use(client: Client) -> None:
        async with upstream(forever, tls=serving(authority, "localhost")) as (peer, origin):
            for _ in range(2):
                ear = await call(client, request_to(origin, body=b"b" * 100_000), heard())
                assert (ear.error, ear.body) == (None, b"ok")
            assert peer.connections == 1

    with_client(use)


@pytest.mark.parametrize(("name", "trusted", "reason"), [("other.example", True, "Hostname mismatch"), ("localhost", False, "issuer")])
def test_tls_refuses_a_wrong_name_and_an_unknown_authority(
    upstream: Any, heard: Any, request_to: Any, authority: trustme.CA, name: str, trusted: bool, reason: str
) -> None:
    context = ssl.create_default_context()
    if trusted:
        authority.configure_trust(context)

    async def use(client: Client) -> None:
        async with upstream(forever, tls=serving(authority, name)) as (peer, origin):
            ear = await call(client, request_to(origin), heard())
            assert isinstance(ear.error, ConnectFailed)
            assert "TLS certificate refused" in str(ear.error)
            assert reason in str(ear.error)
            assert peer.heads == []

    with_client(use, context)


def test_a_plain_server_behind_a_tls_origin_is_a_failure_to_connect(upstream: Any, heard: Any, request_to: Any) -> None:
    async def banner(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await reader.read()

    async def use(client: Client) -> None:
        async with upstream(banner) as (_, plain):
            ear = await call(client, request_to(Origin(plain.host, plain.port, True)), heard())
            assert isinstance(ear.error, ConnectFailed)
            assert "TLS failed" in str(ear.error)

    with_client(use)
