"""The official MCP server in a process of its own, the official client, and the gateway between them; what the server did is the judge."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError

MODES = ["legacy", "2026-07-28"]
ALLOWED = "allow: ['*'], deny: ['delete_*']"


class Shop:
    """The server; `done` is what its tools did, in order."""

    def __init__(self, url: str, file: Path) -> None:
        self.url = url
        self._file = file

    @property
    def done(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module", params=["sse", "json"])
def program(request: Any, tmp_path_factory: pytest.TempPathFactory, eventually: Any) -> Iterator[tuple[str, Path]]:
    """The server's URL and file; it answers with streams of events or with JSON."""
    file, port = tmp_path_factory.mktemp("shop") / "done", free_port()
    script = Path(__file__).with_name("mcp_program.py")
    with subprocess.Popen([sys.executable, str(script), str(port), str(file), request.param]) as process:
        eventually(lambda: answers(port), "the MCP server listens")
        yield f"http://127.0.0.1:{port}/mcp", file
        process.terminate()


@pytest.fixture
def shop(program: tuple[str, Path]) -> Shop:
    url, file = program
    file.unlink(missing_ok=True)
    return Shop(url, file)


def configured(shop: Shop, options: str = ALLOWED, more: str = "") -> str:
    return f"tools:\n  shop: {{base_url: '{shop.url}', mcp: true, price_per_call: 0.25, {options}}}\n{more}"


def speak(gateway: str, mode: str, conversation: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), Client(f"{gateway}/tools/shop", mode=mode, **options) as client:
            await conversation(client)

    asyncio.run(main())


def calls(site: Any) -> list[dict[str, Any]]:
    return [event for event in site.journal("api_call") if event.get("tool", {}).get("name")]


