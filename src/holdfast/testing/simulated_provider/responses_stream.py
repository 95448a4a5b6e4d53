"""OpenAI Responses as server-sent events: every item is added, said piece by piece, and done."""

from collections.abc import Iterator

import msgspec

from holdfast.testing.simulated_provider.answer import Answer, Reply, Streamed, json_tokens, logprobs
from holdfast.testing.simulated_provider.responses import Json, completed, items, part, response

_encode = msgspec.json.encode


def streamed(reply: Reply) -> Streamed:
    """The answer as the events of the Responses API, numbered from 0."""
    return _Events(reply).streamed()


class _Events:
    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._answer: Answer = reply.answers[0]
        self._number = -1

    def streamed(self) -> Streamed:
        begun = response(self._reply, "in_progress")
        opening = self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)
        return Streamed(opening, self._pieces(), self._closing, self._error)

    def _closing(self) -> bytes:
        done = completed(self._reply)
        return self._event(f"response.{done['status']}", response=done)

    def _error(self, message: str) -> bytes:
        return self._event("error", code="server_error", message=message, param=None)

    def _event(self, kind: str, **fields: object) -> bytes:
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, "sequence_number": self._number, **fields}))

    def _pieces(self) -> Iterator[tuple[bytes, int]]:
        for index, (item, text) in enumerate(items(self._reply)):
            match item["type"]:
                case "message":
                    yield from self._message(index, item, text)
                case "reasoning":
                    yield from self._reasoning(index, item, text)
                case _:
                    yield from self._call(index, item, text)

    def _message(self, index: int, item: Json, text: str) -> Iterator[tuple[bytes, int]]:
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        refused, likely = self._answer.refused, self._reply.prompt.logprobs
        empty = part(Answer(refused=refused), likely=False)
        added = self._event("response.output_item.added", output_index=index, item={**item, "status": "in_progress", "content": []})
        yield added + self._event("response.content_part.added", **place, part=empty), 0
        kind = "response.refusal" if refused else "response.output_text"
        yield from self._tokens(f"{kind}.delta", place, text, None if refused else likely)
        said: Json = {"refusal": text} if refused else {"text": text, "logprobs": logprobs(text) if likely else []}
        whole = part(self._answer, likely=likely)
        done = self._event(f"{kind}.done", **place, **said) + self._event("response.content_part.done", **place, part=whole)
        yield done + self._event("response.output_item.done", output_index=index, item=item), 0

    def _reasoning(self, index: int, item: Json, text: str) -> Iterator[tuple[bytes, int]]:
        place = {"item_id": item["id"], "output_index": index, "summary_index": 0}
        empty, whole = ({"type": "summary_text", "text": said} for said in ("", text))
        added = self._event("response.output_item.added", output_index=index, item={**item, "summary": []})
        if self._answer.hidden:
            yield added + self._event("response.output_item.done", output_index=index, item=item), self._answer.reasoning_tokens
            return
        yield added + self._event("response.reasoning_summary_part.added", **place, part=empty), 0
        yield from self._tokens("response.reasoning_summary_text.delta", place, text)
        done = self._event("response.reasoning_summary_text.done", **place, text=text)
        done += self._event("response.reasoning_summary_part.done", **place, part=whole)
        yield done + self._event("response.output_item.done", output_index=index, item=item), 0

    def _call(self, index: int, item: Json, text: str) -> Iterator[tuple[bytes, int]]:
        place = {"item_id": item["id"], "output_index": index}
        custom = item["type"] == "custom_tool_call"
        field = "input" if custom else "arguments"
        kind = "response.custom_tool_call_input" if custom else "response.function_call_arguments"
        begun = {**item, "status": "in_progress", field: ""}
        yield self._event("response.output_item.added", output_index=index, item=begun), len(json_tokens(str(item["name"])))
        yield from self._tokens(f"{kind}.delta", place, text)
        done = self._event(f"{kind}.done", **place, **{field: text})
        yield done + self._event("response.output_item.done", output_index=index, item=item), 0

    def _tokens(self, kind: str, place: Json, text: str, likely: bool | None = None) -> Iterator[tuple[bytes, int]]:
        """Deltas, assembled by hand: they are nearly all of a stream. likely: log-probabilities, none, or (None) no such field."""
        head = b'event: %b\ndata: {"type":"%b",%b,' % (kind.encode(), kind.encode(), _encode(place)[1:-1])
        for token in json_tokens(text):
            self._number += 1
            extra = b"" if likely is None else b',"logprobs":[]'
            if likely:
                extra = b',"logprobs":%b' % _encode(logprobs(msgspec.json.decode(token, type=str)))
            yield b'%b"delta":%b,"sequence_number":%d%b}\n\n' % (head, token, self._number, extra), 1
