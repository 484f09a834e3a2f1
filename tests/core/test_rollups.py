"""Rollups: the cells of an event, and the names in them."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.reporting.rollups import (
    MIX,
    ROLLUP_DIMENSIONS,
    Mix,
    Spend,
    cells_of,
    spend_of,
)
from guardrails.core.usage import Charge, PriceStatus, TokenUsage
from tests.stores.spending import event_lists

EVENT = Event(
    event_id="e",
    time_ms=0,
    attribution=Attribution(),
    kind=CallKind.MODEL,
    status=CallStatus.OK,
    charge=Charge(cost_nano_usd=7, status=PriceStatus.PRICED, source="s"),
    reserved_nano_usd=9,
)

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


def test_what_a_model_call_adds() -> None:
    """Each number once: they are kept by their place."""
    event = replace(
        EVENT,
        model="m",
        usage=TokenUsage(
            input_tokens=90,
            output_tokens=60,
            cache_read_tokens=10,
            cache_write_tokens=20,
            reasoning_tokens=30,
        ),
        charge=Charge(cost_nano_usd=7, status=PriceStatus.ESTIMATED, source="s"),
        latency_ms=8,
    )

    assert spend_of(event, name="m") == Spend(
        name="m",
        model_nano_usd=7,
        model_calls=1,
        input_tokens=90,
        output_tokens=60,
        cache_read_tokens=10,
        cache_write_tokens=20,
        reasoning_tokens=30,
        estimated_calls=1,
        latency_ms=8,
    )


def test_what_a_tool_call_that_failed_adds() -> None:
    event = replace(
        EVENT,
        kind=CallKind.TOOL,
        tool="t",
        status=CallStatus.ERROR,
        bytes_in=3,
        bytes_out=4,
    )
    unpriced = replace(
        event,
        charge=Charge(cost_nano_usd=None, status=PriceStatus.UNPRICED, source="s"),
    )

    assert spend_of(event) == Spend(
        name=None,
        tool_nano_usd=7,
        tool_calls=1,
        failed_calls=1,
        failed_nano_usd=7,
        bytes_in=3,
        bytes_out=4,
    )
    assert spend_of(unpriced).unpriced_calls == 1
