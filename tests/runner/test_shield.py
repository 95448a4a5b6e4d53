"""An agent of the same user cannot look into the process that holds the real keys."""

import os
import subprocess
import sys

import pytest

HOLDFAST = """
import asyncio, ctypes, os, sys
from holdfast.system_clock import SystemClock
from holdfast.runner.child import ChildOptions, run_child
from holdfast.runner.shield import shield_process

AGENT = '''
for file in environ mem maps; do
    if head -c 1 /proc/$PPID/$file > /dev/null 2>&1; then echo $file open; else echo $file closed; fi
done
head -c 1 /proc/self/environ > /dev/null && echo own open
'''

async def main():
    stop = asyncio.get_running_loop().create_future()
    return await run_child(["sh", "-c", AGENT], {"PATH": os.environ["PATH"]}, ChildOptions(), SystemClock(), stop)

if os.getuid() == 0:  # root reads everything: be somebody else, and as open as a program that was started by somebody else
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
print("shielded", "shielded" in sys.argv and shield_process(), flush=True)
sys.exit(asyncio.run(main()).exit_code)
"""

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the shield only keeps core dumps from being written")


def seen_by_the_agent(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", HOLDFAST, *arguments],
        env={**os.environ, "OPENAI_API_KEY": "sk-real"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@only_linux
def test_environment_and_memory_of_a_shielded_process_cannot_be_read_and_the_agents_own_can() -> None:
    assert seen_by_the_agent("shielded") == ["shielded True", "environ closed", "mem closed", "maps closed", "own open"]


@only_linux
def test_without_the_shield_the_environment_can_be_read() -> None:
    assert seen_by_the_agent()[:2] == ["shielded False", "environ open"]
