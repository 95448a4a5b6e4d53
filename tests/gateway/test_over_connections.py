"""The whole gateway over real connections: another target takes over, bad upstreams and bad requests become clear answers."""

import asyncio
import http.client
import inspect
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from holdfast.events import Decision
from holdfast.store.reader import JournalReader
from holdfast.testing.gateway import gateway_in_thread, options_for
from holdfast.testing.simulated_provider import Address, SimulatedProvider, running_in_thread

SAY: Any = [{"role": "user", "content": "hello"}]
CHAT = json.dumps({"model": "sim-ok", "messages": SAY}).encode()
APIS = ("chat", "responses", "messages")

FAILING = {
    "error": "simulated/sim-error-500",
    "revoked-key": "simulated/sim-error-401",
    "overloaded": "simulated/sim-error-529",
    "nobody-listens": "closed/sim-ok",
    "never-answers": "simulated/sim-hang",
    "slow-first-token": "simulated/sim-stall-60000",
    "cut-before-the-first-token": "simulated/sim-cut-before",
    "ends-before-the-first-token": "simulated/sim-end-early-0",
    "error-event-first": "simulated/sim-error-event-0",
    "not-http": "simulated/sim-garbage-http",
}
"""Model names, as agents ask for them, by what becomes of their first target."""

SLOW = ["never-answers", "slow-first-token"]
QUICK = [name for name in FAILING if name not in SLOW]
WHOLE = [name for name in QUICK if "first" not in name]
"""Those that fail without a stream as well."""


@pytest.fixture(scope="module")
def provider() -> SimulatedProvider:
    return SimulatedProvider()


@pytest.fixture(scope="module")
def upstream(provider: SimulatedProvider) -> Iterator[Address]:
    with running_in_thread(provider.application) as address:
        yield address


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port: int = placeholder.getsockname()[1]
        return port


class Served:
    """How one call through a fallback route ended."""

    def __init__(self, raw: Any, text: str) -> None:
        self.served_by = raw.headers["x-holdfast-served-by"]
        self.attempts = int(raw.headers["x-holdfast-attempts"])
        self.decision = raw.headers["x-holdfast-decision"]
        self.text = text


async def ask(clients: tuple[openai.AsyncOpenAI, anthropic.AsyncAnthropic], api: str, model: str, stream: bool) -> Served:
    asked: Any = {"model": model, "stream": stream}
    raw: Any
    if api == "chat":
        raw = await clients[0].chat.completions.with_raw_response.create(**asked, messages=SAY)
    elif api == "responses":
        raw = await clients[0].responses.with_raw_response.create(**asked, input="hello")
    else:
        raw = await clients[1].messages.with_raw_response.create(**asked, messages=SAY, max_tokens=100)
    answer: Any = raw.parse()
    if inspect.isawaitable(answer):
        answer = await answer
    pieces = [piece_of(api, event) async for event in answer] if stream else [text_of(api, answer)]
    return Served(raw, "".join(pieces))


def text_of(api: str, answer: Any) -> Any:
    if api == "chat":
        return answer.choices[0].message.content
    return answer.output_text if api == "responses" else answer.content[0].text


def piece_of(api: str, event: Any) -> Any:
    if api == "chat":
        return event.choices[0].delta.content or ""
    if api == "responses":
        return event.delta if event.type == "response.output_text.delta" else ""
    return getattr(event.delta, "text", "") if event.type == "content_block_delta" else ""


async def ask_all(address: Address, cases: list[tuple[str, str, bool]]) -> list[Served]:
    async with (
        openai.AsyncOpenAI(base_url=address.openai, api_key="any", max_retries=0) as by_openai,
        anthropic.AsyncAnthropic(base_url=address.anthropic, api_key="any", max_retries=0) as by_anthropic,
    ):
        return list(await asyncio.gather(*(ask((by_openai, by_anthropic), *case) for case in cases)))


@pytest.mark.parametrize(("names", "first_token"), [(QUICK, "60s"), (SLOW, "1s")], ids=["quick", "slow"])
def test_in_every_format_another_target_takes_over_and_the_record_says_so(
    upstream: Address, tmp_path: Path, names: list[str], first_token: str
) -> None:
    routes = "".join(f"      {name}: [{target}, simulated/sim-ok]\n" for name, target in FAILING.items())
    yaml = (
        f"  closed: {{kind: compatible, base_url: 'http://127.0.0.1:{closed_port()}/v1'}}\n"
        f"  closed-too: {{kind: anthropic, base_url: 'http://127.0.0.1:{closed_port()}', api_key: env:UPSTREAM_KEY}}\n"
        f"agents:\n  a:\n    retries: {{max: 0}}\n    timeouts: {{first_token: {first_token}}}\n    routes:\n{routes}"
        "      nobody-listens-to-claude: [closed-too/claude, simulated/sim-ok]\n"
    )
    cases = [(api, name, stream) for api in APIS for name in names for stream in (True, False) if stream or name in WHOLE]
    cases = [
        (api, "nobody-listens-to-claude" if (api, name) == ("messages", "nobody-listens") else name, stream) for api, name, stream in cases
    ]
    with gateway_in_thread(options_for(upstream, yaml, tmp_path), tmp_path) as gateway:
        served = asyncio.run(ask_all(gateway, cases))
    decisions: dict[str, Decision] = {decision.decision_id: decision for decision in JournalReader(tmp_path).decisions(limit=1000)}
    assert len(decisions) == len(cases)
    for case, answer in zip(cases, served, strict=True):
        assert (answer.served_by, answer.attempts) == ("simulated/sim-ok", 2), case
        assert answer.text.startswith("Understood: 2 tokens"), case
        decision = decisions[answer.decision]
        assert (decision.model, decision.served_by, decision.attempts) == (case[1], "simulated/sim-ok", 2)
        assert (decision.recovery_action, decision.complete, decision.answer) == ("fell_back", True, answer.text), case


