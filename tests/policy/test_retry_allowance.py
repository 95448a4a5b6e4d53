"""Retries stay a share of the calls, whatever the order of calls, retries and pauses."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.retry_allowance import FREE, FREE_PER_NS, RetryAllowance

_STEPS = st.lists(st.one_of(st.just("call"), st.just("retry"), st.integers(0, 3 * FREE_PER_NS)), max_size=300)


@given(steps=_STEPS, share=st.integers(0, 200))
def test_no_time_holds_more_retries_than_its_calls_and_its_length_allow(steps: list[str | int], share: int) -> None:
    allowance, now_ns = RetryAllowance(share, 0), 0
    log: list[tuple[int, str]] = []
    for step in steps:
        if isinstance(step, int):
            now_ns += step
        elif step == "call":
            allowance.called()
            log.append((now_ns, step))
        elif allowance.take(now_ns):
            log.append((now_ns, step))
    for first in range(len(log)):
        calls = retries = 0
        for at_ns, what in log[first:]:
            calls += what == "call"
            retries += what == "retry"
            assert retries <= 2 * FREE + share * calls / 100 + FREE * (at_ns - log[first][0]) / FREE_PER_NS


@given(share=st.integers(1, 100))
def test_in_an_outage_every_call_retries_at_most_its_share(share: int) -> None:
    allowance = RetryAllowance(share, 0)
    granted = 0
    for _ in range(1000):
        allowance.called()
        granted += sum(allowance.take(0) for _ in range(3))
    assert granted <= FREE + 10 * share
    assert granted >= 10 * share


def test_a_quiet_agent_may_retry_all_the_same() -> None:
    allowance, now_ns = RetryAllowance(0, 0), 0
    for _ in range(100):
        now_ns += FREE_PER_NS // FREE
        assert allowance.take(now_ns)
