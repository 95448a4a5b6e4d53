"""What providers say about their rate limits, and that nonsense says nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import MILLISECOND, SECOND
from holdfast.wire.anthropic_quota import anthropic_quotas
from holdfast.wire.openai_quota import openai_quotas
from holdfast.wire.quota import Quota, retry_after_ns, span_ns, until_ns

NOON = 1_784_030_400 * SECOND  # 2026-07-14T12:00:00Z
DATE = (b"date", b"Tue, 14 Jul 2026 12:00:00 GMT")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1s", SECOND),
        (b"6m0s", 360 * SECOND),
        (b"20ms", 20 * MILLISECOND),
        (b"1h2m3.5s", 3723 * SECOND + 500 * MILLISECOND),
        (b"7.66s", 7_660 * MILLISECOND),
        (b"1d", 86_400 * SECOND),
        (b"12", 12 * SECOND),
        (b"0.5", SECOND // 2),
        (b"", None),
        (b"1s and more", None),
        (b"-1s", None),
        (b"nan", None),
        (b"inf", None),
        (b"999999999d", None),
        (b"1s" * 100, None),
    ],
)
def test_spans_are_read_as_providers_write_them(text: bytes, expected: int | None) -> None:
    assert span_ns(text) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"retry-after", b"7")], 7 * SECOND),
        ([(b"retry-after", b"0.5")], SECOND // 2),
        ([(b"retry-after", b"7"), (b"retry-after-ms", b"250")], 250 * MILLISECOND),
        ([(b"retry-after-ms", b"soon"), (b"retry-after", b"7")], 7 * SECOND),
        ([(b"retry-after", b"Tue, 14 Jul 2026 12:00:30 GMT")], 30 * SECOND),
        ([(b"retry-after", b"Tuesday, 14-Jul-26 12:00:30 GMT")], 30 * SECOND),
        ([(b"retry-after", b"Tue Jul 14 12:00:30 2026")], 30 * SECOND),
        ([(b"retry-after", b"Tue, 14 Jul 2026 11:00:00 GMT")], 0),
        ([(b"date", b"Tue, 14 Jul 2026 13:00:00 GMT"), (b"retry-after", b"Tue, 14 Jul 2026 13:00:05 GMT")], 5 * SECOND),
        ([(b"retry-after", b"Tue, 14 Jul 9999 12:00:30 GMT")], None),
        ([(b"retry-after", b"-1")], None),
        ([(b"retry-after", b"1e99")], None),
        ([(b"retry-after", b"later")], None),
        ([DATE], None),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date_by_the_answers_own_clock(
    headers: list[tuple[bytes, bytes]], expected: int | None
) -> None:
    assert retry_after_ns(headers, NOON) == expected


def test_openais_headers() -> None:
    headers = [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-limit-tokens", b"150000"),
        (b"x-ratelimit-remaining-requests", b"59"),
        (b"x-ratelimit-remaining-tokens", b"149984"),
        (b"x-ratelimit-reset-requests", b"1s"),
        (b"x-ratelimit-reset-tokens", b"6m0s"),
        (b"x-ratelimit-limit-tokens_usage_based", b"1"),
    ]
    assert openai_quotas(headers) == (Quota("requests", 60, 59, SECOND), Quota("tokens", 150_000, 149_984, 360 * SECOND))
    assert [quota.refills for quota in openai_quotas(headers, refills=False)] == [False, False]
    assert openai_quotas(headers[:4]) == openai_quotas([DATE]) == ()


def test_anthropics_headers_by_the_answers_own_clock() -> None:
    headers = [DATE]
    for name, limit, left in ((b"requests", b"50", b"49"), (b"input-tokens", b"40000", b"0"), (b"output-tokens", b"8000", b"7000")):
        headers += [
            (b"anthropic-ratelimit-" + name + b"-limit", limit),
            (b"anthropic-ratelimit-" + name + b"-remaining", left),
            (b"anthropic-ratelimit-" + name + b"-reset", b"2026-07-14T12:00:42Z"),
        ]
    assert anthropic_quotas(headers, 0) == (
        Quota("requests", 50, 49, 42 * SECOND),
        Quota("input_tokens", 40_000, 0, 42 * SECOND),
        Quota("output_tokens", 8_000, 7_000, 42 * SECOND),
    )
    assert anthropic_quotas(headers[1:4], NOON + 40 * SECOND) == (Quota("requests", 50, 49, 2 * SECOND),)


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"many", b"9" * 40, b"\xff", b"0"])
def test_a_limit_that_is_none_is_not_read(value: bytes) -> None:
    rest = [(b"x-ratelimit-remaining-requests", b"1"), (b"x-ratelimit-reset-requests", b"1s")]
    assert openai_quotas([(b"x-ratelimit-limit-requests", value), *rest]) == ()


@given(st.binary(max_size=40))
def test_any_bytes_are_a_value_or_nothing(text: bytes) -> None:
    headers = [(b"retry-after", text), (b"date", text), (b"x-ratelimit-limit-requests", text), (b"x-ratelimit-remaining-requests", text)]
    for found in (span_ns(text), until_ns(text, text, NOON), retry_after_ns(headers, NOON)):
        assert found is None or found >= 0
    openai_quotas([*headers, (b"x-ratelimit-reset-requests", text)])


@pytest.mark.parametrize("text", [b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59", b"2026-07-14T12:00:00", b"2026-07-14", b"12"])
def test_instants_that_name_no_moment_of_this_age_are_a_value_or_nothing(text: bytes) -> None:
    assert until_ns(text, b"", NOON) in (None, 0)
    assert retry_after_ns([(b"retry-after", b"Mon, 01 Jan 0001 00:00:00 +2359"), (b"date", text)], NOON) in (None, 0)
