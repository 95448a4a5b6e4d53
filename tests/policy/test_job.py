"""What follows when a try ends, and when a webhook does not take the word."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import SECOND
from holdfast.policy.job import TELL_NS, Answered, Begun, Job, JobOptions, Submitted, Told, Tried, call_id, look_again_s, retry_at, tell_at

SECONDS = st.integers(0, 10**6).map(lambda seconds: seconds * SECOND)
JITTER = st.floats(0, 1, exclude_max=True)
OPTIONS = JobOptions()


def job(deadline: int = 1 << 60, webhook: str = "") -> Submitted:
    return Submitted(
        id="0", at=0, agent="a", name="a", release="r", method="POST", path="/", headers=(), body=b"", deadline=deadline, webhook=webhook
    )


@given(SECONDS, SECONDS, st.integers(0, 100), JITTER, st.one_of(st.none(), SECONDS))
def test_no_try_begins_after_the_deadline_nor_before_the_provider_wants_it(now, deadline, failures, jitter, asked) -> None:
    at = retry_at(OPTIONS, job(deadline), failures, 503, asked, jitter, now)
    if at is not None:
        assert now + OPTIONS.base_ns // 2 <= at <= deadline
        assert at >= now + (asked or 0)
        assert at <= now + max(OPTIONS.cap_ns, asked or 0)
    else:
        assert deadline < now + max(OPTIONS.cap_ns, asked or 0)


@given(st.integers(100, 599))
def test_only_what_may_pass_is_tried_again(status: int) -> None:
    passes = status >= 500 or status in (408, 409, 429)
    assert (retry_at(OPTIONS, job(), 0, status, None, 0.5, 0) is not None) == passes


@given(st.integers(0, 100), SECONDS, st.integers(0, 599), JITTER, SECONDS)
def test_a_webhook_is_told_again_for_a_day_and_never_once_it_is_gone(told, ended, status, jitter, now) -> None:
    at = tell_at(told, ended, status, jitter, now)
    if status == 410:
        assert at == 0
    else:
        assert at == 0 or now < at <= min(ended + TELL_NS, now + 3600 * SECOND)


def test_pauses_double_up_to_their_cap() -> None:
    pauses = [retry_at(OPTIONS, job(), failures, 0, None, 0.999, 0) or 0 for failures in range(8)]
    assert [round(pause / SECOND) for pause in pauses] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_job_is_what_its_records_add_up_to() -> None:
    this = Job(job(webhook="crm"))
    assert (this.status, this.tries, this.to_tell, this.ended_at) == ("queued", 0, False, None)
    this.take(Begun(at=1, call="c"))
    assert (this.status, call_id(this, "new", 2), call_id(this, "new", 3600 * SECOND)) == ("running", "c", "new")
    this.take(Tried(at=2, retry_at=9 * SECOND, interrupted=True))
    assert (this.status, this.failures, call_id(this, "new", 3), this.due) == ("queued", 0, "new", 0)
    this.take(Begun(at=9, call="d"))
    this.take(Tried(at=10, retry_at=20, status=500))
    assert (this.failures, this.last is not None, this.due, look_again_s(this, 20 - 8 * SECOND)) == (1, True, 20, 8)
    this.take(Answered(at=21, ending="done", status=200, headers=(), body=b""))
    assert (this.status, this.tries, this.to_tell, this.ended_at) == ("done", 2, True, 21)
    this.take(Told(at=22, status=500, why="it answered 500", retry_at=30))
    assert (this.to_tell, this.due) == (True, 30)
    this.take(Told(at=30, status=200))
    assert (this.to_tell, this.tellings) == (False, 2)
