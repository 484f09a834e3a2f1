"""Windows: the span of time over which an account adds up.

Calendar windows are in UTC. A call belongs to the window it was reserved in,
so a call reserved a moment before midnight settles into the day that ended.
"""

import enum
from datetime import UTC, date, datetime, timedelta
from typing import assert_never

__all__ = ["DAY_MS", "Window", "window_end_ms", "window_name"]

DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1)


class Window(enum.StrEnum):
    """The kinds of windows; the names are those of the configuration."""

    SESSION = "session"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


def window_name(window: Window, *, now_ms: int) -> str:
    """Names the window that contains the instant, as part of an account's key.

    Returns `2026-11-25` for a day, `2026-11` for a month, and the kind itself
    for windows without a calendar.
    """
    match window:
        case Window.SESSION | Window.TOTAL:
            return window.value
        case Window.DAY:
            return _day(now_ms).isoformat()
        case Window.MONTH:
            return _day(now_ms).isoformat()[:7]
        case _:
            assert_never(window)


def window_end_ms(window: Window, *, now_ms: int) -> int | None:
    """Returns the first instant after the window; `None` without a calendar."""
    match window:
        case Window.SESSION | Window.TOTAL:
            return None
        case Window.DAY:
            return (now_ms // DAY_MS + 1) * DAY_MS
        case Window.MONTH:
            first = _day(now_ms).replace(day=1)
            following = (first + timedelta(days=31)).replace(day=1)
            end = datetime(following.year, following.month, 1, tzinfo=UTC)
            return int(end.timestamp()) * 1000
        case _:
            assert_never(window)


def _day(now_ms: int) -> date:
    return _EPOCH + timedelta(days=now_ms // DAY_MS)
