"""Answers that are none: not JSON, JSON of another shape, not HTTP."""

from holdfast.execution.upstream import Headers
from holdfast.http.message import Response
from holdfast.testing.simulated_provider.behaviour import Ending

_TYPES = {False: b"application/json", True: b"text/event-stream"}
_BODIES = {
    False: {"garbage": b'{"choices": [{"message": {"content": "half an ans', "garbage_shape": b'["not", "an", "answer"]'},
    True: {
        "garbage": b'event: content_block_delta\ndata: {"choices": [{"delta": {"content": "half\n\n',
        "garbage_shape": b'event: content_block_delta\ndata: ["not", "an", "event"]\n\n',
    },
}
"""By streaming or not. Clients of Anthropic look only at events with a name; those of OpenAI do not mind one."""


def send_garbage(response: Response, ending: Ending, *, stream: bool) -> None:
    """A status 200 with nothing behind it that a client can use."""
    headers: Headers = ((b"content-type", _TYPES[stream]),)
    if ending == "garbage_http":
        headers = ((b"\x00\xff not a header", b"\x00"),)
    response.send(200, headers, _BODIES[stream].get(ending, b"\x00"))
