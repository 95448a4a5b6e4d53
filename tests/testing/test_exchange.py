from holdfast.testing import MemoryResponse, request


def test_a_request_is_built_as_a_server_would_parse_it() -> None:
    built = request("POST", "/v1/messages?beta=true", {"a": 1}, {"X-Api-Key": "k"})
    assert (built.method, built.path, built.query, built.body) == (b"POST", b"/v1/messages", b"beta=true", b'{"a":1}')
    assert built.header(b"x-api-key") == b"k"


def test_calls_after_the_client_left_do_nothing_and_leaving_is_told_once() -> None:
    response = MemoryResponse()
    told: list[int] = []
    response.disconnected = lambda: told.append(1)
    response.start(200, ())
    response.write(b"a")
    response.leave()
    response.leave()
    response.write(b"b")
    response.end()
    assert (response.status, response.body, response.ended, told) == (200, b"a", False, [1])


def test_leaving_after_the_end_tells_nobody() -> None:
    response = MemoryResponse()
    told: list[int] = []
    response.disconnected = lambda: told.append(1)
    response.send(200, (), b"{}")
    response.leave()
    assert (response.ended, told) == (True, [])