@pytest.mark.parametrize("mode", MODES)
def test_a_conversation_passes_and_every_call_of_a_tool_is_on_record(site: Any, shop: Shop, mode: str) -> None:
    site.configure(configured(shop))
    up = site.up()
    progress: list[float] = []

    async def heard(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    async def conversation(client: Client) -> None:
        assert mode != "legacy" or (client.server_info is not None and client.server_info.name == "shop")
        offered = {tool.name for tool in (await client.list_tools()).tools}
        assert offered == {"add", "fail", "count", "much", "change"}  # not what is denied
        added = await client.call_tool("add", {"a": 2, "b": 3})
        assert (added.is_error, added.content[0].text) == (False, "5")
        await client.call_tool("count", {"to": 3}, progress_callback=heard)
        failed = await client.call_tool("fail", {"why": "no stock"})
        assert failed.is_error and "no stock" in failed.content[0].text
        assert len((await client.call_tool("much", {"size": 300_000})).content[0].text) == 300_000
        assert (await client.read_resource("shop://prices")).contents[0].text == "apple: 1"

    speak(up.gateway, mode, conversation)
    assert shop.done == ["add 2 3", "count 3", "fail"]
    made = {call["tool"]["name"]: call for call in calls(site)}
    assert made.keys() == {"add", "count", "fail", "much"}
    assert made["add"]["target_api"] == "tool/shop tools/call add"
    assert made["add"]["tool"]["arguments"] == {"a": 2, "b": 3}
    assert {call["cost"] for call in made.values()} == {250_000_000}
    assert made["much"]["tool"]["result_bytes"] > 300_000 and made["much"]["latency_ms"] > 0
    assert [name for name, call in made.items() if call["tool"].get("failed")] == ["fail"]
    if mode == "legacy":
        assert len({call["tool"]["session"] for call in made.values()}) == 1 and made["add"]["tool"]["session"]
        assert "tool/shop DELETE" in {call["target_api"] for call in site.journal("api_call")}  # the session's end
    assert [error["message"] for error in site.journal("error")] == ["tool/shop: tools/call fail failed"]
    (error,) = site.journal("error")
    assert (error["error_type"], error["error_id"]) == ("tool_error", made["fail"]["error_id"]) and "no stock" in error["full_traceback"]
    others = [call for call in site.journal("api_call") if not call.get("tool", {}).get("name")]
    assert others and all(not call.get("cost") for call in others)


def test_progress_comes_while_the_tool_works(site: Any, shop: Shop, program: Any) -> None:
    site.configure(configured(shop))
    up = site.up()
    steps: list[float] = []

    async def heard(done: float, total: float | None, message: str | None) -> None:
        steps.append(done)

    async def conversation(client: Client) -> None:
        await client.call_tool("count", {"to": 5}, progress_callback=heard)

    if "sse" in str(program):
        speak(up.gateway, "legacy", conversation)
        assert steps == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_allowed_is_never_called(site: Any, shop: Shop, mode: str) -> None:
    site.configure(configured(shop))
    up = site.up()

    async def conversation(client: Client) -> None:
        for name, arguments in (("delete_everything", {}), ("delete_one", {"name": "x"})):
            with pytest.raises(MCPError, match="is not allowed") as refused:
                await client.call_tool(name, arguments)
            assert refused.value.error.code == -32050 and refused.value.error.data["type"] == "tool_not_allowed"
        assert (await client.call_tool("add", {"a": 1, "b": 1})).content[0].text == "2"  # the session goes on

    speak(up.gateway, mode, conversation)
    assert shop.done == ["add 1 1"]
    assert [(error["error_type"], error["recovery_action"]) for error in site.journal("error")] == [("refused", "refused")] * 2


def test_a_call_limit_counts_calls_of_tools_and_nothing_else(site: Any, shop: Shop) -> None:
    site.configure(configured(shop, more="limits: [{calls: 3, per: total, scope: tool}]\n"))
    up = site.up("--workers", "2")
    outcomes: list[bool] = []

    async def conversation(client: Client) -> None:
        for number in range(5):
            await client.list_tools()
            try:
                outcomes.append(not (await client.call_tool("add", {"a": number, "b": 0})).is_error)
            except MCPError as refused:
                assert refused.error.data["type"] == "call_limit_reached" and refused.error.data["unit"] == "calls"
                outcomes.append(False)

    speak(up.gateway, "legacy", conversation)
    assert outcomes == [True] * 3 + [False] * 2
    assert len(shop.done) == 3


def test_the_kill_switch_stops_one_tool_of_a_server(site: Any, shop: Shop) -> None:
    site.configure(configured(shop))
    up = site.up()
    assert site.command("kill", "--tool", "add", "--reason", "it miscounts").code == 0

    async def conversation(client: Client) -> None:
        with pytest.raises(MCPError, match="it miscounts"):
            await client.call_tool("add", {"a": 1, "b": 1})
        assert (await client.call_tool("count", {"to": 1})).content[0].text == "counted"

    speak(up.gateway, "2026-07-28", conversation)
    assert shop.done == ["count 1"]


def test_notifications_come_through_the_stream_that_stays_open(site: Any, shop: Shop, eventually: Any) -> None:
    site.configure(configured(shop))
    up = site.up()

    async def main() -> None:
        updated = asyncio.Event()

        async def hear(message: Any) -> None:
            if "resources/updated" in str(getattr(message, "method", getattr(message, "root", message))):
                updated.set()

        async with asyncio.timeout(60), Client(f"{up.gateway}/tools/shop", mode="legacy", message_handler=hear) as client:
            while not updated.is_set():  # the stream may not be open yet
                await client.call_tool("change", {})
                await asyncio.sleep(0.05)

    asyncio.run(main())
    (listened,) = eventually(
        lambda: [call for call in site.journal("api_call") if call["target_api"] == "tool/shop GET"], "the stream is on record"
    )
    assert listened["response_code"] == 200 and listened["bytes_received"] > 0
    assert [error["message"] for error in site.journal("error")] == []


def test_a_subscription_of_the_newest_revision_passes(site: Any, shop: Shop, eventually: Any) -> None:
    site.configure(configured(shop))
    up = site.up()

    async def conversation(client: Client) -> None:
        async with client.listen(resource_subscriptions=["shop://prices"]) as events:
            await client.call_tool("change", {})
            async for event in events:
                assert event.uri == "shop://prices"
                break

    speak(up.gateway, "2026-07-28", conversation)
    eventually(lambda: "subscriptions/listen" in json.dumps(site.journal("api_call")), "the subscription is on record")
