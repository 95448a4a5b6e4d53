"""Bounds of what a request only shows or refers to."""

import struct
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.media import audio_tokens, document_tokens, image_tokens, kept_tokens


def wav(rate: int, channels: int, bits: int, seconds: float) -> str:
    samples = b"\0" * int(rate * channels * bits // 8 * seconds)
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    return b64encode(
        b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt " + struct.pack("<I", 16) + form + b"data\0\0\0\0" + samples
    ).decode()


@given(rate=st.sampled_from([1, 100, 8_000, 44_100]), channels=st.integers(1, 2), bits=st.sampled_from([8, 16]), seconds=st.integers(0, 5))
def test_a_wav_counts_by_its_length_whatever_its_rate(rate: int, channels: int, bits: int, seconds: int) -> None:
    data = wav(rate, channels, bits, seconds)
    assert audio_tokens(data, "wav") >= min(32 * seconds, len(data))
    if rate >= 8_000 and seconds:
        assert audio_tokens(data, "wav") <= 32 * seconds + 100


def test_an_mp3_counts_as_the_longest_that_it_can_be() -> None:
    for begin in (b"ID3\x04", b"\xff\xfb\x90", b"\xff\xe3\x18"):
        data = b64encode(begin + bytes(10_000)).decode()
        assert 320 <= audio_tokens(data, "mp3") <= 360


@pytest.mark.parametrize("kind", ["ogg", "mp3", "wav", ""])
def test_a_recording_of_no_known_form_counts_by_its_bytes(kind: str) -> None:
    data = b64encode(b"OggS" + bytes(1_000)).decode()
    assert audio_tokens(data, kind) >= len(data)


@given(st.text(max_size=100), st.sampled_from(["mp3", "wav", "x"]))
def test_no_recording_breaks_the_reading(data: str, kind: str) -> None:
    assert audio_tokens(data, kind) >= 0
    assert audio_tokens("UklGR" + data, kind) >= 0


@pytest.mark.parametrize(
    ("model", "detail", "least"),
    [
        ("gpt-4o", "high", 85 + 8 * 170),
        ("gpt-4.1-mini", "auto", 6_150),
        ("claude-opus-4-8", "", 4_784),
        ("gpt-4o-mini", "high", 2_833 + 8 * 5_667),
        ("gpt-5.4", "original", 24_600),
        ("gpt-5.4", "auto", 24_600),
        ("gpt-6.1-sol", "", 24_600),
    ],
)
def test_a_picture_counts_as_the_largest_that_is_documented(model: str, detail: str, least: int) -> None:
    assert least <= image_tokens(model, detail) <= 2 * max(least, 6_500)


def test_a_kept_history_counts_as_reported_or_as_pictures_may_count_now() -> None:
    assert kept_tokens(0, "gpt-4o") == 0
    assert 5_000 < kept_tokens(5_000, "gpt-4o") <= 6_000
    assert kept_tokens(1_445, "gpt-4o-mini") >= 48_169
    assert kept_tokens(100_000, "gpt-4o-mini") <= 129_000


def test_a_document_counts_no_more_than_the_longest_context() -> None:
    assert [document_tokens(size) for size in (0, 10_000, 10**9)] == [10_000, 30_000, 1_000_000]
