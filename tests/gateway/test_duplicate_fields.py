"""A body in which a field comes twice: the upstream reads the value that was checked, and no other."""

from collections.abc import Callable

import msgspec
import pytest

from holdfast.testing.memory_gateway import MemoryGateway

BODIES = {
    "/v1/chat/completions": b'{"model":"m","max_tokens":9000,"messages":[{"role":"user","content":"hello"}]%b}',
    "/v1/responses": b'{"model":"m","max_tokens":9000,"input":"hello"%b}',
    "/v1/messages": b'{"model":"m","max_tokens":9000,"messages":[{"role":"user","content":"hello"}]%b}',
    "/v1/embeddings": b'{"model":"m","max_tokens":9000,"input":"hello"%b}',
}


def sent(world: MemoryGateway, path: str, body: bytes) -> bytes:
    world.call("POST", path, body)
    return world.upstream.latest.request.body


@pytest.mark.parametrize("space", [b"", b" ", b"\n  "])
@pytest.mark.parametrize("path", BODIES)
def test_of_a_field_that_comes_twice_only_the_last_goes_out(gateway: Callable[[str], MemoryGateway], path: str, space: bytes) -> None:
    out = sent(gateway("agents: {a: {}}"), path, BODIES[path] % (b',%b"max_tokens":%b10' % (space, space)))
    assert out.count(b"max_tokens") == 1
    assert msgspec.json.decode(out)["max_tokens"] == 10


@pytest.mark.parametrize("path", BODIES)
def test_a_body_without_such_a_field_goes_out_as_it_came(gateway: Callable[[str], MemoryGateway], path: str) -> None:
    body = BODIES[path] % b', "odd" : [1, 2]'
    assert sent(gateway("agents: {a: {}}"), path, body) is body
