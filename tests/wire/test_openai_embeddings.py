"""Embeddings: bounded by their input, nothing generated."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import MalformedAnswer, MalformedRequest
from holdfast.events.usage import Usage
from holdfast.wire.call import Answer, Refusal, Rewrite
from holdfast.wire.openai_embeddings import FORMAT

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def request(given: object, **fields: Any) -> bytes:
    return json.dumps({"model": "e", "input": given, **fields}).encode()


def test_a_call_generates_nothing() -> None:
    call = FORMAT.parse(request(["a", "b"], user="u", dimensions=3))
    assert (call.model, call.generates, call.max_output, call.user, call.stream, call.turns) == ("e", False, 0, "u", False, ())
    assert [json.loads(bytes(raw)) for raw in call.messages] == [["a", "b"]]
    assert json.loads(bytes(call.params)) == {"model": "e", "user": "u", "dimensions": 3}


@given(TEXT | st.lists(TEXT, max_size=4))
def test_texts_count_by_their_bytes(given: str | list[str]) -> None:
    texts = [given] if isinstance(given, str) else given
    most = sum(len(text.encode()) + 2 for text in texts)
    assert most <= FORMAT.parse(request(given)).input_bound <= most + 50 + 8 * len(texts)


def test_token_arrays_count_by_their_length() -> None:
    one = FORMAT.parse(request([10**9] * 1_000)).input_bound
    many = FORMAT.parse(request([[10**9] * 500, [1] * 500])).input_bound
    assert 1_000 <= one <= many <= 1_100


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"[", None),
        (b"{}", "model"),
        (b'{"model":"e"}', "input"),
        (request(None), "input"),
        (request(3), "input"),
        (request(["a", None]), "input[1]"),
        (request([[1, "a"]]), "input[0][1]"),
        (request("a", model=""), "model"),
        (request("a", user=3), "user"),
    ],
)
def test_a_malformed_request_is_refused_by_the_name_of_its_field(body: bytes, param: str | None) -> None:
    with pytest.raises(MalformedRequest) as caught:
        FORMAT.parse(body)
    assert caught.value.param == param


def test_an_answer_is_its_usage() -> None:
    body = b'{"object":"list","model":"e-1","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":5,"total_tokens":5}}'
    assert FORMAT.answer(body) == Answer(model="e-1", usage=Usage(input=5))
    assert FORMAT.answer(b'{"data":[]}').usage is None
    assert FORMAT.answer(body).chosen_action == "none"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"error":{}}', b"\xff"])
def test_a_body_of_another_shape_is_not_an_answer(body: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        FORMAT.answer(body)


def test_a_rewrite_changes_the_model_alone() -> None:
    body = request("a")
    call = FORMAT.parse(body)
    assert FORMAT.rewrite(body, call, Rewrite(max_output=5, usage_in_stream=True, model="e")) is body
    assert json.loads(FORMAT.rewrite(body, call, Rewrite(model="f"))) == {"model": "f", "input": "a"}


def test_there_is_no_vector_of_the_gateways_own() -> None:
    assert FORMAT.canned(FORMAT.parse(request("a")), "text", "id", 0) is None


def test_a_refusal_has_the_error_body_of_the_family() -> None:
    assert json.loads(FORMAT.refusal(Refusal(status=402, kind="k", message="m")))["error"]["code"] == "k"
    assert FORMAT.error_event("cut").startswith(b'data: {"error":')
