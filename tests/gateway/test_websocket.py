"""A WebSocket, in which calls could not be limited one by one, is refused so that clients go over to plain HTTP."""

import http.client
import json
from pathlib import Path

import pytest
from msgspec import structs

from holdfast.gateway.options import Passthrough
from holdfast.testing.gateway import gateway_in_thread, options_for
from holdfast.testing.simulated_provider import SimulatedProvider, running_in_thread

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAECAwQFBgcICQoLDA0ODw==",
}


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/realtime?model=gpt-realtime"])
def test_a_websocket_is_refused_even_where_the_path_is_let_through(tmp_path: Path, path: str) -> None:
    with running_in_thread(SimulatedProvider().application) as upstream:
        options = options_for(upstream, folder=tmp_path)
        let_through = (Passthrough(path="/v1/realtime", price=0),)
        options = structs.replace(options, providers=tuple(structs.replace(one, passthrough=let_through) for one in options.providers))
        with gateway_in_thread(options, tmp_path / "data") as gateway:
            connection = http.client.HTTPConnection(gateway.host, gateway.port)
            connection.request("GET", path, headers=HANDSHAKE)
            answer = connection.getresponse()
            error = json.loads(answer.read())["error"]
            connection.close()
    assert (answer.status, error["code"]) == (426, "websocket")
