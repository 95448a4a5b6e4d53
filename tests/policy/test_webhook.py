"""Signatures as Standard Webhooks has them."""

from base64 import b64encode

import pytest

from holdfast.policy.webhook import signed, signing_key


def test_the_signature_is_the_one_of_the_specifications_own_example() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = dict(signed(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'))
    assert headers == {
        b"webhook-id": b"msg_p5jXN8AQM9LWM0D4loKWxJek",
        b"webhook-timestamp": b"1614265330",
        b"webhook-signature": b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_secret_may_stand_without_its_prefix(size: int) -> None:
    text = b64encode(b"k" * size).decode()
    assert signing_key(text) == signing_key("whsec_" + text) == b"k" * size


@pytest.mark.parametrize("secret", ["", "whsec_", "secret", "whsec_" + b64encode(b"k" * 23).decode(), "é" * 40, "whsec_" + "A" * 200])
def test_a_secret_that_is_none_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match="openssl") as refused:
        signing_key(secret)
    assert not secret.removeprefix("whsec_") or secret.removeprefix("whsec_") not in str(refused.value).removeprefix("must")
