"""The loop guard on conversations of a real agent: how often it warns and stops without a reason, what it finds, and what it costs.

Run: python bench/loops.py [FOLDER], or with HOLDFAST_SHARED_DATA; FOLDER holds `taubench/gpt-4o-airline.json.gz` (tau-bench, MIT: 124
conversations of an airline's support agent, each with its reward). The guard is asked about every request of every conversation. Then the
last call of a tool in each is repeated, alone and in turn with the one before it, to see after how many rounds that is stopped. Exit code 1
when a conversation that solved its task is stopped with the default limits, or a loop is not.
"""

import gzip
import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import msgspec
import programs

from holdfast.policy.loop_guard import Loop, LoopGuard, LoopOptions
from holdfast.wire.call import Call
from holdfast.wire.openai_chat import FORMAT

Message = dict[str, Any]

DEFAULT = LoopOptions()
STRICTER = (
    LoopOptions(same_call=2, cycle=2, no_new_result=2, same_result=2),
    LoopOptions(same_call=3, cycle=2, no_new_result=3, same_result=3),
    LoopOptions(same_call=4, cycle=2, no_new_result=5, same_result=10),
)
ROUNDS = 20


def main() -> int:
    print(programs.machine())
    cost()
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HOLDFAST_SHARED_DATA", ""))
    file = folder / "taubench" / "gpt-4o-airline.json.gz"
    if not file.is_file():
        print(f"conversations: skipped: {file} is not here (name the folder, or set HOLDFAST_SHARED_DATA)")
        return 0
    runs = json.loads(gzip.decompress(file.read_bytes()))
    solved = [run["traj"] for run in runs if run["reward"] == 1]
    others = [run["traj"] for run in runs if run["reward"] != 1]
    wrong = 0
    for name, options in (("defaults", DEFAULT), *((f"stricter {at}", options) for at, options in enumerate(STRICTER, 1))):
        limits = {field: getattr(options, field) for field in ("same_call", "cycle", "no_new_result", "same_result")}
        print(name, limits)
        for kind, trajectories in (("solved", solved), ("not solved", others)):
            said = [judged(trajectory, options) for trajectory in trajectories]
            stopped = sum(any(loop.stop for loop in loops) for loops in said)
            warned = Counter(loop.kind for loops in said for loop in loops if not loop.stop)
            print(f"  {len(said):4} {kind:10}: stopped {stopped}, warned of {sum(warned.values())} {dict(warned)}")
            wrong += stopped if options is DEFAULT and kind == "solved" else 0
    missed = found("the last call, again and again", runs, period=1) + found("the last two calls in turn", runs, period=2)
    return 1 if wrong or missed else 0


def judged(trajectory: Sequence[Message], options: LoopOptions, begin: int = 0) -> list[Loop]:
    """What is said of the requests from message `begin` on."""
    guard = LoopGuard()
    calls = (call(trajectory[:at]) for at in range(max(begin, 1), len(trajectory) + 1) if asks(trajectory, at))
    return [loop for asked in calls if (loop := guard.check("", FORMAT.name, asked, options, 0)) is not None]


def asks(trajectory: Sequence[Message], at: int) -> bool:
    """Whether the model was asked with the first `at` messages."""
    return trajectory[at]["role"] == "assistant" if at < len(trajectory) else trajectory[-1]["role"] == "tool"


def call(messages: Sequence[Message]) -> Call:
    return FORMAT.parse(msgspec.json.encode({"model": "m", "messages": messages}))


def found(name: str, runs: Sequence[Any], period: int) -> int:
    """Put a loop behind every conversation that has tool calls enough; how many were not stopped."""
    rounds: list[int] = []
    missed = 0
    for run in runs:
        pairs = list(tool_rounds(run["traj"]))[-period:]
        if len({json.dumps([asked["tool_calls"][0]["function"], result["content"]]) for asked, result in pairs}) < period:
            continue
        looped = [*run["traj"], {"role": "user", "content": "please go on"}]
        begin = len(looped)
        for at in range(ROUNDS):
            looped += renamed(pairs[at % period], at)
        stops = [loop for loop in judged(looped, DEFAULT, begin) if loop.stop]
        missed += not stops
        if stops:
            rounds.append(stops[0].count * (period if stops[0].kind == "cycle" else 1))
    after = f"{min(rounds, default=0)} to {max(rounds, default=0)} rounds"
    print(f"{name}: {len(rounds)} of {len(rounds) + missed} stopped, after {after}")
    return missed


def tool_rounds(trajectory: Sequence[Message]) -> Iterator[Sequence[Message]]:
    for at, message in enumerate(trajectory[:-1]):
        if message["role"] == "assistant" and len(message.get("tool_calls") or ()) == 1 and trajectory[at + 1]["role"] == "tool":
            yield trajectory[at : at + 2]


def renamed(pair: Sequence[Message], number: int) -> list[Message]:
    """The same round with an id of its own, as a provider gives it."""
    asked, result = pair
    tool_call = asked["tool_calls"][0] | {"id": f"again-{number}"}
    return [asked | {"tool_calls": [tool_call]}, result | {"tool_call_id": f"again-{number}"}]


def cost() -> None:
    """Of one call of an agent with 20 rounds behind it: the next request, the same again, and one that no process has seen before."""
    messages: list[Message] = [
        {"role": "system", "content": "Be brief. " * 40},
        {"role": "user", "content": "Find out why the build fails."},
    ]
    for number in range(40):
        arguments = json.dumps({"path": f"src/part{number}.py", "offset": number})
        function = {"name": "read_file", "arguments": arguments}
        messages.append(
            {
                "role": "assistant",
                "content": "I look at it.",
                "tool_calls": [{"id": f"c{number}", "type": "function", "function": function}],
            }
        )
        messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": f"line {number}\n" * 40})
    calls = [call(messages[: 42 + 2 * at]) for at in range(20)]
    figures: dict[str, list[float]] = {"the next request": [], "the same request again": [], "a history not seen before": []}
    for _ in range(200):
        guard = LoopGuard()
        guard.check("", FORMAT.name, calls[0], DEFAULT, 0)
        begin = perf_counter_ns()
        for asked in calls[1:]:
            guard.check("", FORMAT.name, asked, DEFAULT, 0)
        figures["the next request"].append((perf_counter_ns() - begin) / 19e3)
        begin = perf_counter_ns()
        for _ in range(20):
            guard.check("", FORMAT.name, calls[-1], DEFAULT, 0)
        figures["the same request again"].append((perf_counter_ns() - begin) / 20e3)
        begin = perf_counter_ns()
        LoopGuard().check("", FORMAT.name, calls[0], DEFAULT, 0)
        figures["a history not seen before"].append((perf_counter_ns() - begin) / 1e3)
    print("cost per call, 20 to 39 rounds of tools in the history (parsing is not in it)")
    for name, taken in figures.items():
        print(f"  {name:26} {statistics.median(taken):6.1f} us (least {min(taken):.1f})")


if __name__ == "__main__":
    sys.exit(main())
