"""The agents of `bench/chaos.py`: conversations in three formats, streamed or not, with tools, one call at a time each."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from random import Random
from typing import Any

from exchange import PATHS, Lines, Reply

from holdfast.errors import HoldfastError
from holdfast.wire import anthropic_messages, openai_chat, openai_responses
from holdfast.wire.call import Answer, Rewrite, WireFormat

MODELS = ("sim-ok", "sim-echo", "sim-tool", "sim-tools-parallel", "sim-loop", "sim-reasoning", "sim-stream-15-10", "sim-tokens-60")
WITH_TOOLS = frozenset({"sim-tool", "sim-tools-parallel", "sim-loop"})
FORMATS: dict[str, WireFormat] = {"chat": openai_chat.FORMAT, "responses": openai_responses.FORMAT, "messages": anthropic_messages.FORMAT}
TOTAL_S, TOOL_TOTAL_S = 8.0, 3.0
"""The agents' total time-outs, as in the configuration."""
GRACE_S = 1.0
"""How late an end may be seen here: the machine is shared with everything that is measured."""

_SCHEMA = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
_NAMES = ("look_up_order", "cancel_order")
TOOLS: dict[str, list[Any]] = {
    "chat": [{"type": "function", "function": {"name": name, "description": name, "parameters": _SCHEMA}} for name in _NAMES],
    "responses": [{"type": "function", "name": name, "description": name, "parameters": _SCHEMA} for name in _NAMES],
    "messages": [{"name": name, "description": name, "input_schema": _SCHEMA} for name in _NAMES],
}
AGENTS = ("steady", "spoken", "queueing")


@dataclass(slots=True)
class Call:
    """One call of an agent. kind: a format, or `GET` or `POST` of a tool. ending: see `exchange.Reply`, or `late`. took_s: from its sending
    to its end."""

    id: str
    agent: str
    kind: str
    stream: bool
    ending: str
    status: int
    took_s: float
    allowed_s: float
    decision: str = ""
    served_by: str = ""
    refusal: str = ""


@dataclass
class Traffic:
    """Everything that was called, and the connections it went over."""

    gateway: int
    seed: int
    calls: list[Call] = field(default_factory=list)
    stopped: bool = False

    def __post_init__(self) -> None:
        self._lines = Lines(self.gateway)

    async def run(self, conversations: int) -> None:
        """`conversations` at a time, until `stopped`; returns when the last call has ended."""
        try:
            await asyncio.gather(*(self._agent(number) for number in range(conversations)))
        finally:
            self._lines.close()

    async def _agent(self, number: int) -> None:
        """One conversation after the other."""
        random = Random(self.seed * 1000 + number)
        await asyncio.sleep(random.random())
        spoken = 0
        while not self.stopped:
            spoken += 1
            await self._converse(f"{number}-{spoken}", random)

    async def _converse(self, name: str, random: Random) -> None:
        conversation = _Conversation(
            name=name,
            kind=random.choice(tuple(FORMATS)),
            stream=random.random() < 0.5,
            model=random.choice(MODELS),
            agent=random.choice(AGENTS),
        )
        for _ in range(random.randint(1, 6)):
            conversation.ask(f"What became of order {random.randrange(1000)}? " + "Please look carefully. " * random.randrange(20))
            answer = await self._turn(conversation, random)
            if answer is None or self.stopped:
                return
            conversation.say(answer)
            for used in answer.tool_calls:
                if await self._use_tool(conversation, random) is None:
                    return
                conversation.result(used.id, "shipped")

    async def _turn(self, conversation: "_Conversation", random: Random) -> Answer | None:
        """The model's next answer; an agent tries once more, as a new call, when it gets none."""
        for _ in range(2):
            await asyncio.sleep(random.uniform(0.3, 1.5))
            if self.stopped:
                break
            call_id = conversation.next_id()
            message = conversation.request(self.gateway, call_id)
            reply = await self._call(call_id, conversation, conversation.kind, message, TOTAL_S)
            if reply is not None and reply.ending(conversation.kind, stream=conversation.stream) == "answer":
                return conversation.read(reply)
        return None

    async def _use_tool(self, conversation: "_Conversation", random: Random) -> Reply | None:
        call_id = conversation.next_id()
        kind = "GET" if random.random() < 0.6 else "POST"
        reply = await self._call(call_id, conversation, kind, conversation.tool_request(self.gateway, call_id, kind), TOOL_TOTAL_S)
        return reply if reply is not None and reply.status == 200 and reply.whole else None

    async def _call(self, call_id: str, conversation: "_Conversation", kind: str, message: bytes, allowed_s: float) -> Reply | None:
        stream = conversation.stream and kind in FORMATS
        began, reply, status = time.monotonic(), None, 0
        try:
            reply = await self._lines.call(message, allowed_s + 10)
            ending, status = _tool_ending(reply) if kind not in FORMATS else reply.ending(kind, stream=stream), reply.status
        except TimeoutError:
            ending = "late"
        except OSError as error:
            ending = f"no connection to the gateway: {error.strerror}"
        call = Call(call_id, conversation.agent, kind, stream, ending, status, time.monotonic() - began, allowed_s)
        if reply is not None:
            call.decision, call.served_by = reply.header("x-holdfast-decision"), reply.header("x-holdfast-served-by")
            call.refusal = reply.header("x-holdfast-refusal")
        self.calls.append(call)
        return reply


