"""Answers questions through LiteLLM's translations; runs in the Python of `.opinions/`, where LiteLLM is installed apart.

stdin: `{"base": address of the provider, "cases": [{"id", "caller", "target", "options", "stream"}]}`. Every request to the provider
carries its case's id as the key. stdout, one line: `{id: {"answer": …} or {"events": […]} or {"error": "…"}}`, in the caller's format.
"""

import asyncio
import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched
os.environ["LITELLM_LOG"] = "CRITICAL"

import litellm

litellm.suppress_debug_info = True

PREFIXES = {
    ("openai-chat", "anthropic-messages"): "anthropic/",
    ("openai-chat", "openai-responses"): "openai/responses/",
    ("anthropic-messages", "openai-chat"): "hosted_vllm/",
    ("anthropic-messages", "openai-responses"): "openai/",
    ("openai-responses", "anthropic-messages"): "anthropic/",
    ("openai-responses", "openai-chat"): "custom_openai/",
}
"""The provider by which LiteLLM chooses the format of the target."""


async def ask(base: str, case: dict[str, Any]) -> dict[str, Any]:
    """What LiteLLM answers the caller of one case."""
    asking = {
        "openai-chat": litellm.acompletion,
        "openai-responses": litellm.aresponses,
        "anthropic-messages": litellm.anthropic.messages.acreate,
    }[case["caller"]]
    options = dict(case["options"])
    options |= options.pop("extra_body", {})
    options["model"] = PREFIXES[case["caller"], case["target"]] + options["model"]
    address = base if case["target"] == "anthropic-messages" else f"{base}/v1"
    if case["stream"] and case["caller"] == "openai-chat":
        options["stream_options"] = {"include_usage": True}
    try:
        answer = await asking(**options, stream=case["stream"], api_base=address, api_key=case["id"])
        if case["stream"]:
            return {"events": [event async for chunk in answer for event in events_of(chunk)]}
        return {"answer": plain(answer)}
    except Exception as error:  # noqa: BLE001 - whatever LiteLLM raises is its opinion
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def events_of(chunk: Any) -> list[Any]:
    """The events of one chunk: LiteLLM streams Anthropic's format as bytes, the others as objects."""
    if not isinstance(chunk, bytes):
        return [plain(chunk)]
    return [json.loads(line[6:]) for line in chunk.decode().split("\n") if line.startswith("data: ")]


def plain(value: Any) -> Any:
    """Objects as JSON has them, less what is not set."""
    dumped = value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value
    return json.loads(json.dumps(dumped, default=str))


async def main() -> None:
    asked = json.load(sys.stdin)
    print(json.dumps({case["id"]: await ask(asked["base"], case) for case in asked["cases"]}))


asyncio.run(main())
