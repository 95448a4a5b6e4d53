"""A small support agent with two tools, for `holdfast demo`: plain HTTP, standard library only, and it knows nothing of Holdfast.

`python -m holdfast.testing.demo_agent QUESTION` finds its model where every agent does: OPENAI_BASE_URL and OPENAI_API_KEY.
"""

import json
import os
import sys
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

SYSTEM = "You are the support agent of a small shop. Look things up before you answer. Be brief."
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
        },
    }
    for name, description in (("look_up_order", "State of an order"), ("refund_order", "Refund an order"))
]


def main() -> int:
    """Ask the model, do what it says with the tools, until it answers."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": sys.argv[1]}]
    print(f"agent: {sys.argv[1]}")  # noqa: T201 - this is the agent's own output
    while True:
        try:
            message = ask(messages)
        except HTTPError as error:
            print(f"agent: the model says {error.code}: {json.load(error)['error']['message']}")  # noqa: T201
            return 1
        messages.append(message)
        if not message.get("tool_calls"):
            print(f"agent: answered: {message['content']}")  # noqa: T201
            return 0
        for call in message["tool_calls"]:
            order = json.loads(call["function"]["arguments"]).get("order", "")
            print(f"agent: uses {call['function']['name']}({order})")  # noqa: T201
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": tool(call["function"]["name"], order)})


def ask(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """One call to the model; the message that it answers with."""
    request = Request(  # noqa: S310 - the address is the gateway's
        f"{os.environ['OPENAI_BASE_URL']}/chat/completions",
        json.dumps({"model": "assistant", "messages": messages, "tools": TOOLS}).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
    )
    with urlopen(request, timeout=30) as answer:  # noqa: S310
        message: dict[str, Any] = json.load(answer)["choices"][0]["message"]
    return message


def tool(name: str, order: str) -> str:
    """What the shop's own systems would answer."""
    if name == "refund_order":
        return f"order {order} refunded"
    return f"order {order}: delivered on Monday, 49.90 USD"


if __name__ == "__main__":
    sys.exit(main())
