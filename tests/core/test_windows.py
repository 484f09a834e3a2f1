"""Windows: days and months of UTC, at their very ends."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.windows import Window, window_end_ms, window_name

INSTANTS = st.datetimes(
    min_value=datetime(1960, 1, 1),
    max_value=datetime(2200, 1, 1),
    timezones=st.just(UTC),
)


def ms(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("last_day", "name", "following"),
    [
        ((2026, 1, 31), "2026-01", "2026-02"),
        ((2026, 2, 28), "2026-02", "2026-03"),
        ((2024, 2, 29), "2024-02", "2024-03"),
        ((2000, 2, 29), "2000-02", "2000-03"),
        ((2100, 2, 28), "2100-02", "2100-03"),
        ((2026, 4, 30), "2026-04", "2026-05"),
        ((2026, 12, 31), "2026-12", "2027-01"),
    ],
)
def test_a_month_ends_with_its_last_millisecond(
    last_day: tuple[int, int, int], name: str, following: str
) -> None:
    """Short months, leap years and the turn of a year; the end is exclusive."""
    end = ms(datetime(*last_day, tzinfo=UTC)) + 86_400_000

    assert window_name(Window.MONTH, now_ms=end - 1) == name
    assert window_name(Window.MONTH, now_ms=end) == following
    assert window_end_ms(Window.MONTH, now_ms=end - 1) == end
    assert window_end_ms(Window.DAY, now_ms=end - 1) == end


@given(INSTANTS)
def test_a_window_is_that_of_the_calendar(instant: datetime) -> None:
    """Every instant is in the day and month that `datetime` says, before their end."""
    now_ms = ms(instant)
    midnight = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)

    assert window_name(Window.DAY, now_ms=now_ms) == f"{instant:%Y-%m-%d}"
    assert window_name(Window.MONTH, now_ms=now_ms) == f"{instant:%Y-%m}"
    day_end = window_end_ms(Window.DAY, now_ms=now_ms)
    assert day_end == ms(midnight + timedelta(days=1))
    assert window_end_ms(Window.MONTH, now_ms=now_ms) == ms(next_month)


@pytest.mark.parametrize("window", [Window.SESSION, Window.TOTAL])
def test_a_window_without_a_calendar_has_no_end(window: Window) -> None:
    """A session's and the total account are the same for ever."""
    assert window_end_ms(window, now_ms=0) is None
    assert window_name(window, now_ms=0) == window_name(window, now_ms=2**45)
