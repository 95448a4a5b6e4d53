"""What every call of a gateway works with."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from holdfast.clock import Clock
from holdfast.events.ids import uuid7
from holdfast.execution.admission_queue import AdmissionQueue
from holdfast.execution.recording import Recorder
from holdfast.execution.upstream import Upstream
from holdfast.gateway.gate import Gate
from holdfast.gateway.options import GatewayOptions
from holdfast.gateway.recovery import RetryAllowances
from holdfast.gateway.routing import Routing
from holdfast.policy.history import Conversations
from holdfast.policy.limit import LimitReached
from holdfast.policy.loop_guard import LoopGuard


class InProgress(Protocol):
    """A call that has not ended."""

    def kills_changed(self) -> None:
        """Something was killed, or a kill was lifted."""


class Parts(Struct, frozen=True, kw_only=True):
    """in_progress: the calls that have not ended. uniform: a random number in [0, 1). bits: an integer of so many random bits.
    limit_refused: told of every refusal by a limit, after the refusal went out."""

    options: GatewayOptions
    clock: Clock
    upstream: Upstream
    gate: Gate
    recorder: Recorder
    conversations: Conversations
    routing: Routing
    allowances: RetryAllowances
    loop_guard: LoopGuard
    queue: AdmissionQueue
    in_progress: set[InProgress]
    uniform: Callable[[], float]
    bits: Callable[[int], int]
    limit_refused: Callable[[LimitReached], None]

    def new_id(self) -> str:
        """An identifier that sorts by time."""
        return uuid7(self.clock.wall_ns(), self.bits(74))
