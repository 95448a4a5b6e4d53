"""Token counting: the request of a message, of which nothing is generated."""

import json

import pytest

from holdfast.errors import MalformedAnswer, MalformedRequest
from holdfast.wire.anthropic_count_tokens import FORMAT
from holdfast.wire.call import Rewrite

BODY = json.dumps({"model": "claude", "messages": [{"role": "user", "content": "hi"}], "tools": [{"name": "ls"}]}).encode()


def test_nothing_is_generated() -> None:
    call = FORMAT.parse(BODY)
    assert (call.model, call.generates, call.turns, call.max_output, call.unbounded) == ("claude", False, (), None, "")


def test_a_wrong_field_is_named() -> None:
    with pytest.raises(MalformedRequest) as caught:
        FORMAT.parse(b'{"model":"claude"}')
    assert caught.value.param == "messages"


def test_only_the_model_is_rewritten() -> None:
    call = FORMAT.parse(BODY)
    assert FORMAT.rewrite(BODY, call, Rewrite(max_output=5)) is BODY
    assert json.loads(FORMAT.rewrite(BODY, call, Rewrite(model="other", max_output=5))) == {**json.loads(BODY), "model": "other"}


def test_a_count_is_read_and_never_invented() -> None:
    assert FORMAT.answer(b'{"input_tokens":12}').usage is None
    assert FORMAT.canned(FORMAT.parse(BODY), "hello", "msg_1", 0) is None
    with pytest.raises(MalformedAnswer):
        FORMAT.answer(b'{"tokens":12}')
