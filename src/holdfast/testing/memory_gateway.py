"""A gateway without connections, files or time of its own: every call of a test runs in one thread, under the test's clock."""

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import TypeVar

from holdfast.config.jobs import JobsConfig
from holdfast.errors import StorageError
from holdfast.execution.admission_queue import AdmissionQueue
from holdfast.execution.breakers import Breakers
from holdfast.execution.limiter import Limiter
from holdfast.execution.rates import Rates
from holdfast.gateway.application import Gateway
from holdfast.gateway.gate import Gate
from holdfast.gateway.jobs import Jobs
from holdfast.gateway.options import GatewayOptions
from holdfast.gateway.parts import Parts
from holdfast.gateway.recovery import RetryAllowances
from holdfast.gateway.routing import Routing
from holdfast.gateway.turns import Turns
from holdfast.http.message import Request
from holdfast.policy.history import Conversations, Places
from holdfast.policy.kill import Kill, KillMode, KillScope
from holdfast.policy.limit import LimitReached
from holdfast.policy.loop_guard import LoopGuard
from holdfast.policy.waiting_line import QueueBounds
from holdfast.shared.breakers import SIZE as BREAKERS_SIZE
from holdfast.shared.breakers import BreakerTable
from holdfast.shared.private_memory import PrivateMemory
from holdfast.shared.rate_tables import RateTables
from holdfast.store.jobs import JobFiles
from holdfast.testing.clock import FakeClock
from holdfast.testing.exchange import MemoryResponse, request
from holdfast.testing.isolations import MemoryIsolations
from holdfast.testing.kill_switch import MemoryKillSwitch
from holdfast.testing.ledger import MemoryLedger, MemorySlate
from holdfast.testing.recorder import MemoryRecorder
from holdfast.testing.upstream import MemoryUpstream

_NO_HEADERS: Mapping[str, str] = {}


_T = TypeVar("_T")


class MemoryGateway:
    """The real gateway over doubles of everything around it.

    jitter: what stands in for a random number in [0, 1) wherever waits are spread. allow_unchecked: let calls through while the ledger
    fails. places, breaker_table: where conversations stand, and circuit breakers; gateways that share them, each with a `seed` of its own,
    are like workers of one `holdfast up`. jobs: where to keep jobs, in real files; without one calls are answered at once. refused: the
    refusals by limits that were reported.
    """

    def __init__(
        self,
        options: GatewayOptions,
        *,
        jitter: float = 0.5,
        allow_unchecked: bool = False,
        places: Places | None = None,
        breaker_table: BreakerTable | None = None,
        seed: int = 0,
        queue_bounds: QueueBounds = QueueBounds(),  # noqa: B008 - frozen
        jobs: Path | None = None,
        job_options: JobsConfig = JobsConfig(),  # noqa: B008 - frozen
    ) -> None:
        self.clock = FakeClock()
        self.upstream = MemoryUpstream()
        self.recorder = MemoryRecorder()
        self.ledger = MemoryLedger(self.clock)
        self.limiter = Limiter(self.ledger, self.clock, MemorySlate())
        tables = RateTables(None)
        self.rates = Rates(tables.rates, tables.pools, self.clock)
        self.refused: list[LimitReached] = []
        self.kill_switch = MemoryKillSwitch()
        self.queue = AdmissionQueue(self.clock, lambda: jitter, queue_bounds)
        self.isolations = MemoryIsolations()
        self.breaker_table = breaker_table or BreakerTable(PrivateMemory(BREAKERS_SIZE))
        self.breakers = Breakers(self.breaker_table, self.isolations, self.clock, self.recorder, lambda: jitter)
        self.conversations = Conversations(places)
        parts = Parts(
            options=options,
            clock=self.clock,
            upstream=self.upstream,
            gate=Gate(
                self.limiter,
                options.limits,
                Turns(self.rates, options.rates, self.clock),
                self.kill_switch,
                self.breakers,
                allow_unchecked=allow_unchecked,
            ),
            recorder=self.recorder,
            conversations=self.conversations,
            routing=Routing(options.providers, options.tools),
            allowances=RetryAllowances(self.clock),
            loop_guard=LoopGuard(),
            queue=self.queue,
            in_progress=set(),
            uniform=lambda: jitter,
            bits=Random(seed).getrandbits,  # noqa: S311 - numbers events, the same in every run
            limit_refused=self.refused.append,
        )
        self.jobs: Jobs | None = None
        if jobs is not None:
            webhooks = {webhook.name: webhook for webhook in job_options.webhooks}
            self.jobs = Jobs(parts, JobFiles(jobs), self._background, job_options.options, webhooks, self._on_record)
            self.jobs.start()
        self.application = Gateway(parts, jobs=self.jobs)

    def _background(self, work: Callable[[], _T], done: Callable[[_T | StorageError], None]) -> None:
        """In this thread, and heard of in the next turn."""
        outcome: _T | StorageError
        try:
            outcome = work()
        except StorageError as error:
            outcome = error
        self.clock.call_later(0, lambda: done(outcome))

    def _on_record(self, decision: str) -> bool:
        return any(each.decision_id == decision for each in self.recorder.decisions)

    def kill(self, scope: KillScope, value: str = "", mode: KillMode = "drain", reason: str = "out of hand") -> None:
        """Kill, and carry it out for the calls in progress."""
        self.kill_switch.kill(Kill(scope=scope, value=value, mode=mode, reason=reason, author="ann@host", at=self.clock.wall_ns()))
        self.application.kills_changed()

    def call(self, method: str, target: str, body: object = None, headers: Mapping[str, str] = _NO_HEADERS) -> MemoryResponse:
        """Send a request from loopback and let the ledger answer; see `holdfast.testing.request`."""
        return self.handle(request(method, target, body, headers))

    def handle(self, asked: Request) -> MemoryResponse:
        response = MemoryResponse()
        self.application(asked, response)
        self.clock.advance(0)
        return response
