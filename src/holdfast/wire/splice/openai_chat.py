"""Chat Completions: every chunk of a stream carries the same id, and the role comes once."""

from holdfast.wire.splice.events import EventStream, Fields, unnamed, with_more

_SAME = ("id", "created", "model", "system_fingerprint")


class ChatSplice:
    def __init__(self, body: bytes) -> None:
        self.said = ""
        self.can_continue = True
        self._body = body
        self._first: Fields = {}
        self._observed, self._resumed = EventStream(), EventStream()

    def observe(self, data: bytes) -> None:
        for _, chunk in self._observed.events(data):
            if chunk is not None:
                if not self._first:
                    self._first = {name: chunk[name] for name in _SAME if name in chunk}
                self._note(chunk)

    def request(self) -> bytes:
        return with_more(self._body, "messages", self.said)

    def resume(self, data: bytes) -> bytes:
        passed: list[bytes] = []
        for event, chunk in self._resumed.events(data):
            if chunk is None or "error" in chunk:
                passed.append(event.raw)
                continue
            self._note(chunk)
            chunk.update(self._first)
            if _without_role(chunk):
                passed.append(unnamed(chunk))
        return b"".join(passed)

    def _note(self, chunk: Fields) -> None:
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            self.said += delta.get("content") or ""
            if (
                choice.get("index")
                or choice.get("finish_reason")
                or any(delta.get(key) for key in ("tool_calls", "function_call", "refusal"))
            ):
                self.can_continue = False


def _without_role(chunk: Fields) -> bool:
    """Take the role out, which was said; whether anything is left to say."""
    choices = chunk.get("choices")
    if not choices:
        return True
    for choice in choices:
        if (choice.get("delta") or {}).pop("role", None) is None:
            return True
    return any(any(choice["delta"].values()) or choice.get("finish_reason") for choice in choices)