def _tool_ending(reply: Reply) -> str:
    if not reply.whole:
        return "cut"
    return "answer" if reply.status == 200 else "refused" if reply.header("x-holdfast-refusal") else "error"


class _Conversation:
    def __init__(self, name: str, kind: str, stream: bool, model: str, agent: str) -> None:
        self.kind, self.stream, self.agent = kind, stream, agent
        self._name, self._model = name, model
        self._messages: list[Any] = []
        self._calls = 0

    def next_id(self) -> str:
        self._calls += 1
        return f"{self._name}-{self._calls}"

    def ask(self, text: str) -> None:
        self._messages.append({"role": "user", "content": text})

    def say(self, answer: Answer) -> None:
        """Keep an answer as this format keeps it."""
        calls, text = answer.tool_calls, answer.text or answer.refusal or "…"
        if self.kind == "chat":
            told = [{"id": used.id, "type": "function", "function": {"name": used.name, "arguments": used.arguments}} for used in calls]
            self._messages.append({"role": "assistant", "content": text} | ({"tool_calls": told} if told else {}))
        elif self.kind == "messages":
            blocks: list[Any] = [{"type": "text", "text": text}]
            blocks += [{"type": "tool_use", "id": used.id, "name": used.name, "input": json.loads(used.arguments)} for used in calls]
            self._messages.append({"role": "assistant", "content": blocks})
        else:
            self._messages.append({"role": "assistant", "content": text})
            self._messages += [
                {"type": "function_call", "call_id": used.id, "name": used.name, "arguments": used.arguments} for used in calls
            ]

    def result(self, tool_call: str, text: str) -> None:
        if self.kind == "chat":
            self._messages.append({"role": "tool", "tool_call_id": tool_call, "content": text})
        elif self.kind == "responses":
            self._messages.append({"type": "function_call_output", "call_id": tool_call, "output": text})
        else:
            result = {"type": "tool_result", "tool_use_id": tool_call, "content": text}
            last = self._messages[-1]
            if last["role"] == "user":
                last["content"].append(result)
            else:
                self._messages.append({"role": "user", "content": [result]})

    def request(self, port: int, call_id: str) -> bytes:
        body: dict[str, Any] = {"model": self._model, "stream": self.stream}
        body |= {"input": self._messages, "max_output_tokens": 500} if self.kind == "responses" else {"messages": self._messages}
        if self.kind == "messages":
            body |= {"max_tokens": 500, "metadata": {"user_id": call_id}}
        else:
            body["user"] = call_id
        if self._model in WITH_TOOLS:
            body["tools"] = TOOLS[self.kind]
        return self._message(port, "POST", PATHS[self.kind], call_id, f"user-{self._name}", json.dumps(body).encode())

    def tool_request(self, port: int, call_id: str, method: str) -> bytes:
        body = b'{"order": "17"}' if method == "POST" else b""
        path = "/tools/orders/orders" if method == "POST" else "/tools/orders/orders/17"
        return self._message(port, method, path, call_id, call_id, body)

    def _message(self, port: int, method: str, path: str, call_id: str, user: str, body: bytes) -> bytes:
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {self.agent}\r\n"
            f"content-type: application/json\r\nx-sim-id: {call_id}\r\nx-holdfast-user: {user}\r\n"
            f"x-holdfast-interaction: {self._name}\r\ncontent-length: {len(body)}\r\n"
        )
        if self.kind == "messages":
            head += "anthropic-version: 2023-06-01\r\n"
        return head.encode() + b"\r\n" + body

    def read(self, reply: Reply) -> Answer | None:
        """The answer, None for one that makes no sense."""
        wire_format, request = FORMATS[self.kind], self.request(0, "read")
        try:
            if not reply.header("content-type").startswith("text/event-stream"):
                return wire_format.answer(reply.body)
            reader = wire_format.stream(wire_format.parse(request.partition(b"\r\n\r\n")[2]), Rewrite())
            reader.feed(reply.body)
            return reader.answer()
        except HoldfastError:
            return None
