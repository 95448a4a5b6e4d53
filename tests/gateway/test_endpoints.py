"""Which paths are guarded, and which may be relayed unread."""

from collections.abc import Callable

import pytest

from holdfast.gateway.endpoints import endpoint, is_relayable
from holdfast.testing.memory_gateway import MemoryGateway


@pytest.mark.parametrize("path", [b"/v1/messages", b"/messages", b"/v1/messages/count_tokens", b"/v1/chat/completions", b"/responses"])
def test_a_guarded_path_is_guarded_with_and_without_its_version(path: bytes) -> None:
    found = endpoint(b"POST", path, "openai")
    assert found is not None
    assert found.format is not None


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/chat/completions/",
        b"/v1//chat/completions",
        b"/v1/%63hat/completions",
        b"/v1/files/../chat/completions",
        b"/V1/Chat/Completions",
        b"/messages",
        b"/v1/files/%2e%2e/chat",
        b"/v1/files\\..\\chat",
    ],
)
def test_no_guarded_path_in_disguise_is_relayed(path: bytes) -> None:
    assert not is_relayable(path)


@pytest.mark.parametrize("path", [b"/v1/files", b"/v1/files/file-123/content", b"/v1/vector_stores/vs_1"])
def test_plain_other_paths_may_be_relayed(path: bytes) -> None:
    assert is_relayable(path)
    assert endpoint(b"POST", path, "openai") is None


def test_a_compressed_body_is_refused_with_the_way_out(gateway: Callable[[str], MemoryGateway]) -> None:
    plane = gateway("")
    response = plane.call("POST", "/v1/responses", b"\x28\xb5\x2f\xfd", {"content-encoding": "zstd"})
    assert response.status == 415
    assert b"zstd" in response.body
    assert b"compression off" in response.body
