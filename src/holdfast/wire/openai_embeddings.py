"""OpenAI Embeddings: `POST /v1/embeddings`. Nothing is generated; what it costs is its input."""

import msgspec
from msgspec import Raw, Struct

from holdfast.errors import MalformedAnswer, MalformedRequest
from holdfast.wire import openai_errors
from holdfast.wire.call import Answer, Call, Family, Refusal, Rewrite, StreamReader
from holdfast.wire.openai_chat_answer import ChatStreamReader
from holdfast.wire.openai_usage import read_usage
from holdfast.wire.request_body import NULL, Fields, check_names, checked, one_line, read_fields, with_changes, without

_PER_REQUEST = 32
_PER_INPUT = 8
"""Tokens that models put around each text (begin and end markers, an instruction prefix)."""


class _Params(Struct, gc=False):
    model: str
    user: str | None = None


class _Embeddings(Struct, gc=False):
    data: list[Raw]
    model: str | None = None
    usage: Raw = NULL


_GUARDED = frozenset({*_Params.__struct_fields__, "input"})

_params = msgspec.json.Decoder(_Params).decode
_input = msgspec.json.Decoder(str | list[str | int | list[int]]).decode
_embeddings = msgspec.json.Decoder(_Embeddings).decode


class _OpenAIEmbeddings:
    name = "openai-embeddings"
    family: Family = "openai"
    resumable = False

    def parse(self, body: bytes) -> Call:
        fields = read_fields(one_line(body))
        rest = without(fields, ("input",))
        check_names(fields, _GUARDED)
        params = checked(_params, rest)
        if not params.model:
            raise MalformedRequest("model must not be empty.", "model")
        if "input" not in fields:
            raise MalformedRequest("Invalid request: input: required field `input` is missing.", "input")
        given = checked(_input, fields["input"], "input")
        return Call(
            model=params.model,
            messages=(fields["input"],),
            params=rest,
            max_output=0,
            generates=False,
            input_bound=_PER_REQUEST + _bound(given),
            user=params.user or "",
        )

    def answer(self, body: bytes) -> Answer:
        try:
            embeddings = _embeddings(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedAnswer(f"not an embeddings list: {error}") from None
        return Answer(model=embeddings.model or "", usage=read_usage(embeddings.usage))

    def stream(self, call: Call, rewrite: Rewrite) -> StreamReader:
        """Embeddings are never streamed: should a server do it all the same, its bytes pass and nothing is read as an answer."""
        return ChatStreamReader(hide_usage=False)

    def rewrite(self, body: bytes, call: Call, rewrite: Rewrite) -> bytes:
        def changes(fields: Fields) -> dict[str, Raw]:
            if rewrite.model is None or rewrite.model == call.model:
                return {}
            return {"model": Raw(msgspec.json.encode(rewrite.model))}

        return with_changes(body, changes)

    def refusal(self, refusal: Refusal) -> bytes:
        return openai_errors.refusal_body(refusal)

    def error_event(self, message: str, kind: str = "upstream_failed") -> bytes:
        return openai_errors.error_event(message, kind)

    def canned(self, call: Call, text: str, response_id: str, created_s: int) -> None:
        """There is no vector for a text of the gateway's own."""
        return


def _bound(given: str | list[str | int | list[int]]) -> int:
    """Token arrays count by their length, texts by their UTF-8 bytes."""
    if isinstance(given, str):
        return _PER_INPUT + len(given.encode("utf-8"))
    total = 0
    for item in given:
        if isinstance(item, int):
            total += 1
        else:
            total += _PER_INPUT + (len(item.encode("utf-8")) if isinstance(item, str) else len(item))
    return total + _PER_INPUT


FORMAT = _OpenAIEmbeddings()
