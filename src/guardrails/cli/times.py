"""Times: spans as people write them on a command line, and instants for programs."""

import re
from datetime import UTC, datetime

from guardrails.errors import ConfigurationError

__all__ = ["seconds_of", "time_text"]

_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds_of(text: str, *, option: str) -> float:
    """Reads a span of time: `90s`, `30m`, `1h`, `2d`.

    Raises:
        ConfigurationError: If it is none.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ConfigurationError(
            f"{option}: {text!r} is no time. Write a number and its unit, s, m, h or "
            "d, as in 30m or 1h."
        )
    return float(found[1]) * _UNIT_SECONDS[found[2]]


def time_text(time_ms: int | None) -> str | None:
    """Writes an instant in ISO 8601, in UTC."""
    if time_ms is None:
        return None
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).isoformat(timespec="seconds")
