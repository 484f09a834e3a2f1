"""Rollups: the cells of an event, and the names in them."""

from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.events import Event
from guardrails.core.rollups import (
    MIX,
    ROLLUP_DIMENSIONS,
    Mix,
    Spend,
    cells_of,
    spend_of,
)
from tests.stores.spending import event_lists

texts = st.none() | st.text(min_size=1)


@given(names=st.tuples(*[texts] * len(Mix._fields)))
def test_names_of_a_mix_come_back(names: tuple[str | None, ...]) -> None:
    """Whatever is in them: quotes, brackets, wide and right-to-left text."""
    assert Mix.unpack(Mix(*names).pack()) == Mix(*names)


def test_a_mix_is_written_as_a_compact_array() -> None:
    """Files keep it: the order never changes, and what is added stands at the end."""
    mix = Mix(session_id="s-1", agent="Zoë", kind="tool", server="maps", tool='a"b')
    names = '"s-1","Zoë",null,null,null,null,null,"tool",null,null,"maps","a\\"b"'
    text = f"[{names},null,null]"

    assert mix.pack() == text
    assert Mix.unpack(text[:-1] + ',"of a later version"]') == mix


@given(events=event_lists())
def test_each_event_has_as_many_cells(events: list[Event]) -> None:
    """One per dimension, and one mix that the others are parts of."""
    for event in events:
        cells = dict(cells_of(event))
        mix = Mix.unpack(cells.pop(MIX) or "")

        assert len(cells) + 1 == len(ROLLUP_DIMENSIONS)
        for dimension in ("session_id", "agent", "customer_id", "user_id", "feature"):
            assert getattr(mix, dimension) == cells[dimension]


@given(events=event_lists())
def test_parts_are_never_more_than_their_whole(events: list[Event]) -> None:
    """Cached input, reasoning, and the cost of what failed."""
    total = Spend(name=None)
    for event in events:
        total = total.plus(spend_of(event))

    assert total.cache_read_tokens + total.cache_write_tokens <= total.input_tokens
    assert total.reasoning_tokens <= total.output_tokens
    assert total.failed_nano_usd <= total.total_nano_usd
    assert total.minus(total) == Spend(name=None)
