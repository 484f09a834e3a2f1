"""Times: instants for programs."""

from datetime import UTC, datetime

__all__ = ["time_text"]


def time_text(time_ms: int | None) -> str | None:
    """Writes an instant in ISO 8601, in UTC."""
    if time_ms is None:
        return None
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).isoformat(timespec="seconds")
