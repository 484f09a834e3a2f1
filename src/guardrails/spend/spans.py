"""Spans: lengths of time as people write them."""

import re

from guardrails.errors import ConfigurationError

__all__ = ["seconds_of"]

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
            f"{option}: {text[:60]!r} is no time. Write a number and its unit, s, m, h "
            "or d, as in 30m or 1h."
        )
    return float(found[1]) * _UNIT_SECONDS[found[2]]
