"""What the gateway says when it takes no job, or has no answer to one."""

from collections.abc import Iterable

from holdfast.errors import did_you_mean
from holdfast.wire.call import Refusal


def queue_full(jobs: int) -> Refusal:
    """503 when as many jobs are kept as the configuration allows, ended ones too, or they take as many bytes."""
    message = (
        f"Refused by Holdfast, nothing was kept: {jobs} jobs are kept already. Fetch answers and DELETE their jobs, or raise jobs.max, "
        "jobs.max_size or lower jobs.keep in the configuration."
    )
    return Refusal(status=503, kind="job_queue_full", message=message, details={"jobs": jobs}, retry_after_s=10)


def unavailable(reason: str) -> Refusal:
    return Refusal(status=503, kind="jobs_unavailable", message=f"Refused by Holdfast, nothing was kept: {reason}.")


def unknown_webhook(name: str, known: Iterable[str]) -> Refusal:
    """400: only receivers that the configuration names are told."""
    message = f"Refused by Holdfast: the configuration has no webhook {name[:64]!r}{did_you_mean(name[:64], known)}"
    return Refusal(status=400, kind="unknown_webhook", message=message, param="x-holdfast-webhook")


def webhook_alone() -> Refusal:
    """400: the receiver would wait for ever."""
    message = (
        "Refused by Holdfast, nothing was spent: x-holdfast-webhook needs Prefer: respond-async beside it; else the answer comes here."
    )
    return Refusal(status=400, kind="webhook_without_job", message=message, param="x-holdfast-webhook")


def other_request() -> Refusal:
    """422, as the draft of the `Idempotency-Key` header asks for."""
    message = "Refused by Holdfast, nothing was kept: this Idempotency-Key came with another request before; take a new key for a new job."
    return Refusal(status=422, kind="idempotency_key_reused", message=message, param="idempotency-key")


def unknown_job(path: str) -> Refusal:
    message = f"Holdfast has nothing for you at {path[:100]}: no such job, or it is another agent's, or it was kept long enough."
    return Refusal(status=404, kind="unknown_job", message=message)


def not_ended(status: str, after_s: int) -> Refusal:
    message = f"The job is {status}; ask again in {after_s} s, or send Prefer: wait=SECONDS to wait here."
    return Refusal(status=409, kind="job_not_ended", message=message, details={"status": status}, retry_after_s=after_s)


def too_many_readers() -> Refusal:
    message = "Too many long answers of jobs are being fetched at once; ask for it again in a moment."
    return Refusal(status=503, kind="job_readers_busy", message=message, retry_after_s=5)


def cancelled() -> Refusal:
    return Refusal(status=410, kind="job_cancelled", message="The job was cancelled before it was tried; there is no answer.")


def running() -> Refusal:
    message = "The job is being tried right now, and what it costs is spent: it cannot be cancelled any more."
    return Refusal(status=409, kind="job_running", message=message, retry_after_s=1)


def without_agent(name: str) -> Refusal:
    """The configuration has changed since the job was taken."""
    message = f"Refused by Holdfast, nothing was spent: the configuration has no agent {name!r} any more."
    return Refusal(status=403, kind="unknown_key", message=message)


def expired() -> Refusal:
    message = "Holdfast gave the job up: its deadline passed before an answer came."
    return Refusal(status=504, kind="job_expired", message=message)


def answer_too_long(most: int) -> Refusal:
    message = f"Stopped by Holdfast: the answer is longer than the {most >> 20} MiB that a job may hold; ask for it without a job."
    return Refusal(status=502, kind="job_answer_too_long", message=message)
