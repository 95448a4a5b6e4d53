"""What cannot be translated is refused with the field's name, through the SDK, after the route's other targets were tried; failures of a
target, before and inside a stream, come in the caller's own format."""

import json
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, IncompleteRead
from itertools import product
from typing import Any

import anthropic
import openai
import pytest

from holdfast.testing.meaning import Format
from holdfast.testing.meaning.questions import FORMATS, QUESTIONS

CHAT: Format = "openai-chat"
RESPONSES: Format = "openai-responses"
MESSAGES: Format = "anthropic-messages"
OTHERS = {format: tuple(other for other in FORMATS if other != format) for format in FORMATS}
PATHS: dict[Format, str] = {CHAT: "/v1/chat/completions", RESPONSES: "/v1/responses", MESSAGES: "/v1/messages"}

AUDIO = [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]
KEPT_FILE = [{"type": "file", "file": {"file_id": "file-1"}}]
CITED = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}, "citations": {"enabled": True}}

REFUSED: list[tuple[Format, tuple[Format, ...], dict[str, Any], str]] = [
    (CHAT, OTHERS[CHAT], {"n": 2}, "n"),
    (CHAT, OTHERS[CHAT], {"logprobs": True}, "logprobs"),
    (CHAT, OTHERS[CHAT], {"logit_bias": {"50256": -100}}, "logit_bias"),
    (CHAT, OTHERS[CHAT], {"frequency_penalty": 0.5}, "frequency_penalty"),
    (CHAT, OTHERS[CHAT], {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    (CHAT, OTHERS[CHAT], {"messages": [{"role": "user", "content": AUDIO}]}, "messages[0].content[0]"),
    (CHAT, OTHERS[CHAT], {"extra_body": {"unheard_of": 1}}, "unheard_of"),
    (CHAT, (RESPONSES,), {"stop": ["x"]}, "stop"),
    (CHAT, (RESPONSES,), {"max_completion_tokens": 15}, "max_completion_tokens"),
    (CHAT, (RESPONSES,), {"max_tokens": 15}, "max_tokens"),
    (CHAT, (MESSAGES,), {"messages": [{"role": "user", "content": KEPT_FILE}]}, "messages[0].content[0].file.file_id"),
    (CHAT, (MESSAGES,), {"response_format": {"type": "json_object"}}, "response_format"),
    (CHAT, (MESSAGES,), {"verbosity": "low"}, "verbosity"),
    (RESPONSES, OTHERS[RESPONSES], {"previous_response_id": "resp_1"}, "previous_response_id"),
    (RESPONSES, OTHERS[RESPONSES], {"conversation": "conv_1"}, "conversation"),
    (RESPONSES, OTHERS[RESPONSES], {"background": True}, "background"),
    (RESPONSES, OTHERS[RESPONSES], {"tools": [{"type": "web_search"}]}, "tools[0]"),
    (RESPONSES, OTHERS[RESPONSES], {"truncation": "auto"}, "truncation"),
    (RESPONSES, OTHERS[RESPONSES], {"include": ["message.output_text.logprobs"]}, "include[0]"),
    (RESPONSES, OTHERS[RESPONSES], {"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    (RESPONSES, (MESSAGES,), {"tools": [{"type": "custom", "name": "patch"}]}, "tools[0]"),
    (RESPONSES, (MESSAGES,), {"text": {"format": {"type": "json_object"}}}, "text.format"),
    (MESSAGES, OTHERS[MESSAGES], {"extra_body": {"top_k": 3}}, "top_k"),
    (MESSAGES, OTHERS[MESSAGES], {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    (MESSAGES, OTHERS[MESSAGES], {"container": "container_1"}, "container"),
    (MESSAGES, OTHERS[MESSAGES], {"messages": [{"role": "user", "content": [CITED]}]}, "messages[0].content[0].citations"),
    (MESSAGES, (RESPONSES,), {"max_tokens": 15}, "max_tokens"),
    (MESSAGES, (RESPONSES,), {"stop_sequences": ["x"]}, "stop_sequences"),
]


@pytest.fixture(scope="module")
def sdks(served: Any) -> Iterator[Any]:
    """Makes the API of a format's SDK for an agent."""
    made: list[Any] = []

    def api(format: Format, agent: str) -> Any:
        options: Any = {"api_key": "any", "max_retries": 0, "timeout": 60, "default_headers": {"x-holdfast-agent": agent}}
        if format == MESSAGES:
            made.append(anthropic.Anthropic(base_url=served.gateway.anthropic, **options))
            return made[-1].messages
        made.append(openai.OpenAI(base_url=served.gateway.openai, **options))
        return made[-1].chat.completions if format == CHAT else made[-1].responses

    yield api
    for client in made:
        client.close()


CASES = [
    pytest.param(caller, target, more, param, id=f"{caller} {param} to {target}") for caller, to, more, param in REFUSED for target in to
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("caller", "target", "more", "param"), CASES)
def test_what_cannot_be_translated_is_refused_with_the_name_of_the_field(
    sdks: Any, served: Any, caller: Format, target: Format, more: dict[str, Any], param: str, stream: bool
) -> None:
    served.arrived.clear()
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)) as raised:
        sdks(caller, f"to-{target}").create(**{**QUESTIONS["plain"].options(caller), **more}, stream=stream)
    error = raised.value.body["error"] if caller == MESSAGES else raised.value.body  # type: ignore[index, union-attr]
    assert error["param"].startswith(param)
    assert error["param"] in error["message"]
    assert served.arrived == []


@pytest.mark.parametrize(("caller", "target", "more", "param"), CASES)
def test_a_target_that_can_take_the_field_is_tried_before_anything_is_refused(
    sdks: Any, served: Any, caller: Format, target: Format, more: dict[str, Any], param: str
) -> None:
    served.arrived.clear()
    options = {**QUESTIONS["plain"].options(caller), **more}
    try:
        answer = sdks(caller, f"last-{caller}").with_raw_response.create(**options)
    except (openai.APIStatusError, anthropic.APIStatusError) as error:  # the simulated provider does not know such ids
        answer = error.response
    assert served.arrived, "nobody was asked"
    assert f"only-{target}" != answer.headers.get("x-holdfast-served-by", "").partition("/")[0]


ERRORS = [400, 401, 404, 429, 500, 529]


@pytest.mark.parametrize("status", ERRORS)
@pytest.mark.parametrize(("caller", "target"), list(product(FORMATS, repeat=2)))
def test_an_error_of_any_target_raises_what_the_callers_own_format_raises(sdks: Any, caller: Format, target: Format, status: int) -> None:
    def raised(target: Format) -> Any:
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as found:
            sdks(caller, f"to-{target}").create(**{**QUESTIONS["plain"].options(caller), "model": f"sim-error-{status}"})
        return found.value

    own, other = raised(caller), raised(target)
    assert (type(other), other.status_code) == (type(own), own.status_code)
    assert f"answers sim-error-{status} with {status}" in str(other)
    assert other.response.headers.get("retry-after") == own.response.headers.get("retry-after")
    if status != 429:  # OpenAI tells kinds of rate limits apart
        kinds = [error.body["error"]["type"] if caller == MESSAGES else error.type for error in (own, other)]
        assert kinds[0] == kinds[1]


@pytest.mark.parametrize(("caller", "target"), list(product(FORMATS, repeat=2)))
def test_a_prompt_that_is_too_long_is_told_in_the_callers_format(sdks: Any, caller: Format, target: Format) -> None:
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)) as raised:
        sdks(caller, f"to-{target}").create(**{**QUESTIONS["plain"].options(caller), "model": "sim-context-3"})
    if caller == MESSAGES:
        assert "prompt is too long" in str(raised.value)
    else:
        assert raised.value.code == "context_length_exceeded"  # type: ignore[union-attr]


def raw(served: Any, caller: Format, target: Format, model: str) -> tuple[bytes, bool]:
    """The bytes of a stream, and whether it ended properly."""
    connection = HTTPConnection(served.gateway.host, served.gateway.port, timeout=60)
    options = json.loads(QUESTIONS["plain"].body(caller)) | {"stream": True, "model": model}
    headers = {"content-type": "application/json", "x-holdfast-agent": f"to-{target}", "anthropic-version": "2023-06-01"}
    connection.request("POST", PATHS[caller], json.dumps(options), headers)
    with closing(connection), connection.getresponse() as response:
        try:
            return response.read(), True
        except IncompleteRead as cut:
            return cut.partial, False


MARKERS = {CHAT: b"[DONE]", RESPONSES: b"response.completed", MESSAGES: b"message_stop"}
STOPPED = {CHAT: b'"finish_reason":"', RESPONSES: b"response.incomplete", MESSAGES: b'"stop_reason":"'}


@pytest.mark.parametrize("model", ["sim-cut-stream", "sim-end-early", "sim-error-event"])
@pytest.mark.parametrize(("caller", "target"), list(product(FORMATS, repeat=2)))
def test_the_end_of_a_translated_stream_is_never_made_up(served: Any, caller: Format, target: Format, model: str) -> None:
    said, ended = raw(served, caller, target, model)
    for token in (b"the ", b"sim ", b"can "):
        assert token in said
    assert MARKERS[caller] not in said and STOPPED[caller] not in said
    assert (b'"error":{' in said or b"event: error" in said) == (model == "sim-error-event")
    assert ended or model != "sim-error-event"


@pytest.mark.parametrize(("caller", "target"), [pair for pair in product(FORMATS, repeat=2) if pair != (RESPONSES, RESPONSES)])
def test_an_error_event_of_any_target_is_raised_by_the_callers_sdk(sdks: Any, caller: Format, target: Format) -> None:
    """Save OpenAI's own: its SDK hands on the error event of Responses, as it is documented, without raising."""
    heard = []
    with pytest.raises((openai.APIError, anthropic.APIError), match="failed on purpose"):
        for event in sdks(caller, f"to-{target}").create(**{**QUESTIONS["plain"].options(caller), "model": "sim-error-event"}, stream=True):
            heard.append(event.to_json())  # noqa: PERF401 - the last one raises
    assert "can " in "".join(heard)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("model", ["sim-cut-before", "sim-garbage", "sim-garbage-shape", "sim-error-event-0", "sim-error-500"])
@pytest.mark.parametrize("caller", FORMATS)
def test_what_goes_wrong_before_the_first_token_in_other_formats_is_made_good_by_the_last_target(
    sdks: Any, served: Any, caller: Format, model: str, stream: bool
) -> None:
    served.arrived.clear()
    api = sdks(caller, f"last-{caller}")
    answer = api.with_raw_response.create(**{**QUESTIONS["plain"].options(caller), "model": model}, stream=stream)
    assert answer.headers["x-holdfast-served-by"] == f"only-{caller}/sim-ok"
    said = "".join(event.to_json() for event in answer.parse()) if stream else answer.parse().to_json()
    assert "Unde" in said and "purpose" not in said
    asked = list(dict.fromkeys(request.path.decode() for request in served.arrived))
    assert asked == [PATHS[target] for target in (*OTHERS[caller], caller)]