def test_the_routes_last_resort_is_read_by_every_sdk(upstream: Address, tmp_path: Path) -> None:
    yaml = "agents: {a: {routes: {'*': [simulated/sim-error-500, {reply: We will write.}]}, retries: {max: 0}}}"
    cases = [(api, "gpt-5", stream) for api in APIS for stream in (False, True)]
    with gateway_in_thread(options_for(upstream, yaml, tmp_path), tmp_path) as gateway:
        served = asyncio.run(ask_all(gateway, cases))
    assert [(answer.text, answer.served_by) for answer in served] == [("We will write.", "reply")] * 6


class Counted:
    """SDK clients as their users have them, with retries of their own, and how many requests they sent."""

    def __init__(self, address: Address) -> None:
        self.sent: list[object] = []
        hooks: Any = {"request": [self.sent.append]}
        self.openai = openai.OpenAI(base_url=address.openai, api_key="any", http_client=openai.DefaultHttpxClient(event_hooks=hooks))
        self.anthropic = anthropic.Anthropic(
            base_url=address.anthropic, api_key="any", http_client=anthropic.DefaultHttpxClient(event_hooks=hooks)
        )

    def failure(self, api: str, model: str) -> int:
        """The status that the SDK raised in the end."""
        asked: Any = {"model": model, "timeout": 60}
        try:
            if api == "chat":
                self.openai.chat.completions.create(**asked, messages=SAY)
            elif api == "responses":
                self.openai.responses.create(**asked, input="hello")
            else:
                self.anthropic.messages.create(**asked, messages=SAY, max_tokens=100)
        except (openai.APIStatusError, anthropic.APIStatusError) as error:
            return error.status_code
        return 200

    def close(self) -> None:
        self.openai.close()
        self.anthropic.close()


@pytest.mark.parametrize(
    ("yaml", "status"),
    [
        ("limits: [{calls: 0, per: hour}]", 402),
        ("agents: {a: {key: env:UPSTREAM_KEY}}", 403),
        ("agents: {a: {routes: {only-this: [simulated/*]}, limits: [{usd: 0, per: day}]}}", 402),
        ("agents: {a: {routes: {'*': [closed/x]}, retries: {max: 0}}}", 503),
    ],
)
def test_no_refusal_makes_an_sdk_try_again(upstream: Address, tmp_path: Path, yaml: str, status: int, provider: SimulatedProvider) -> None:
    before = provider.stats.total.calls
    closed = f"  closed: {{kind: simulated, base_url: 'http://127.0.0.1:{closed_port()}/v1'}}\n"
    with gateway_in_thread(options_for(upstream, closed + yaml, tmp_path), tmp_path) as gateway:
        clients = Counted(gateway)
        assert [clients.failure(api, "gpt-4o") for api in APIS] == [status] * 3
        assert (len(clients.sent), provider.stats.total.calls) == (3, before)
        clients.close()


def test_an_sdk_does_not_multiply_the_retries_that_holdfast_made(upstream: Address, tmp_path: Path, provider: SimulatedProvider) -> None:
    model = "sim-error-502"
    with gateway_in_thread(options_for(upstream, "agents: {a: {retries: {max: 1}}}", tmp_path), tmp_path) as gateway:
        clients = Counted(gateway)
        assert [clients.failure(api, model) for api in APIS] == [502] * 3
        assert (len(clients.sent), provider.stats.models[model].calls) == (3, 6)
        clients.close()


PLAIN = "agents: {a: {retries: {max: 0}, routes: {'*': [simulated/*]}}}"


@pytest.fixture(scope="module")
def plain_gateway(upstream: Address, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Address, Path]]:
    folder = tmp_path_factory.mktemp("plain")
    with gateway_in_thread(options_for(upstream, PLAIN, folder), folder) as gateway:
        yield gateway, folder


