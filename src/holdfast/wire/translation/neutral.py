"""What every format is read into and written from: a request, an answer, and the events of a streamed answer, in no provider's words.

`at` is where a part stands in the caller's request, so that whoever has no place for it can name the field.
"""

from typing import Literal

from msgspec import Raw, Struct

from holdfast.events.usage import Usage

FormatName = Literal["openai-chat", "openai-responses", "anthropic-messages"]
Effort = Literal["", "none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model is to think; "" leaves it to the model."""

EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class Text(Struct, frozen=True):
    text: str


class Refused(Struct, frozen=True):
    """The model's words for why it does not answer."""

    text: str


class Image(Struct, frozen=True):
    """Either a URL, or media type and base64 data. detail: OpenAI's name of the sharpness, "" where nothing was asked."""

    at: str = ""
    url: str = ""
    media_type: str = ""
    data: str = ""
    detail: str = ""


class Document(Struct, frozen=True):
    """Either a URL, or media type and base64 data."""

    at: str = ""
    url: str = ""
    media_type: str = ""
    data: str = ""
    name: str = ""


class Call(Struct, frozen=True):
    """A tool call. arguments: JSON text, or with `custom` any text."""

    id: str
    name: str
    arguments: str
    custom: bool = False
    at: str = ""


class Result(Struct, frozen=True):
    """What a tool gave back."""

    call_id: str
    parts: tuple["Text | Image | Document", ...]
    failed: bool = False
    custom: bool = False
    at: str = ""


class Reasoning(Struct, frozen=True):
    """Thoughts as far as the provider shows them."""

    text: str


Part = Text | Refused | Image | Document | Call | Result
Said = Text | Refused | Call | Reasoning
Role = Literal["system", "developer", "user", "assistant"]


class Message(Struct, frozen=True):
    """Results of tools are parts of a user's message, where Anthropic has them."""

    role: Role
    parts: tuple[Part, ...]
    at: str = ""


class Tool(Struct, frozen=True):
    """schema: JSON schema of the arguments. custom: takes free text; `grammar` is OpenAI's `format` of it."""

    name: str
    description: str | None = None
    schema: Raw | None = None
    strict: bool | None = None
    custom: bool = False
    grammar: Raw | None = None
    at: str = ""


class ToolChoice(Struct, frozen=True):
    mode: Literal["auto", "none", "required", "named"]
    name: str = ""
    custom: bool = False


class OutputFormat(Struct, frozen=True):
    """schema None: any JSON object."""

    schema: Raw | None
    name: str = ""
    description: str | None = None
    strict: bool | None = None


class Request(Struct, kw_only=True):
    """system: the system prompt that stands beside the messages. max_output: all that is generated, reasoning included.

    temperature, top_p: numbers as the caller wrote them. show_reasoning: the caller asked to see the thoughts.
    shared: fields that both of OpenAI's formats have, as they came.
    """

    model: str
    system: tuple[str, ...] = ()
    messages: list[Message]
    tools: list[Tool] = []
    choice: ToolChoice | None = None
    parallel: bool | None = None
    format: OutputFormat | None = None
    effort: Effort = ""
    thinking: bool = False
    show_reasoning: bool = False
    max_output: int | None = None
    temperature: Raw | None = None
    top_p: Raw | None = None
    stop: tuple[str, ...] = ()
    verbosity: str = ""
    user: str = ""
    stream: bool = False
    shared: dict[str, Raw] = {}


Stop = Literal["end", "length", "tool", "filter", "sequence"]
"""Why an answer ended: by itself, at the bound of tokens, to call tools, refused or filtered, at a stop sequence."""


class Answer(Struct, kw_only=True):
    """created_s: Unix time, 0 where the format does not tell. sequence: the stop sequence that was met."""

    id: str
    model: str
    parts: list[Said]
    stop: Stop
    usage: Usage | None = None
    sequence: str | None = None
    created_s: int = 0


class Began(Struct, frozen=True):
    id: str
    model: str
    created_s: int = 0


class Piece(Struct, frozen=True):
    """Some text of one kind. block: changes where the target began a new block of the same kind."""

    kind: Literal["text", "reasoning", "refusal"]
    text: str
    block: int = 0


class CallBegan(Struct, frozen=True):
    """key: what its further pieces go by."""

    key: int
    id: str
    name: str
    custom: bool = False


class CallPiece(Struct, frozen=True):
    key: int
    text: str


class Stopped(Struct, frozen=True):
    stop: Stop
    sequence: str | None = None


class Counted(Struct, frozen=True):
    """What a source has read of the usage so far; the last one counts, and reaches a sink with `Ended`."""

    usage: Usage


class Failed(Struct, frozen=True):
    """The target's own words. kind: OpenAI's or Anthropic's type of the error, code: a finer one; "" where there is none."""

    message: str
    kind: str = ""
    code: str = ""


class Ended(Struct, frozen=True):
    """The target's terminal marker. usage: what was counted until then."""

    usage: Usage | None = None


Event = Began | Piece | CallBegan | CallPiece | Stopped | Failed | Ended
