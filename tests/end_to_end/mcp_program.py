"""A real MCP server of the official SDK, over streamable HTTP: `python mcp_program.py PORT FILE`; it writes down in FILE what it did."""

import sys
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

PORT, FILE = int(sys.argv[1]), Path(sys.argv[2])
server = MCPServer("shop")


def did(what: str) -> None:
    with FILE.open("a") as file:
        file.write(what + "\n")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    did(f"add {a} {b}")
    return a + b


@server.tool()
def fail(why: str) -> str:
    """Fail."""
    did("fail")
    raise ToolError(why)


@server.tool()
async def count(to: int, context: Context) -> str:
    """Count, and tell how far it came."""
    for step in range(to):
        await context.report_progress(step + 1, to, f"step {step + 1}")
    did(f"count {to}")
    return "counted"


@server.tool()
def much(size: int) -> str:
    """Say much."""
    return "x" * size


@server.tool()
async def change(context: Context) -> str:
    """Change the price list, and say so to whoever listens."""
    await context.notify_resource_updated("shop://prices")
    await context.session.send_resource_updated("shop://prices")
    return "changed"


@server.tool()
def delete_everything() -> str:
    """Nobody should."""
    did("delete_everything")
    return "gone"


@server.tool()
def delete_one(name: str) -> str:
    """Nobody should."""
    did(f"delete_one {name}")
    return "gone"


@server.resource("shop://prices")
def prices() -> str:
    """What things cost."""
    return "apple: 1"


if __name__ == "__main__":
    uvicorn.run(server.streamable_http_app(json_response="json" in sys.argv), host="127.0.0.1", port=PORT, log_level="warning")
