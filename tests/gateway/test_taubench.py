"""Recorded conversations of a real agent, replayed through the gateway: nothing is changed, every decision and conversation is found."""

import asyncio
import gzip
import json
from collections import Counter
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from holdfast.assembly.data_plane import Hooks
from holdfast.http.message import Request, Response
from holdfast.shared.conversations import SharedPlaces
from holdfast.store.reader import JournalReader
from holdfast.testing.gateway import gateway_in_thread, options_for
from holdfast.testing.simulated_provider import running_in_thread

Message = dict[str, Any]


class Replay:
    """Answers with what was recorded after as many messages as the request holds."""

    def __init__(self, trajectories: list[list[Message]]) -> None:
        self._trajectories = trajectories

    def __call__(self, request: Request, response: Response) -> None:
        body = msgspec.json.decode(request.body)
        which = int(request.header(b"x-replay") or b"-1")
        message = self._trajectories[which][len(body["messages"])]
        answer = {
            "id": f"chatcmpl-{which}-{len(body['messages'])}",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if message.get("tool_calls") else "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
        response.send(200, [(b"content-type", b"application/json")], msgspec.json.encode(answer))


def action(message: Message) -> str:
    return "+".join(call["function"]["name"] for call in message.get("tool_calls") or ()) or "reply"


async def replay(clients: list[openai.AsyncOpenAI], which: int, trajectory: list[Message]) -> None:
    """Every step as the agent took it, its own recorded answers in the history as the framework keeps them; one gateway after the other."""
    next_client = cycle(clients)
    for at, message in enumerate(trajectory):
        if message["role"] == "assistant":
            history: Any = trajectory[:at]
            answer = await next(next_client).chat.completions.create(
                model="gpt-4o", messages=history, extra_headers={"x-replay": str(which)}
            )
            received = answer.choices[0].message.model_dump(exclude_unset=True)
            assert received == message
            await asyncio.sleep(0)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_recorded_conversation_is_one_interaction_with_its_decisions(shared_data: Path, tmp_path: Path, workers: int) -> None:
    recorded = json.loads(gzip.decompress((shared_data / "taubench" / "gpt-4o-airline.json.gz").read_bytes()))
    trajectories: list[list[Message]] = [run["traj"] for run in recorded]

    async def replay_all(base_urls: list[str]) -> None:
        clients = [openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0) for base_url in base_urls]
        await asyncio.gather(*(replay(clients, which, trajectory) for which, trajectory in enumerate(trajectories)))
        await asyncio.gather(*(client.close() for client in clients))

    with running_in_thread(Replay(trajectories)) as upstream, ExitStack() as stack:
        gateways = []
        for _ in range(workers):
            places = None if workers == 1 else SharedPlaces(tmp_path / "conversations")
            if places is not None:
                stack.callback(places.close)
            gateways.append(stack.enter_context(gateway_in_thread(options_for(upstream, "", tmp_path), tmp_path, Hooks(places=places))))
        asyncio.run(replay_all([gateway.openai for gateway in gateways]))
    decisions = list(JournalReader(tmp_path).decisions(limit=10_000))
    expected = Counter(tuple(action(message) for message in trajectory if message["role"] == "assistant") for trajectory in trajectories)
    by_interaction: dict[str, list[str]] = {}
    for decision in reversed(decisions):
        by_interaction.setdefault(decision.interaction, []).append(decision.chosen_action)
    assert len(by_interaction) == len(trajectories) == 124
    assert len(decisions) == sum(message["role"] == "assistant" for trajectory in trajectories for message in trajectory)
    assert Counter(map(tuple, by_interaction.values())) == expected
