"""Answers of jobs on their way out: whole for whoever reads, bounded for whoever does not."""

from holdfast.gateway.job_answers import TAKEN_NS, JobAnswers
from holdfast.testing import FakeClock, MemoryResponse

BODY = bytes(range(256)) * 1024
"""256 KiB: four pieces."""


class SlowReader(MemoryResponse):
    """Has room for one piece at a time."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.pausing is not None:
            self.pausing()


def test_a_long_answer_goes_out_piece_by_piece_as_it_is_read() -> None:
    answers, response = JobAnswers(FakeClock()), SlowReader()
    assert answers.send(response, 200, (), BODY)
    assert (len(response.writes), response.ended, response.length) == (1, False, len(BODY))
    for _ in range(3):
        assert answers.held == len(BODY) and response.resuming is not None
        response.resuming()
    assert response.ended and response.body == BODY and answers.held == 0


def test_answers_that_nobody_reads_take_bounded_memory_for_a_bounded_time() -> None:
    clock = FakeClock()
    answers, readers = JobAnswers(clock, 2 * len(BODY)), [SlowReader() for _ in range(3)]
    assert [answers.send(reader, 200, (), BODY) for reader in readers] == [True, True, False]
    assert readers[2].status == 0
    readers[0].leave()
    assert answers.held == len(BODY) and answers.send(readers[2], 200, (), BODY)
    clock.advance(TAKEN_NS)
    assert readers[1].aborted and readers[2].aborted and answers.held == 0


def test_one_answer_goes_out_however_long_it_is() -> None:
    answers, response = JobAnswers(FakeClock(), 1), MemoryResponse()
    assert answers.send(response, 200, (), BODY) and response.ended and response.body == BODY
