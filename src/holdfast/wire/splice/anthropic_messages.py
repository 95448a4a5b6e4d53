"""Anthropic Messages: one message, its content in numbered blocks, of which the last may have been open when the stream broke off."""

from holdfast.wire.splice.events import EventStream, Fields, named, with_more

_CONTINUABLE = frozenset({"text", "thinking", "redacted_thinking"})


class MessagesSplice:
    def __init__(self, body: bytes) -> None:
        self.said = ""
        self.can_continue = True
        self._body = body
        self._open: Fields | None = None  # the block that has begun and not ended, with its index
        self._next = 0
        self._indices: dict[int, int] = {}  # of the blocks of the later stream, as the agent knows them
        self._observed, self._resumed = EventStream(), EventStream()

    def observe(self, data: bytes) -> None:
        for _, event in self._observed.events(data):
            if event is not None:
                self._note(event)

    def request(self) -> bytes:
        self._indices.clear()
        return with_more(self._body, "messages", self.said)

    def resume(self, data: bytes) -> bytes:
        passed: list[bytes] = []
        for event, fields in self._resumed.events(data):
            kind = "" if fields is None else str(fields.get("type"))
            if fields is None or not kind.startswith(("message_start", "content_block_")):
                passed.append(event.raw)
                if fields is not None:
                    self._note(fields)
            elif kind == "content_block_start":
                passed.append(self._begin(fields))
            elif kind != "message_start":
                fields["index"] = self._indices.get(fields.get("index", 0), fields.get("index"))
                passed.append(named(kind, fields))
                self._note(fields)
        return b"".join(passed)

    def _begin(self, fields: Fields) -> bytes:
        """A block of the later stream: the rest of the open one where both are text, else a new one."""
        theirs, block = fields.get("index", 0), fields.get("content_block") or {}
        opened = self._open
        if opened is not None and theirs not in self._indices and opened["type"] == block.get("type") == "text":
            self._indices[theirs] = opened["index"]
            self._note({"type": "content_block_delta", "delta": block})
            return b""
        ended = b""
        if opened is not None:
            ended = named("content_block_stop", {"type": "content_block_stop", "index": opened["index"]})
        self._indices[theirs] = fields["index"] = self._next
        self._note(fields)
        return ended + named("content_block_start", fields)

    def _note(self, event: Fields) -> None:
        kind = event.get("type")
        if kind == "content_block_start":
            block = event.get("content_block") or {}
            self._open = {"type": block.get("type"), "index": event.get("index", self._next)}
            self._next = self._open["index"] + 1
            self.said += block.get("text") or ""
            if block.get("type") not in _CONTINUABLE:
                self.can_continue = False
        elif kind == "content_block_delta":
            self.said += (event.get("delta") or {}).get("text") or ""
        elif kind == "content_block_stop":
            self._open = None
        elif kind == "message_stop" or (kind == "message_delta" and (event.get("delta") or {}).get("stop_reason")):
            self.can_continue = False
