"""OpenAI Responses: numbered events about numbered output items, whose whole text comes once more when they are done."""

from holdfast.wire.splice.events import EventStream, Fields, named, with_more

_HEADS = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_CONTINUABLE = frozenset({"message", "reasoning"})


class _Item:
    """An output item of the agent's answer. before: text that earlier streams gave it."""

    def __init__(self, item: Fields, index: int) -> None:
        self.id = item.get("id")
        self.kind = item.get("type")
        self.index = index
        self.before = self.text = ""


class ResponsesSplice:
    def __init__(self, body: bytes) -> None:
        self.said = ""
        self.can_continue = True
        self._body = body
        self._response: Fields = {}
        self._number = 0
        self._next = 0
        self._done: list[Fields] = []
        self._earlier: list[Fields] = []  # those that were done before the later stream began
        self._item: _Item | None = None  # begun and not done
        self._mapped: dict[int, _Item] = {}  # by the later stream's own index
        self._observed, self._resumed = EventStream(), EventStream()

    def observe(self, data: bytes) -> None:
        for _, event in self._observed.events(data):
            if event is not None:
                self._number = max(self._number, event.get("sequence_number", -1) + 1)
                if event.get("type") in _HEADS:
                    self._response = self._response or event.get("response") or {}
                self._note(event)

    def request(self) -> bytes:
        self._mapped.clear()
        self._earlier = list(self._done)
        if self._item is not None:
            self._item.before = self._item.text
        return with_more(self._body, "input", self.said)

    def resume(self, data: bytes) -> bytes:
        passed: list[bytes] = []
        for event, fields in self._resumed.events(data):
            if fields is None or "type" not in fields:
                passed.append(event.raw)
            elif fields["type"] not in _HEADS:
                for each in self._continued(fields):
                    each["sequence_number"] = self._number
                    self._number += 1
                    passed.append(named(each["type"], each))
        return b"".join(passed)

    def _continued(self, event: Fields) -> list[Fields]:
        """The event as the agent is to get it, perhaps after others, perhaps not at all."""
        kind = event["type"]
        if kind in _ENDS:
            self.can_continue = False
            return [self._ended(event)]
        theirs = event.get("output_index")
        if theirs is None:
            return [event]
        if kind == "response.output_item.added":
            return self._added(theirs, event)
        item = self._mapped.get(theirs)
        if item is None:
            return [event]
        event["output_index"] = item.index
        if "item_id" in event:
            event["item_id"] = item.id
        joined = bool(item.before)
        if joined and kind == "response.content_part.added":
            return []
        if joined:
            _join(event, item)
        self._note(event)
        return [event]

    def _added(self, theirs: int, event: Fields) -> list[Fields]:
        item = event.get("item") or {}
        if self._item is not None and self._item.kind == item.get("type") == "message" and self._item.before:
            self._mapped[theirs] = self._item
            return []
        closing = self._close()
        event["output_index"] = self._next
        self._note(event)
        assert self._item is not None
        self._mapped[theirs] = self._item
        return [*closing, event]

    def _close(self) -> list[Fields]:
        """What ends an item that an earlier stream left open."""
        item = self._item
        if item is None or item.kind != "message":
            return []
        at = {"item_id": item.id, "output_index": item.index, "content_index": 0}
        part = {"type": "output_text", "text": item.text, "annotations": [], "logprobs": []}
        whole = {"id": item.id, "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        self._done.append(whole)
        self._earlier.append(whole)
        self._item = None
        return [
            {"type": "response.output_text.done", **at, "text": item.text, "logprobs": []},
            {"type": "response.content_part.done", **at, "part": part},
            {"type": "response.output_item.done", "output_index": item.index, "item": whole},
        ]

    def _ended(self, event: Fields) -> Fields:
        """The whole response once more, as the agent has come to know it."""
        response = event.get("response") or {}
        for index, item in enumerate(response.get("output") or ()):
            mapped = self._mapped.get(index)
            if mapped is not None:
                _rename(item, mapped)
        response["output"] = [*self._earlier, *(response.get("output") or ())]
        response.update({name: self._response[name] for name in ("id", "created_at", "model") if name in self._response})
        event["response"] = response
        return event

    def _note(self, event: Fields) -> None:
        kind = event.get("type")
        if kind == "response.output_item.added":
            item = event.get("item") or {}
            self._item = _Item(item, event.get("output_index", self._next))
            self._next = self._item.index + 1
            if item.get("type") not in _CONTINUABLE:
                self.can_continue = False
        elif kind == "response.output_text.delta":
            self.said += event.get("delta") or ""
            if self._item is not None:
                self._item.text += event.get("delta") or ""
        elif kind == "response.output_item.done":
            self._done.append(event.get("item") or {})
            self._item = None
        elif kind in _ENDS or kind == "response.refusal.delta":
            self.can_continue = False


def _join(event: Fields, item: _Item) -> None:
    """Put what earlier streams said of an item before what an event says is all of it."""
    if event["type"] == "response.output_text.done":
        event["text"] = item.before + (event.get("text") or "")
    elif event["type"] == "response.content_part.done":
        _prefix(event.get("part") or {}, item)
    elif event["type"] == "response.output_item.done":
        _rename(event.get("item") or {}, item)


def _rename(whole: Fields, item: _Item) -> None:
    whole["id"] = item.id
    content = whole.get("content")
    if content and item.before:
        _prefix(content[0], item)


def _prefix(part: Fields, item: _Item) -> None:
    if part.get("type") == "output_text":
        part["text"] = item.before + (part.get("text") or "")
