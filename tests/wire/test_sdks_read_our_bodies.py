"""Answers, refusals and failures of the gateway's own, as the official SDKs read them over a socket."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import anthropic
import openai
import pytest

from holdfast.wire import anthropic_messages, openai_responses
from holdfast.wire.call import Refusal, Rewrite, WireFormat

TEXT = "We will answer by e-mail: \u201csoon\u201d."
ANTHROPIC: WireFormat = anthropic_messages.FORMAT
RESPONSES: WireFormat = openai_responses.FORMAT
REQUEST: dict[str, Any] = {"model": "claude-x", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


class Upstream(ThreadingHTTPServer):
    """Answers every POST with what the test put here, and keeps what it was sent."""

    status = 200
    reply = b""
    streamed = False
    sent = b""
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"
    types: ClassVar = {True: "text/event-stream", False: "application/json"}

    def do_POST(self) -> None:
        self.server.sent = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.server.status)
        self.send_header("content-type", self.types[self.server.streamed])
        self.send_header("content-length", str(len(self.server.reply)))
        self.end_headers()
        self.wfile.write(self.server.reply)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def claude(upstream: Upstream) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="k", base_url=f"http://127.0.0.1:{upstream.server_port}", max_retries=0) as client:
        yield client


@pytest.fixture
def gpt(upstream: Upstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="k", base_url=f"http://127.0.0.1:{upstream.server_port}/v1", max_retries=0) as client:
        yield client


def canned(format: WireFormat, body: bytes) -> bytes:
    reply = format.canned(format.parse(body), TEXT, "id_1", 1_700_000_000)
    assert reply is not None
    return reply


def test_a_canned_message(upstream: Upstream, claude: anthropic.Anthropic) -> None:
    upstream.reply = canned(ANTHROPIC, b'{"model":"claude-x","messages":[]}')
    message = claude.messages.create(**REQUEST)
    assert (message.content[0].type, message.content[0].text) == ("text", TEXT)  # type: ignore[union-attr]
    assert (message.model, message.stop_reason, message.usage.output_tokens) == ("claude-x", "end_turn", 0)


def test_a_canned_message_as_a_stream(upstream: Upstream, claude: anthropic.Anthropic) -> None:
    upstream.reply, upstream.streamed = canned(ANTHROPIC, b'{"model":"claude-x","messages":[],"stream":true}'), True
    with claude.messages.stream(**REQUEST) as stream:
        assert stream.get_final_text() == TEXT
        final = stream.get_final_message()
    assert (final.stop_reason, final.id) == ("end_turn", "id_1")
    ours = ANTHROPIC.stream(ANTHROPIC.parse(upstream.sent), Rewrite())
    ours.feed(upstream.reply)
    assert ours.ended and ours.answer().text == TEXT


def test_a_canned_response(upstream: Upstream, gpt: openai.OpenAI) -> None:
    upstream.reply = canned(RESPONSES, b'{"model":"gpt-x","input":"hi"}')
    response = gpt.responses.create(model="gpt-x", input="hi")
    assert (response.output_text, response.status, response.model) == (TEXT, "completed", "gpt-x")
    assert response.usage is not None and response.usage.total_tokens == 0


def test_a_canned_response_as_a_stream(upstream: Upstream, gpt: openai.OpenAI) -> None:
    upstream.reply, upstream.streamed = canned(RESPONSES, b'{"model":"gpt-x","input":"hi","stream":true}'), True
    with gpt.responses.stream(model="gpt-x", input="hi") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert ("".join(deltas), final.output_text, final.status) == (TEXT, TEXT, "completed")
    ours = RESPONSES.stream(RESPONSES.parse(upstream.sent), Rewrite())
    ours.feed(upstream.reply)
    assert ours.ended and ours.answer().text == TEXT


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (402, anthropic.APIStatusError, "billing_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (413, anthropic.APIStatusError, "request_too_large"),
        (503, anthropic.InternalServerError, "overloaded_error"),
    ],
)
def test_a_refusal_of_a_message(
    upstream: Upstream, claude: anthropic.Anthropic, status: int, error: type[anthropic.APIStatusError], kind: str
) -> None:
    refusal = Refusal(
        status=status, kind="spend_limit_reached", message="The limit is reached.", details={"limit_usd": 5.0, "resets_at": None}
    )
    upstream.status, upstream.reply = status, ANTHROPIC.refusal(refusal)
    with pytest.raises(error) as caught:
        claude.messages.create(**REQUEST)
    body = caught.value.body
    assert isinstance(body, dict) and caught.value.status_code == status
    assert (body["error"]["type"], body["error"]["message"], body["error"]["limit_usd"]) == (kind, "The limit is reached.", 5.0)


def test_a_refusal_of_a_response(upstream: Upstream, gpt: openai.OpenAI) -> None:
    refusal = Refusal(status=402, kind="spend_limit_reached", message="The limit is reached.", details={"limit_usd": 5.0})
    upstream.status, upstream.reply = 402, RESPONSES.refusal(refusal)
    with pytest.raises(openai.APIStatusError) as caught:
        gpt.responses.create(model="gpt-x", input="hi")
    assert (caught.value.status_code, caught.value.code) == (402, "spend_limit_reached")


def test_a_failure_inside_a_stream_of_a_message(upstream: Upstream, claude: anthropic.Anthropic) -> None:
    whole = canned(ANTHROPIC, b'{"model":"claude-x","messages":[],"stream":true}')
    upstream.streamed, upstream.reply = (
        True,
        whole[: whole.index(b"event: content_block_stop")] + ANTHROPIC.error_event("The upstream left."),
    )
    with pytest.raises(anthropic.APIStatusError, match=r"The upstream left\."), claude.messages.stream(**REQUEST) as stream:
        stream.until_done()


def test_a_failure_inside_a_stream_of_a_response(upstream: Upstream, gpt: openai.OpenAI) -> None:
    whole = canned(RESPONSES, b'{"model":"gpt-x","input":"hi","stream":true}')
    upstream.streamed, upstream.reply = (
        True,
        whole[: whole.index(b"event: response.output_text.done")] + RESPONSES.error_event("The upstream left."),
    )
    with (
        pytest.raises(openai.APIError, match=r"The upstream left\."),
        gpt.responses.create(model="gpt-x", input="hi", stream=True) as stream,
    ):
        for _ in stream:
            pass


def test_what_the_sdks_send_is_read(upstream: Upstream, claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
    upstream.reply = canned(ANTHROPIC, b'{"model":"claude-x","messages":[]}')
    answer = claude.messages.create(**REQUEST)
    claude.messages.create(**REQUEST | {"messages": [*REQUEST["messages"], answer.to_param(), {"role": "user", "content": "caf\u00e9?"}]})
    call = ANTHROPIC.parse(upstream.sent)
    assert call.turns[1:2] == ANTHROPIC.answer(upstream.reply).turns
    assert ANTHROPIC.rewrite(upstream.sent, call, Rewrite()) is upstream.sent

    upstream.reply = canned(RESPONSES, b'{"model":"gpt-x","input":"hi"}')
    response = gpt.responses.create(model="gpt-x", input="hi")
    gpt.responses.create(model="gpt-x", input=[{"role": "user", "content": "hi"}, *response.output])  # type: ignore[list-item]
    call = RESPONSES.parse(upstream.sent)
    assert call.turns[:1] == RESPONSES.parse(b'{"model":"gpt-x","input":"hi"}').turns
    assert call.turns[1:] == RESPONSES.answer(upstream.reply).turns
