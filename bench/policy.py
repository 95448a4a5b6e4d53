"""What guarding and recording cost per call, in process: everything between parsing a request and the write of its events.

Run: python bench/policy.py. In: the caller by its key, the conversation by its history, price and bounds, reserve and settle on four
limits, the decision against a retry, both events of the call encoded. Out: parsing, the relay, write(2); see journal.py, data_plane.py.
"""

import gc
import random
import statistics
from collections.abc import Callable
from time import perf_counter_ns

import programs
from load import BODY
from upstream import ANSWER

from holdfast.clock import SECOND
from holdfast.events import Event, encode_into
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.limiter import Limiter, Outcome, Reservation
from holdfast.gateway.admission import Bounds, Cost, bounds, charges, output_to_send, settlement
from holdfast.gateway.identity import Identities
from holdfast.gateway.options import AgentOptions
from holdfast.gateway.recording import CallRecord, Origin, Subject
from holdfast.policy.history import Conversations
from holdfast.policy.limit import Limit, Scope
from holdfast.policy.retry import RETRYABLE_STATUS, backoff_ns
from holdfast.pricing import PriceList
from holdfast.system_clock import SystemClock
from holdfast.testing import FakeClock
from holdfast.testing.ledger import MemoryLedger, MemorySlate
from holdfast.wire.openai_chat import FORMAT

BOUND_US = 8
CALLS = 200
ROUNDS = 150
MONTH = 30 * 86_400 * SECOND  # its slots are longer than this program runs: renewals are not what is measured

HEADERS = [
    (b"host", b"127.0.0.1:8787"),
    (b"accept", b"application/json"),
    (b"content-type", b"application/json"),
    (b"user-agent", b"OpenAI/Python 3.54.0"),
    (b"x-stainless-lang", b"python"),
    (b"authorization", b"Bearer bench"),
    (b"content-length", b"1900"),
]


class WallClock(FakeClock):
    """Timers under our hand, so that no loop runs; both clocks are the machine's, so that reading them costs what it costs."""

    wall_ns = staticmethod(SystemClock.wall_ns)
    monotonic_ns = staticmethod(SystemClock.monotonic_ns)


class Buffer:
    """A `Recorder` that encodes and throws away."""

    def __init__(self) -> None:
        self._lines = bytearray()

    def append(self, event: Event) -> None:
        encode_into(event, self._lines)

    def flush(self) -> None:
        self._lines.clear()

    def has_context(self, digest: str) -> bool:
        return True


class Guard:
    """The steps of one call that is answered, as `gateway.call` takes them."""

    def __init__(self) -> None:
        clock = WallClock()
        scopes: tuple[Scope, ...] = ("all", "agent", "user", "model")
        limits = [Limit(scope=scope, unit="usd" if at % 2 else "calls", amount=10**15, per_ns=MONTH) for at, scope in enumerate(scopes)]
        self.agent = AgentOptions(name="bench", key="bench", limits=tuple(limits))
        self.clock = clock
        self.identities = Identities((self.agent,))
        self.conversations = Conversations()
        self.prices = PriceList(provider="openai")
        self.limiter = Limiter(MemoryLedger(clock), clock, MemorySlate())
        self.recorder = Buffer()
        self.call = FORMAT.parse(BODY % b"")
        self.answer = FORMAT.answer(ANSWER)
        self.jitter = random.Random(0).random
        self.got: list[Outcome] = []
        self.number = 0

    def identify(self) -> Origin:
        caller = self.identities.caller(HEADERS, "127.0.0.1")
        assert caller is not None
        self.number += 1
        self.claim = self.conversations.claim(caller.name, self.call.turns, f"call-{self.number}")
        return Origin(
            agent=caller.name,
            release=caller.release,
            run="",
            user="",
            interaction=self.claim.interaction,
            identified_by="history",
            keep_content=True,
        )

    def reserve(self) -> Bounds:
        values: dict[Scope, str] = {"all": "", "agent": "bench", "user": "", "model": self.call.model}
        drawn = charges(self.agent.limits, values)
        rates = self.prices.rates(self.call.model, self.clock.wall_ns())
        found = bounds(self.call, self.call.model, rates, drawn, self.agent.default_max_output)
        assert isinstance(found, Bounds)
        self.limiter.reserve(drawn, found.ask, self.got.append)
        return found

    def settle(self, found: Bounds) -> tuple[AttemptResult, Cost]:
        reservation = self.got.pop()
        assert isinstance(reservation, Reservation)
        output_to_send(found, self.call, reservation.usd)
        now = self.clock.monotonic_ns()
        result = AttemptResult(status=200, whole=True, began_ns=now, ended_ns=now, received=len(ANSWER))
        cost = settlement(result, self.answer, found, reservation.usd)
        reservation.settle(cost.charged, 0)
        return result, cost

    def judge(self, result: AttemptResult) -> None:
        if result.status in RETRYABLE_STATUS:
            backoff_ns(self.agent.retries, 0, self.jitter(), None, SECOND)

    def record(self, origin: Origin, result: AttemptResult, cost: Cost) -> None:
        subject = Subject(
            call_id="019aaf6e-4b5b-7c4e-8000-0123456789ab",
            target_api="POST /v1/chat/completions",
            format_name=FORMAT.name,
            call=self.call,
            began_ns=result.began_ns,
            began_wall_ns=self.clock.wall_ns(),
        )
        record = CallRecord(self.recorder, self.clock, origin, subject)
        record.attempt(result, cost, "openai/gpt-4o-mini", 1900, failed=False)
        record.decision(self.answer, cost, "openai/gpt-4o-mini", self.claim, None)
        self.conversations.answered(self.claim, self.answer.turns, subject.call_id)
        record.flush()

    def whole(self) -> None:
        origin = self.identify()
        result, cost = self.settle(self.reserve())
        self.judge(result)
        self.record(origin, result, cost)


def main() -> None:
    print(programs.machine())
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # as in a worker
    guard = Guard()
    guard.reserve()  # the first call waits for the ledger
    guard.clock.advance(0)
    guard.clock.advance(0)
    result, cost = guard.settle(guard.reserve())
    origin = guard.identify()
    steps: dict[str, Callable[[], object]] = {
        "caller and conversation": guard.identify,
        "price, bounds, reserve, settle": lambda: guard.settle(guard.reserve()),
        "retry decision": lambda: guard.judge(result),
        "two events, encoded": lambda: guard.record(origin, result, cost),
    }
    for name, step in steps.items():
        print(f"{name:34} {_report(step)}")
    print(f"{'policy + events per call':34} {_report(guard.whole)}   bound {BOUND_US} us")


def _report(step: Callable[[], object]) -> str:
    """Of many rounds the median, and the least: what the step costs when nothing else wants the machine."""
    rounds = []
    for _ in range(ROUNDS):
        begin = perf_counter_ns()
        for _ in range(CALLS):
            step()
        rounds.append((perf_counter_ns() - begin) / CALLS / 1000)
    return f"{statistics.median(rounds):5.1f} us (least {min(rounds):.1f})"


if __name__ == "__main__":
    main()
