"""OpenAI Embeddings: unit vectors that depend on nothing but the text."""

import struct
from base64 import b64encode
from hashlib import blake2b
from math import sqrt

import msgspec
from msgspec import Struct

from holdfast.errors import MalformedRequest
from holdfast.testing.simulated_provider.answer import Reply
from holdfast.testing.simulated_provider.prompt import Prompt, count, decode, require_positive

_DIMENSIONS = 8


class _Body(Struct):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str = "float"
    dimensions: int | None = None


class EmbeddingPrompt(Prompt, frozen=True, kw_only=True):
    """texts: one per vector; lists of tokens as their JSON."""

    texts: tuple[bytes, ...]
    base64: bool
    dimensions: int


def read(body: bytes) -> EmbeddingPrompt:
    """The prompt of a request body; raises MalformedRequest."""
    asked = decode(body, _Body)
    require_positive(asked.dimensions, "dimensions")
    if not asked.input:
        raise MalformedRequest("Invalid 'input': it must not be empty.", "input")
    one = isinstance(asked.input, str) or isinstance(asked.input[0], int)
    inputs = [asked.input] if one else asked.input
    return EmbeddingPrompt(
        model=asked.model,
        input_tokens=sum(count(text) if isinstance(text, str) else len(text) if isinstance(text, list) else 1 for text in inputs),
        first_text=str(inputs[0]),
        texts=tuple(msgspec.json.encode(text) for text in inputs),
        base64=asked.encoding_format == "base64",
        dimensions=asked.dimensions or _DIMENSIONS,
    )


def whole(reply: Reply) -> bytes:
    """The body of the answer."""
    prompt = reply.prompt
    assert isinstance(prompt, EmbeddingPrompt)
    vectors = [_vector(text, prompt.dimensions) for text in prompt.texts]
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if prompt.base64 else vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": prompt.input_tokens, "total_tokens": prompt.input_tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": prompt.model, "usage": usage})


def _vector(text: bytes, dimensions: int) -> list[float]:
    rounds = range(-(-dimensions // 32))
    digest = b"".join(blake2b(text, digest_size=64, salt=number.to_bytes(8, "big")).digest() for number in rounds)
    values = [value - 32_767.5 for value in struct.unpack(f"<{len(digest) // 2}H", digest)[:dimensions]]
    length = sqrt(sum(value * value for value in values))
    return [value / length for value in values]


def _packed(vector: list[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
