"""A stream that breaks off after its first token and is gone on with by another target, where the agent's configuration asks for that."""

from holdfast.errors import GarbageReceived
from holdfast.execution.attempt import AttemptResult
from holdfast.wire.call import Answer, Call, Rewrite, WireFormat
from holdfast.wire.translation import splice


class Continuation:
    """Follows what the agent gets of one streamed answer. The whole of it is read once more, as one answer, for the record."""

    def __init__(self, joined: splice.Continuation, wire_format: WireFormat, call: Call) -> None:
        self._splice = joined
        self._reader = wire_format.stream(call, Rewrite())
        self._resumed = False

    @property
    def possible(self) -> bool:
        """Whether another target can go on with it."""
        return self._splice.can_continue

    def request(self) -> bytes:
        """What the next target is asked, in the agent's format; what comes from here on is the later stream's."""
        self._resumed = True
        return self._splice.request()

    def passed(self, data: bytes) -> bytes:
        """What the agent is to get for the next bytes of the attempt that is under way."""
        if self._resumed:
            data = self._splice.resume(data)
        else:
            self._splice.observe(data)
        self._reader.feed(data)
        return data

    def ended(self, result: AttemptResult, answer: Answer | None) -> Answer | None:
        """The attempt under way is over: its last bytes as the agent is to get them; returns the answer in one piece."""
        whole = answer is not None and answer.complete and result.error is None
        if self._resumed and result.stream is None:
            if result.error is None and result.status < 400:
                result.error = GarbageReceived("no event stream, where the rest of one was asked for")
        elif self._resumed and not (result.committed or whole):  # another attempt takes its place, and nothing of it was passed on
            result.held = b""
        elif self._resumed:
            result.held = self.passed(result.held)
        elif whole:
            self._reader.feed(result.held)
        if answer is None:
            return None
        joined = self._reader.answer()
        joined.usage, joined.complete = answer.usage, answer.complete
        return joined


def continuation_of(wire_format: WireFormat | None, call: Call, body: bytes, begun: bytes) -> Continuation | None:
    """For a streamed answer to `body` of which `begun` has come; None where it cannot be continued."""
    joined = None if wire_format is None or not call.stream else splice.continuation(wire_format.name, body)
    if joined is None or wire_format is None:
        return None
    continuation = Continuation(joined, wire_format, call)
    continuation.passed(begun)
    return continuation
