"""The `Prefer` header, as RFC 7240 has it."""

import pytest

from holdfast.http.message import Request
from holdfast.http.prefer import respond_async, wait_s


def asked(*values: bytes) -> Request:
    headers = [(b"prefer", value) for value in values]
    return Request(method=b"POST", path=b"/", query=b"", headers=headers, body=b"", peer="")


@pytest.mark.parametrize(
    "values",
    [
        (b"respond-async",),
        (b"Respond-Async",),
        (b"respond-async, wait=10",),
        (b"wait=10 , respond-async",),
        (b"wait=10", b"respond-async"),
        (b"respond-async; foo=bar",),
        (b"return=minimal,respond-async,handling=lenient",),
    ],
)
def test_the_preference_is_found_however_it_is_written(values: tuple[bytes, ...]) -> None:
    assert respond_async(asked(*values))


@pytest.mark.parametrize("values", [(), (b"",), (b"wait=5",), (b"respond-asynchronously",), (b"foo=respond-async",), (b",;=",)])
def test_other_preferences_are_not_taken_for_it(values: tuple[bytes, ...]) -> None:
    assert not respond_async(asked(*values))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"wait=5", 5),
        (b'wait="5"', 5),
        (b"respond-async, wait=7", 7),
        (b"wait=5, wait=9", 5),
        (b"wait=9999", 60),
        (b"wait=" + b"9" * 400, 0),
        (b"wait=-1", 0),
        (b"wait=x", 0),
        (b"wait", 0),
        (b"", 0),
    ],
)
def test_a_wait_is_read_within_reason(value: bytes, seconds: int) -> None:
    assert wait_s(asked(value)) == seconds
