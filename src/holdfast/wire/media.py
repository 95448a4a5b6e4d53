"""How many input tokens media can be at most, and what else a request only refers to: their bytes say little about it."""

import re
from base64 import b64decode

LEAST_IMAGE = 6_500
"""Tokens; the bound of one picture for most models, and the least that `image_tokens` answers."""

_DOCUMENT_LEAST = 10_000
_DOCUMENT_MOST = 1_000_000
_DOCUMENT_PER_BYTE = 3

_LARGE_PICTURES = re.compile(r"gpt-(?:5\.[4-9]|[6-9]|\d\d)")
"""Models that take pictures of the size at which they come, where the request does not say otherwise."""

_KEPT_OVERHEAD = 1_000
"""Tokens that a provider may put between what it kept and what comes new."""
_SMALL_WINDOW = 128_000
_PICTURE_FACTOR = 34

_AUDIO_PER_SECOND = 32
_AUDIO_LEAST = 32
_MP3_BYTES_PER_SECOND = 1_000
_MP3_BEGINS = ("SUQz", "//", "/+")  # in base64: an ID3 tag, the first bits of a frame


def image_tokens(model: str = "", detail: str = "") -> int:
    """Upper bound of one picture, inline or not: providers scale it down before they count.

    Documented maxima: OpenAI's patches (2,500 * 2.46) and tiles (85 + 8 * 170), Anthropic's 4,784; dearer are `detail: original` (10,000
    patches * 2.46), which newer models may do unasked, and gpt-4o-mini (2,833 + 8 * 5,667).
    """
    if "4o-mini" in model:
        return 48_200
    if detail == "original" or (detail in ("", "auto") and _LARGE_PICTURES.search(model)):
        return 25_000
    return LEAST_IMAGE


def document_tokens(inline: int) -> int:
    """Upper bound of a document (PDF) of `inline` base64 bytes: its text is compressed, and each page counts as a picture too.

    Never more than the largest context window: providers reject, and do not bill, what does not fit.
    """
    return min(max(_DOCUMENT_LEAST, _DOCUMENT_PER_BYTE * inline), _DOCUMENT_MOST)


def audio_tokens(inline: str, kind: str) -> int:
    """Upper bound of a recording, given as base64 text, of the format `kind`.

    Providers count by its length: OpenAI 10 tokens per second, Gemini 32. An MP3 has at least 8 kbit/s, a WAV of plain samples says how
    long one second is; anything else counts by its bytes.
    """
    size = len(inline) * 3 // 4
    if kind == "mp3" and inline.startswith(_MP3_BEGINS):
        return _AUDIO_LEAST + _AUDIO_PER_SECOND * size // _MP3_BYTES_PER_SECOND
    per_second = _wav_bytes_per_second(inline) if kind == "wav" else 0
    return _AUDIO_LEAST + (min(len(inline), _AUDIO_PER_SECOND * size // per_second) if per_second else len(inline))


def _wav_bytes_per_second(inline: str) -> int:
    """Of plain samples in the usual order of a WAV file's chunks; 0 for any other file."""
    try:
        head = b64decode(inline[:64], validate=True)
    except ValueError:
        return 0
    if len(head) < 36 or head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt " or head[20:22] != b"\x01\x00":
        return 0
    channels, rate, declared, bits = (int.from_bytes(head[at : at + size], "little") for at, size in ((22, 2), (24, 4), (28, 4), (34, 2)))
    return min(channels * rate * bits // 8, declared)


def kept_tokens(counted: int, model: str) -> int:
    """Upper bound of a history that the provider keeps and that `counted` tokens were reported for; 0 where none were.

    The model now may count its pictures dearer than the one before, up to the whole context window.
    """
    if not counted:
        return 0
    most = max(counted, min(counted * _PICTURE_FACTOR, _SMALL_WINDOW)) if "4o-mini" in model else counted
    return most + _KEPT_OVERHEAD