def post(gateway: Address, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=30)
    try:
        connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_never_answers_becomes_a_504_that_says_so(upstream: Address, tmp_path: Path, stream: bool) -> None:
    body = json.dumps({"model": "sim-hang", "messages": SAY, "stream": stream}).encode()
    yaml = PLAIN.replace("retries", "timeouts: {total: 300ms}, retries")
    with gateway_in_thread(options_for(upstream, yaml, tmp_path), tmp_path) as gateway:
        answered, headers, said = post(gateway, "/v1/chat/completions", body)
    assert (answered, headers["x-should-retry"]) == (504, "false")
    assert "total time-out after" in json.loads(said)["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_does_not_speak_http_becomes_a_502_that_says_so(plain_gateway: tuple[Address, Path], stream: bool) -> None:
    body = json.dumps({"model": "sim-garbage-http", "messages": SAY, "stream": stream}).encode()
    answered, headers, said = post(plain_gateway[0], "/v1/chat/completions", body)
    assert (answered, headers["x-should-retry"]) == (502, "false")
    assert "sent what is not HTTP" in json.loads(said)["error"]["message"]


@pytest.mark.parametrize("model", ["sim-cut-before", "sim-cut-stream"])
def test_an_upstream_that_closes_early_is_seen_as_just_that(plain_gateway: tuple[Address, Path], model: str) -> None:
    body = json.dumps({"model": model, "messages": SAY}).encode()
    with pytest.raises(http.client.RemoteDisconnected):
        post(plain_gateway[0], "/v1/chat/completions", body)


def exchange(gateway: Address, sent: bytes) -> bytes:
    """What comes back for these bytes until the gateway closes."""
    with socket.create_connection((gateway.host, gateway.port), timeout=30) as connection:
        connection.sendall(sent)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


def request_bytes(body: bytes, path: str = "/v1/chat/completions", *extra: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {len(body)}", *extra]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def bodies(received: bytes) -> list[Any]:
    return [json.loads(part.split(b"HTTP/1.1 ")[0]) for part in received.split(b"\r\n\r\n")[1:]]


def test_pipelined_requests_are_answered_in_their_order_malformed_ones_included(plain_gateway: tuple[Address, Path]) -> None:
    slow = json.dumps({"model": "sim-slow-100", "messages": SAY}).encode()
    anthropic_wrong = json.dumps({"model": "m", "messages": "hello", "max_tokens": 5}).encode()
    first, second, third, fourth = bodies(
        exchange(
            plain_gateway[0],
            request_bytes(slow)
            + request_bytes(b'{"model": 7, "messages": []}')
            + request_bytes(anthropic_wrong, "/v1/messages")
            + request_bytes(CHAT, "/v1/chat/completions", "connection: close"),
        )
    )
    assert first["model"] == "sim-slow-100" and fourth["model"] == "sim-ok"
    assert (second["error"]["param"], second["error"]["type"]) == ("model", "invalid_request_error")
    assert (third["type"], third["error"]["type"], third["error"]["param"]) == ("error", "invalid_request_error", "messages")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nhost: y\r\ncontent-length: 0\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n", 413),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
def test_what_no_server_should_take_reaches_no_provider(
    plain_gateway: tuple[Address, Path], sent: bytes, status: int, provider: SimulatedProvider
) -> None:
    before = provider.stats.total.calls
    received = exchange(plain_gateway[0], sent)
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert bodies(received)[0]["error"]["type"] == "invalid_request_error"
    assert provider.stats.total.calls == before


def test_a_request_that_no_provider_would_take_is_400_with_its_field_for_each_sdk(plain_gateway: tuple[Address, Path]) -> None:
    address = plain_gateway[0]
    with openai.OpenAI(base_url=address.openai, api_key="any") as client:
        wrong: Any = {"model": "m", "messages": [{"role": "user", "content": "x"}], "n": "two"}
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**wrong)
        assert (caught.value.param, caught.value.code) == ("n", "invalid_request")
    with anthropic.Anthropic(base_url=address.anthropic, api_key="any") as claude:
        wrong = {"model": "m", "messages": "hello", "max_tokens": 5}
        with pytest.raises(anthropic.BadRequestError) as told:
            claude.messages.create(**wrong)
        assert "messages" in str(told.value)


def test_a_client_that_vanishes_in_mid_stream_is_noticed_upstream_and_recorded(
    plain_gateway: tuple[Address, Path], provider: SimulatedProvider
) -> None:
    async def vanish(address: Address) -> None:
        async with openai.AsyncOpenAI(base_url=address.openai, api_key="any", max_retries=0) as client:
            stream = await client.chat.completions.create(model="sim-stream-100000-5", messages=SAY, stream=True)
            async for _ in stream:
                break
            await stream.close()
            while provider.stats.models["sim-stream-100000-5"].open:
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(vanish(plain_gateway[0]), 60))
    tally = provider.stats.models["sim-stream-100000-5"]
    assert (tally.cancelled, tally.calls) == (1, 1)
    (decision,) = [each for each in JournalReader(plain_gateway[1]).decisions() if each.model == "sim-stream-100000-5"]
    assert not decision.complete and decision.answer.startswith("the ")


def test_what_the_gateway_says_of_itself(plain_gateway: tuple[Address, Path]) -> None:
    assert exchange(plain_gateway[0], b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    for path, said in ((b"/", b"Holdfast gateway"), (b"/healthz", b"ok"), (b"/readyz", b"ready")):
        received = exchange(plain_gateway[0], b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path)
        assert received.startswith(b"HTTP/1.1 200 ") and said in received
