"""How many input tokens a picture or a document can be at most: their bytes say little about it."""

_DOCUMENT_LEAST = 10_000
_DOCUMENT_MOST = 1_000_000
_DOCUMENT_PER_BYTE = 3


def image_tokens(model: str = "", detail: str = "") -> int:
    """Upper bound of one picture, inline or not: providers scale it down before they count.

    Documented maxima: OpenAI's patches (2,500 * 2.46) and tiles (85 + 8 * 170), Anthropic's 4,784; dearer are `detail: original` (10,000
    patches * 2.46) and gpt-4o-mini (2,833 + 8 * 5,667).
    """
    if "4o-mini" in model:
        return 48_200
    return 25_000 if detail == "original" else 6_500


def document_tokens(inline: int) -> int:
    """Upper bound of a document (PDF) of `inline` base64 bytes: its text is compressed, and each page counts as a picture too.

    Never more than the largest context window: providers reject, and do not bill, what does not fit.
    """
    return min(max(_DOCUMENT_LEAST, _DOCUMENT_PER_BYTE * inline), _DOCUMENT_MOST)
