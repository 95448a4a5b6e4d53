import msgspec
from hypothesis import given
from hypothesis import strategies as st

from holdfast.testing.simulated_provider.answer import Answer, ToolUse, filler, json_tokens, limited
from holdfast.testing.simulated_provider.prompt import count

texts = st.text(max_size=60)
answers = st.builds(
    Answer,
    text=texts,
    reasoning=texts,
    calls=st.lists(st.builds(ToolUse, name=st.text(min_size=1, max_size=12), arguments=texts), max_size=3).map(tuple),
)


@given(texts)
def test_tokens_never_exceed_the_bytes_of_a_text(text: str) -> None:
    assert count(text) <= len(text.encode("utf-8", "surrogatepass"))


@given(texts)
def test_the_tokens_of_a_text_are_as_many_as_counted_and_join_to_it(text: str) -> None:
    tokens = json_tokens(text)
    assert len(tokens) == count(text)
    assert "".join(msgspec.json.decode(token) for token in tokens) == text


@given(answers, st.integers(1, 60))
def test_no_answer_is_longer_than_its_bound(answer: Answer, bound: int) -> None:
    cut = limited(answer, bound)
    assert cut.output_tokens <= bound
    assert cut.cut == (answer.output_tokens > bound)
    assert answer.text.startswith(cut.text)


@given(answers)
def test_an_answer_without_a_bound_stays_whole(answer: Answer) -> None:
    assert limited(answer, None) is answer


@given(st.integers(0, 3000))
def test_a_filler_has_exactly_so_many_tokens(tokens: int) -> None:
    assert count(filler(tokens)) == tokens
