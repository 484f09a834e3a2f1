"""Values: reads single settings, from the text of a file or variable or from code.

A reader takes the value and the full name of its key, and raises a
`ValueError` whose message starts with that name.
"""

import enum
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Protocol, TypeVar

from guardrails.config.problems import did_you_mean, shown
from guardrails.core.attribution import check_name
from guardrails.core.money import EXACT, LIMIT_NANO_USD_MAX, nano_usd, usd

__all__ = [
    "TIMES_MAX",
    "Reader",
    "amount_nano_usd",
    "count",
    "flag",
    "member",
    "name_text",
    "one_of",
    "rate_usd",
    "ratio",
    "seconds_ms",
    "text",
    "times",
]

NUMBER_CHARACTERS_MAX = 60
"""The largest amount with all its decimals has 17 digits."""

TIMES_MAX = 1_000
"""What is a thousand times the usual is seen without a rule."""

_COUNT = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)

T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E", bound=enum.StrEnum)


class Reader(Protocol[T_co]):
    """Reads one value."""

    def __call__(self, value: object, /, *, name: str) -> T_co:
        """Returns the value, or raises a `ValueError` that starts with the name."""
        ...


def amount_nano_usd(value: object, /, *, name: str) -> int:
    """Reads an amount in USD, exactly or not at all."""
    is_text = isinstance(value, str) and len(value) <= NUMBER_CHARACTERS_MAX
    if not (is_text or isinstance(value, bool)) and _number_text(value) is None:
        raise ValueError(
            f"{name}: {shown(value)} is not an amount in USD. "
            'Write a number or a decimal string, for example "0.50".'
        )
    return nano_usd(value, name=name)


def rate_usd(value: object, /, *, name: str) -> Decimal:
    """Reads a rate in USD per million tokens."""
    return usd(amount_nano_usd(value, name=name))


def count(value: object, /, *, name: str) -> int:
    """Reads a whole number of at least 0."""
    written = _number_text(value)
    if written is None or not _COUNT.fullmatch(written):
        raise ValueError(
            f"{name}: {shown(value)} is not a whole number of at least 0. "
            "Write digits only, for example 40."
        )
    return _within_limits(int(written), value, name=name)


def seconds_ms(value: object, /, *, name: str) -> int:
    """Reads a number of seconds with at most three decimals, as milliseconds."""
    written = _number_text(value)
    if written is None or not _DECIMAL.fullmatch(written):
        raise ValueError(
            f"{name}: {shown(value)} is not a number of seconds of at least 0. "
            "Write digits and at most one point, for example 120."
        )
    milliseconds = Decimal(written).scaleb(3, EXACT)
    if milliseconds != milliseconds.to_integral_value():
        raise ValueError(
            f"{name}: {shown(value)} is finer than a millisecond. "
            "Write at most three decimals."
        )
    return _within_limits(int(milliseconds), value, name=name)


def ratio(value: object, /, *, name: str) -> Decimal:
    """Reads a fraction above 0 and at most 1."""
    written = _number_text(value)
    if written is None or not _DECIMAL.fullmatch(written):
        raise ValueError(
            f"{name}: {shown(value)} is not a fraction. Write a number above 0 and "
            "at most 1, for example 0.8."
        )
    if not 0 < Decimal(written) <= 1:
        raise ValueError(
            f"{name}: {shown(value)} must be above 0 and at most 1. "
            "For an amount of money use soft_alert_usd."
        )
    return Decimal(written)


def times(value: object, /, *, name: str) -> float:
    """Reads how many times the usual something is: above 1, at most 1,000."""
    written = _number_text(value)
    is_number = written is not None and _DECIMAL.fullmatch(written)
    if not is_number or not 1 < Decimal(written or 0) <= TIMES_MAX:
        raise ValueError(
            f"{name}: {shown(value)} is not a number above 1 and at most "
            f"{TIMES_MAX:,}. Write how many times the usual is unusual, for example 3."
        )
    return float(Decimal(written or 0))


def text(value: object, /, *, name: str) -> str:
    """Reads a text that is not empty. It may be a secret: messages leave it out."""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise ValueError(f"{name}: a value of type {kind} is not a text. Quote it.")
    if not value.strip():
        raise ValueError(f"{name}: the text is empty. Write it or remove the key.")
    return value.strip()


def flag(value: object, /, *, name: str) -> bool:
    """Reads true or false; as a text too, which is what a variable holds."""
    found = {"true": True, "false": False}.get(str(value).lower())
    if found is None or not isinstance(value, bool | str):
        raise ValueError(f"{name}: {shown(value)} is neither true nor false.")
    return found


def name_text(value: object, /, *, name: str) -> str:
    """Reads a name: not empty, bounded, without control characters."""
    return check_name(value, key=name)


def member(kind: type[E]) -> Reader[E]:
    """Returns the reader of an enumeration."""
    choice = one_of(*(each.value for each in kind))

    def read(value: object, /, *, name: str) -> E:
        return kind(choice(value, name=name))

    return read


def one_of(*choices: str) -> Reader[str]:
    """Returns the reader of a closed set of words."""

    def read(value: object, /, *, name: str) -> str:
        if isinstance(value, str) and value in choices:
            return str(value)
        raise ValueError(
            f"{name}: {shown(value)} is not one of {', '.join(choices)}."
            f"{_hint(value, choices)}"
        )

    return read


def _hint(value: object, choices: Iterable[str]) -> str:
    if isinstance(value, bool):
        return " Put it in quotes."  # A YAML 1.1 loader reads a bare `off` as False.
    near = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f" {near}" if near.startswith("Did") else ""


def _number_text(value: object) -> str | None:
    """Returns a number as it is written; `None` for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value) if value.bit_length() < 4 * NUMBER_CHARACTERS_MAX else None
    if isinstance(value, float):
        value = Decimal(float.__repr__(value))
    if isinstance(value, Decimal):
        if not value.is_finite() or abs(value.adjusted()) > NUMBER_CHARACTERS_MAX:
            return str(value)[:NUMBER_CHARACTERS_MAX]
        value = f"{value:f}"
        value = value.rstrip("0").rstrip(".") if "." in value else value
    if not isinstance(value, str) or len(value) > NUMBER_CHARACTERS_MAX:
        return None
    return value.strip()


def _within_limits(number: int, value: object, *, name: str) -> int:
    if number > LIMIT_NANO_USD_MAX:
        raise ValueError(
            f"{name}: {shown(value)} is above the largest limit. Write a smaller one."
        )
    return number
