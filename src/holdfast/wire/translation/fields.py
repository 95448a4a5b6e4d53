"""Takes the fields of a request apart so that none is lost: what nobody took is refused by its name.

`Rule` says of every field of a format's request what becomes of it; the tables of the formats are lists of them, and the manual's too.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from holdfast.wire.request_body import NULL, checked, read_fields
from holdfast.wire.translation import Untranslatable


class Rule(Struct, frozen=True):
    """kind: translated; left out because it changes neither what is asked nor what may be answered; refused. unless: values of a refused
    field that ask for nothing."""

    kind: Literal["translated", "left out", "refused"]
    reason: str = ""
    unless: tuple[bytes, ...] = ()


TRANSLATED = Rule("translated")


def left_out(reason: str) -> Rule:
    return Rule("left out", reason)


def refused(reason: str, *unless: bytes) -> Rule:
    return Rule("refused", reason, unless)


Table = Mapping[str, Rule]

_LEAST_IN_RESPONSES = 16
"""OpenAI refuses a smaller `max_output_tokens` with a 400, which would end the call."""

_text = msgspec.json.Decoder(str).decode
_integer = msgspec.json.Decoder(int).decode
_number = msgspec.json.Decoder(float).decode
_flag = msgspec.json.Decoder(bool).decode
_items = msgspec.json.Decoder(list[Raw]).decode
_object = msgspec.json.Decoder(dict[str, Raw]).decode
_names = msgspec.json.Decoder(list[str]).decode


class Fields:
    """The fields of one JSON object, taken by name and type; null is absent. Raises MalformedRequest for what has another type.

    at: where the object stands in the caller's request.
    """

    def __init__(self, fields: Mapping[str, Raw], at: str = "") -> None:
        self.at = at
        self._fields = {name: value for name, value in fields.items() if value != NULL}

    @classmethod
    def of_body(cls, body: bytes) -> "Fields":
        return cls(read_fields(body))

    @classmethod
    def of(cls, raw: Raw, at: str) -> "Fields":
        return cls(checked(_object, raw, at), at)

    def path(self, name: str) -> str:
        return f"{self.at}.{name}" if self.at else name

    def raw(self, name: str) -> Raw | None:
        return self._fields.pop(name, None)

    def text(self, name: str) -> str | None:
        return None if (raw := self.raw(name)) is None else checked(_text, raw, self.path(name))

    def integer(self, name: str) -> int | None:
        return None if (raw := self.raw(name)) is None else checked(_integer, raw, self.path(name))

    def number(self, name: str) -> Raw | None:
        """As it was written."""
        if (raw := self.raw(name)) is not None:
            checked(_number, raw, self.path(name))
        return raw

    def flag(self, name: str) -> bool | None:
        return None if (raw := self.raw(name)) is None else checked(_flag, raw, self.path(name))

    def names(self, name: str) -> list[str]:
        return [] if (raw := self.raw(name)) is None else checked(_names, raw, self.path(name))

    def child(self, name: str) -> "Fields | None":
        return None if (raw := self.raw(name)) is None else Fields.of(raw, self.path(name))

    def each(self, name: str) -> list[tuple[Raw, str]]:
        """Its elements, and where each stands."""
        raw = self.raw(name)
        return [] if raw is None else elements(raw, self.path(name))

    def texts_or_parts(self, name: str) -> str | list["Fields"]:
        """Content: one text, or parts."""
        raw = self.raw(name)
        if raw is None:
            return ""
        at = self.path(name)
        return checked(_text, raw, at) if bytes(raw).startswith(b'"') else [Fields.of(part, where) for part, where in elements(raw, at)]

    def leave(self, *names: str) -> None:
        """Left out on purpose."""
        for name in names:
            self._fields.pop(name, None)

    def apply(self, table: Table, target: str) -> None:
        """Leave out and refuse as the table says; fields that it does not know are refused."""
        for name, value in list(self._fields.items()):
            rule = table.get(name)
            if rule is None:
                raise unknown(self.path(name), target)
            if rule.kind == "left out" or (rule.kind == "refused" and bytes(value) in rule.unless):
                del self._fields[name]
            elif rule.kind == "refused":
                raise no_place(self.path(name), target, rule.reason)

    def refuse_rest(self, target: str) -> None:
        """Call it when all that is known was taken."""
        for name in self._fields:
            raise unknown(self.path(name), target)

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)


def elements(raw: Raw, at: str) -> list[tuple[Raw, str]]:
    return [(element, f"{at}[{index}]") for index, element in enumerate(checked(_items, raw, at))]


def output_bound(tokens: int | None, field: str, target: str) -> int | None:
    """A bound of generated tokens for the target; None where there is none, or one that bounds nothing."""
    if tokens is None or tokens < 1:
        return None
    if target == "openai-responses" and tokens < _LEAST_IN_RESPONSES:
        raise no_place(field, target, f"fewer than {_LEAST_IN_RESPONSES} tokens cannot be asked for there")
    return tokens


def unknown(field: str, target: str) -> Untranslatable:
    return no_place(field, target, "the field is not known here, and nothing is dropped unread")


def no_place(field: str, target: str, reason: str) -> Untranslatable:
    return Untranslatable(f"{field} cannot be translated to {target}: {reason}. Leave it out, or name a target of the same format.", field)
