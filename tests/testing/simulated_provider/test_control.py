"""Faults switched on and off while the provider runs, and its own record of what it was asked."""

from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.clock import MILLISECOND
from holdfast.testing import FakeClock, MemoryResponse, request
from holdfast.testing.simulated_provider import SimulatedProvider
from holdfast.testing.simulated_provider.faults import MAX_FAULTS
from holdfast.testing.simulated_provider.requests import KEPT

Json = Any
CHAT = "/v1/chat/completions"


class Caller:
    """A client of a provider in process."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.provider = SimulatedProvider(clock=self.clock, key="sk-1")

    def call(self, model: str, call_id: str = "", **fields: Json) -> MemoryResponse:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **fields}
        return self.send("POST", CHAT, body, {"authorization": "Bearer sk-1", "x-sim-id": call_id, "idempotency-key": f"key-{call_id}"})

    def switch(self, model: str, behaviour: str | None) -> MemoryResponse:
        return self.send("POST", "/faults", {"model": model, "behaviour": behaviour})

    def requests(self, since: int = 0) -> Json:
        return self.send("GET", f"/requests?since={since}").json()

    def send(self, method: str, target: str, body: Json = None, headers: dict[str, str] | None = None) -> MemoryResponse:
        response = MemoryResponse()
        self.provider.application(request(method, target, body, headers or {}), response)
        return response


@pytest.fixture
def caller() -> Caller:
    return Caller()


def test_a_fault_holds_for_its_model_until_it_is_ended(caller: Caller) -> None:
    assert caller.switch("sim-ok", "error-503").json() == {"sim-ok": "error-503"}
    assert (caller.call("sim-ok").status, caller.call("sim-echo").status) == (503, 200)
    assert caller.switch("sim-ok", "error-529").json() == {"sim-ok": "error-529"}
    assert caller.call("sim-ok").status == 529
    assert caller.switch("sim-ok", None).json() == {}
    assert caller.call("sim-ok").status == 200
    assert caller.switch("sim-ok", None).status == 200


def test_a_fault_of_every_model_leaves_those_with_a_fault_of_their_own(caller: Caller) -> None:
    caller.switch("*", "error-500")
    caller.switch("sim-echo", "ok")
    assert (caller.call("gpt-4o").status, caller.call("sim-echo").status) == (500, 200)
    assert caller.send("GET", "/faults").json() == {"*": "error-500", "sim-echo": "ok"}


def test_a_fault_that_says_nothing_of_its_own_leaves_the_model_its_words(caller: Caller) -> None:
    sound = caller.call("sim-tokens-37").json()["choices"]  # type: ignore[call-overload,index]
    caller.switch("sim-tokens-37", "slow-500")
    response = caller.call("sim-tokens-37")
    caller.clock.advance(500 * MILLISECOND - 1)
    assert not response.over
    caller.clock.advance(1)
    assert response.json()["choices"] == sound  # type: ignore[call-overload,index]
    caller.switch("sim-tokens-37", "refuse")
    assert caller.call("sim-tokens-37").json()["choices"][0]["message"]["refusal"]  # type: ignore[call-overload,index]


@pytest.mark.parametrize("body", [{"model": "m"}, {"model": "m", "behaviour": "eror-503"}, {"behaviour": None}, [1], b"{"])
def test_a_fault_that_is_none_is_refused_with_an_example(caller: Caller, body: Json) -> None:
    response = caller.send("POST", "/faults", body)
    assert response.status == 400
    assert b"error-503" in response.body
    assert caller.provider.faults.names == {}


def test_there_are_at_most_so_many_faults(caller: Caller) -> None:
    for number in range(MAX_FAULTS):
        caller.switch(f"m{number}", "hang")
    assert caller.switch("one-more", "hang").status == 400
    assert caller.switch("m0", "error-500").status == 200
    assert caller.switch("m1", None).status == 200
    assert caller.switch("one-more", "hang").status == 200


@pytest.mark.parametrize(("peer", "headers"), [("192.0.2.7", []), ("::2", []), ("127.0.0.1", [(b"origin", b"http://example.com")])])
def test_neither_other_machines_nor_web_pages_steer_the_provider(caller: Caller, peer: str, headers: list[tuple[bytes, bytes]]) -> None:
    for asked in (request("POST", "/faults", {"model": "*", "behaviour": "hang"}), request("GET", "/requests")):
        response = MemoryResponse()
        caller.provider.application(replace(asked, peer=peer, headers=headers), response)
        assert response.status == 403
    assert caller.provider.faults.names == {}


def test_other_methods_are_refused(caller: Caller) -> None:
    assert (caller.send("DELETE", "/faults").status, caller.send("POST", "/requests").status) == (405, 405)


def test_every_request_is_noted_with_its_id_and_its_end(caller: Caller) -> None:
    begun = caller.clock.wall_ns()
    caller.call("sim-ok", "a")
    caller.call("sim-error-500", "b")
    hanging = caller.call("sim-hang", "c")
    caller.call("sim-cut-stream", "d", stream=True)
    caller.send("POST", CHAT, b"{", {"authorization": "Bearer sk-1", "x-sim-id": "e"})
    page = caller.requests()
    noted = [(found["number"], found["id"], found["model"], found["end"]) for found in page["requests"]]
    assert noted == [
        (1, "a", "sim-ok", "served"),
        (2, "b", "sim-error-500", "failed"),
        (3, "c", "sim-hang", "open"),
        (4, "d", "sim-cut-stream", "cut"),
        (5, "e", "(unreadable request)", "failed"),
    ]
    assert (page["requests"][0]["key"], page["requests"][0]["path"], page["requests"][0]["began_ns"]) == ("key-a", CHAT, begun)
    caller.clock.advance(MILLISECOND)
    hanging.leave()
    third = caller.requests(since=2)["requests"][0]
    assert (third["id"], third["end"], third["ended_ns"] - begun) == ("c", "cancelled", MILLISECOND)


def test_who_asks_on_sees_every_end_although_a_request_stayed_open(caller: Caller) -> None:
    caller.call("sim-ok", "a")
    hanging = caller.call("sim-hang", "b")
    caller.call("sim-ok", "c")
    page = caller.requests()
    assert (len(page["requests"]), page["next"]) == (3, 1)
    hanging.leave()
    page = caller.requests(page["next"])
    assert [(found["id"], found["end"]) for found in page["requests"]] == [("b", "cancelled"), ("c", "served")]
    assert page["next"] == 3
    assert caller.requests(3)["requests"] == []


def test_the_record_is_bounded_and_says_what_it_lost(caller: Caller) -> None:
    for _ in range(KEPT + 3):
        caller.send("POST", CHAT, b"{", {"authorization": "Bearer sk-1"})
    page = caller.requests()
    assert (len(page["requests"]), page["requests"][0]["number"], page["lost"]) == (KEPT, 4, 3)
    assert (caller.requests(3)["lost"], caller.requests(2)["lost"]) == (0, 1)


@pytest.mark.parametrize("since", ["x", "1.5", "%31%"])
def test_a_number_that_is_none_is_refused(caller: Caller, since: str) -> None:
    assert caller.send("GET", f"/requests?since={since}").status == 400
