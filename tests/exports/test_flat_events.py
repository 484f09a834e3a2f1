"""Flat events: one row says what an event says, whichever way it was read."""

from hypothesis import given, settings
from hypothesis import strategies as st

from guardrails.core.events import Event
from guardrails.core.reporting.flat_events import flat_event
from guardrails.stores import rows
from guardrails.stores.sqlite.flat_rows import FLAT_COLUMNS, flat_events_of
from tests.exports.strategies import events


@settings(deadline=None)
@given(st.lists(events(), max_size=5))
def test_rows_of_a_file_say_what_their_events_say(drawn: list[Event]) -> None:
    """The short cut from columns to a flat event changes nothing."""
    columns = [
        dict(zip(rows.EVENT_COLUMNS, rows.event_row(event), strict=True))
        for event in drawn
    ]
    read = [
        [row["session_id" if "session_id" in name else name] for name in FLAT_COLUMNS]
        for row in columns
    ]

    assert flat_events_of(read) == [flat_event(event) for event in drawn]
