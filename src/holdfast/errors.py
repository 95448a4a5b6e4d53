"""Every error that Holdfast raises, in one tree.

HoldfastError                 the way out is in the message
|-- UsageError                wrong words on the command line (exit 2)
|-- ConfigError               the configuration file or environment is wrong; names file, line and key
|-- SecretError               a secret reference could not be resolved; never carries the secret
|-- CannotStart               the agent's command is not there or cannot be run; knows the exit code
|-- CannotListen              an address that Holdfast should listen on cannot be had
|-- StorageError              the data directory, ledger or journal cannot be read or written
|-- MalformedRequest          an agent sent what no provider would accept; becomes 400 in the caller's format
|-- MalformedAnswer           an upstream sent what its own format does not allow
`-- UpstreamError             an attempt at an upstream failed below HTTP
    |-- ConnectFailed         no connection: name, port, TLS
    |-- Withdrawn             the request was not sent after all: nobody wants it any more
    |-- ConnectionCut         the connection ended before the answer did
    |-- GarbageReceived       not HTTP
    `-- TimedOut              one of the call's time-outs passed; says which

Refusals (denied before any money was spent) are values, not exceptions: `holdfast.wire.call.Refusal`.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal

TimeoutKind = Literal["connect", "first_token", "first_byte", "answer", "idle", "token_rate", "total"]


class HoldfastError(Exception):
    """Base of all errors that Holdfast raises on purpose; its text is one sentence for a person."""


class UsageError(HoldfastError):
    pass


class ConfigError(HoldfastError):
    pass


class SecretError(HoldfastError):
    pass


class CannotStart(HoldfastError):  # noqa: N818 - says what happened
    """exit_code: 127 for a command that is not there, 126 for one that cannot be run, as shells have it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class CannotListen(HoldfastError):  # noqa: N818 - says what happened
    pass


class StorageError(HoldfastError):
    pass


class MalformedRequest(HoldfastError):  # noqa: N818 - the field's own word for it
    """`param` names the offending field in the caller's terms, where one is known."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class MalformedAnswer(HoldfastError):  # noqa: N818 - pairs with MalformedRequest
    pass


class UpstreamError(HoldfastError):
    pass


class ConnectFailed(UpstreamError):  # noqa: N818 - says what happened
    pass


class Withdrawn(UpstreamError):  # noqa: N818 - says what happened
    pass


class ConnectionCut(UpstreamError):  # noqa: N818 - says what happened
    pass


class GarbageReceived(UpstreamError):  # noqa: N818 - says what happened
    pass


class TimedOut(UpstreamError):  # noqa: N818 - says what happened
    def __init__(self, kind: TimeoutKind, after_ns: int) -> None:
        super().__init__(f"{kind} time-out after {after_ns / 1e9:g} s")
        self.kind: TimeoutKind = kind
        self.after_ns = after_ns


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the known one that is nearest to it, or all of them."""
    words = sorted(known)
    nearest = get_close_matches(word, words, n=1)
    if nearest:
        return f'; did you mean "{nearest[0]}"?'
    return f"; known here: {', '.join(words)}" if words else ""
