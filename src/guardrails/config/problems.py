"""Problems: collects every defect of a configuration, to report them together."""

import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from guardrails.errors import ConfigurationError

__all__ = ["Place", "Problems", "did_you_mean", "key_path", "shown"]

PROBLEMS_SHOWN_MAX = 50
"""More lines than anybody mends in one go."""

INTEGER_BITS_SHOWN_MAX = 256
"""Python refuses to write integers above 4,300 digits; nobody reads half of it."""

KEY_CHARACTERS_SHOWN_MAX = 60
"""A longer key is no name but a mistake, and would hide the rest of the line."""

_PLAIN_KEY = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A position in a file. Lines and columns count from 1, as editors do."""

    source: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}"


class Problems:
    """The defects found so far."""

    def __init__(self) -> None:
        self._found: list[tuple[Place | None, str]] = []

    @property
    def is_full(self) -> bool:
        """Whether further messages are only counted."""
        return len(self._found) >= PROBLEMS_SHOWN_MAX

    def add(self, message: str, place: Place | None = None) -> None:
        """Adds a defect: the key, what is wrong with which value, and the fix."""
        self._found.append((place, message))

    def raise_if_any(self) -> None:
        """Raises them all.

        Raises:
            ConfigurationError: If there is a defect. Its message has one line
                for each, those of a file in the order of the file.
        """
        if not self._found:
            return
        found = sorted(self._found, key=lambda problem: _position(problem[0]))
        lines = [
            message if place is None else f"{place}: {message}"
            for place, message in found[:PROBLEMS_SHOWN_MAX]
        ]
        if len(found) > PROBLEMS_SHOWN_MAX:
            lines.append(f"… and {len(found) - PROBLEMS_SHOWN_MAX} more.")
        raise ConfigurationError("\n".join(lines))


def key_path(parent: str, key: str) -> str:
    """Returns the full path of a key, such as `agents."support-agent".session`."""
    return f"{parent}.{_quoted(key)}" if parent else _quoted(key)


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """Returns a sentence with the nearest known key, else with all of them."""
    known = sorted(known)
    near = get_close_matches(
        key[:KEY_CHARACTERS_SHOWN_MAX].lower(), known, n=1, cutoff=0.5
    )
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."


def shown(value: object) -> str:
    """Returns the `repr` of a value, cut to a length that fits into a line."""
    if isinstance(value, int) and value.bit_length() > INTEGER_BITS_SHOWN_MAX:
        return f"an integer of {value.bit_length()} bits"
    return _REPR.repr(value)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60
_REPR.maxlevel = 2


def _quoted(key: str) -> str:
    if _PLAIN_KEY.fullmatch(key) and len(key) <= KEY_CHARACTERS_SHOWN_MAX:
        return key
    if key.isprintable() and len(key) <= KEY_CHARACTERS_SHOWN_MAX:
        return f'"{key}"'
    return _REPR.repr(key)


def _position(place: Place | None) -> tuple[bool, int, int]:
    """Orders by position; what is not in a file comes last, as it was found."""
    return (place is None, place.line if place else 0, place.column if place else 0)
