"""Images and documents inside requests: data URLs taken apart and put together."""

from holdfast.wire.translation.fields import no_place
from holdfast.wire.translation.neutral import Document, Image

IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
"""What every provider reads."""


def image(url: str, detail: str, at: str) -> Image:
    media_type, data = _inline(url)
    return Image(at, "", media_type, data, detail) if data else Image(at, url, detail=detail)


def document(file_data: str, url: str, name: str, at: str) -> Document:
    """file_data: a data URL, or bare base64 of what the file's name says; OpenAI takes both."""
    media_type, data = _inline(file_data)
    if file_data and not data:
        media_type, data = ("text/plain" if name.endswith((".txt", ".md")) else "application/pdf"), file_data
    return Document(at, url, media_type, data, name)


def url_of(part: Image | Document) -> str:
    return part.url or f"data:{part.media_type};base64,{part.data}"


def check_image(part: Image, target: str) -> None:
    if part.data and part.media_type not in IMAGES:
        raise no_place(part.at, target, f"it takes no images of type {part.media_type or 'unknown'}")


def _inline(url: str) -> tuple[str, str]:
    """Media type and base64 data of a data URL; empty for any other."""
    if not url.startswith("data:"):
        return "", ""
    head, _, data = url[5:].partition(",")
    media_type, *options = head.split(";")
    return (media_type, data) if "base64" in options else ("", "")
