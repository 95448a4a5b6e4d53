"""Keeps the agent out of the process that holds the real keys."""

import resource

from holdfast.runner.kernel import deny_inspection


def shield_process() -> bool:
    """Make this process's memory, environment and core dumps unreachable for other processes of the same user; whether it worked.

    On Linux /proc/PID/environ, /proc/PID/mem and ptrace are closed, to debuggers and profilers too; elsewhere only core dumps are
    (False then). Root reads everything still: an agent that runs as root is not kept out by this.

    Call it once, after files named on the command line were opened: on Linux /proc/self/fd, and with it /dev/stdin and a shell's
    `<(…)`, can no longer be opened by the process itself.
    """
    if deny_inspection():
        return True
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    return False
