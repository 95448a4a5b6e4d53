"""What a request asks for, whatever its format; and how this provider counts tokens.

A token is four characters: `count` never exceeds the UTF-8 bytes of a text. Input is every text of the request, tool calls and tool
schemas as their JSON, plus `MESSAGE` tokens for each message and `MEDIA` for each image, file or sound.
"""

import re
from typing import TypeVar

import msgspec
from msgspec import Struct

from holdfast.errors import MalformedRequest

TOKEN = 4
"""Characters of a token."""
MESSAGE = 3
MEDIA = 85

_Body = TypeVar("_Body")


class OfferedTool(Struct, frozen=True):
    """A tool that the model may call. custom: takes plain text instead of JSON."""

    name: str
    schema: object = None
    custom: bool = False
    namespace: str = ""


class Prompt(Struct, frozen=True, kw_only=True):
    """A request in this provider's terms.

    max_output: bound of generated tokens per choice. must_call: name of the tool that has to be called, "*" for any.
    assistant_turns: how often the model has spoken so far. has_tool_result: anywhere in the history. schema: JSON Schema that the
    text has to satisfy. reasoning: the caller asked for it; hidden: but not to see it. previous: id of an earlier response that this
    one goes on from. stops: texts before which the answer ends. parallel: several tools may be called at once.
    """

    model: str
    stream: bool = False
    usage_in_stream: bool = True
    choices: int = 1
    max_output: int | None = None
    tools: tuple[OfferedTool, ...] = ()
    must_call: str = ""
    assistant_turns: int = 0
    has_tool_result: bool = False
    first_text: str = ""
    last_text: str = ""
    schema: object = None
    logprobs: bool = False
    reasoning: bool = False
    hidden: bool = False
    input_tokens: int = 0
    previous: str = ""
    stops: tuple[str, ...] = ()
    parallel: bool = True


class Text:
    """Adds up what a request says: the tokens, the first words of the user and the last words of anybody but the model."""

    __slots__ = ("first", "last", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.first = ""
        self.last = ""

    def say(self, text: str, *, by_model: bool = False, by_user: bool = False) -> None:
        self.tokens += count(text)
        if by_model or not text:
            return
        self.last = text
        if by_user and not self.first:
            self.first = text


def count(text: str) -> int:
    """Tokens of a text."""
    return -(-len(text) // TOKEN)


def count_json(raw: msgspec.Raw) -> int:
    """Tokens of a part of the request that counts as its JSON; none when it is absent."""
    json = bytes(raw)
    return 0 if json in {b"", b"null", b"[]"} else len(json) // TOKEN


def decode(body: bytes, kind: type[_Body]) -> _Body:
    """The request body as `kind`; MalformedRequest names the field that is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        field = re.search(r"at `\$\.?([^`]*)`", str(error)) or re.search(r"required field `([^`]*)`", str(error))
        raise MalformedRequest(f"Invalid request: {error}", field[1] if field else None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedRequest("We could not parse the JSON body of your request.") from None


def require_positive(value: int | None, field: str) -> None:
    if value is not None and value < 1:
        raise MalformedRequest(f"Invalid '{field}': expected an integer above 0, got {value}.", field)
