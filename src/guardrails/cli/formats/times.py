"""Times: instants for programs."""

from datetime import UTC, datetime

__all__ = ["back_text", "time_text"]

DAY_HOURS = 24


def back_text(hours: int) -> str:
    """Says how far a report looks back: in days, if it is some whole ones."""
    days, rest = divmod(hours, DAY_HOURS)
    return f"last {hours:,} h" if rest or days < 2 else f"last {days:,} days"


def time_text(time_ms: int | None) -> str | None:
    """Writes an instant in ISO 8601, in UTC."""
    if time_ms is None:
        return None
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).isoformat(timespec="seconds")
