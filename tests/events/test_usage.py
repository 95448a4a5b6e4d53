"""Token counts add up; labels do not."""

from holdfast.events.usage import Usage, label


def test_a_sum_adds_every_count_and_no_label() -> None:
    one = Usage(input=1, output=2, cached_input=3, cache_write=4, cache_write_short=5, reasoning=6, web_searches=7, tier="fast", geo="us")
    assert (one + one).counts() == {name: 2 * count for name, count in one.counts().items()}
    assert set(one.counts().values()) == {1, 2, 3, 4, 5, 6, 7}
    assert ((one + one).tier, (one + one).geo) == ("", "")


def test_a_label_is_a_short_text_or_none() -> None:
    assert [label(value) for value in ("fast", "x" * 33, 7, None)] == ["fast", "", "", ""]
