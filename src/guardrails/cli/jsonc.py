"""JSON with comments, edited in place: all that is not replaced stays as it was.

The configuration files of MCP clients are written by people: with comments, trailing
commas and an order of their own. Writing the parsed content anew would lose them.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

__all__ = ["Edit", "Span", "edited", "find", "parse"]

_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"'  # A string, in which nothing is a comment.
    r"|//[^\n]*|/\*.*?\*/"
    # A comma before the end. Atomic: a ruler of slashes is read one way only.
    r"|,(?=(?>\s|//[^\n]*|/\*.*?\*/)*+[}\]])",
    re.DOTALL,
)
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Span:
    """Where a value stands in the text: from the first character to past the last."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Edit:
    """A span and what it is replaced with."""

    span: Span
    text: str


def parse(text: str) -> object:
    """Returns the value of a text.

    Raises:
        ValueError: If it is no JSON, even without comments; a `JSONDecodeError` says
            where.
    """
    return json.loads(_plain(text))


def find(text: str, path: Sequence[str]) -> Span | None:
    """Returns where the value at a path of keys stands; `None` if there is none.

    Args:
        text: JSON with comments.
        path: The keys from the outermost object inwards.
    """
    plain = _plain(text)
    start = _skip(plain, 0)
    for key in path:
        found = _member(plain, start, key)
        if found is None:
            return None
        start = found
    return Span(start, _end(plain, start))


def edited(text: str, edits: Sequence[Edit]) -> str:
    """Returns the text with the edits, whose spans do not overlap."""
    for edit in sorted(edits, key=lambda edit: edit.span.start, reverse=True):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text


def _plain(text: str) -> str:
    """Returns JSON of the same length: what JSON does not know becomes spaces."""

    def blank(token: re.Match[str]) -> str:
        if token[0].startswith('"'):
            return token[0]
        return re.sub(r"[^\n]", " ", token[0])

    # A byte order mark is no comment, but no JSON either.
    return _TOKEN.sub(blank, text.replace("\ufeff", " ", 1))


def _member(plain: str, start: int, key: str) -> int | None:
    """Returns where the value of a key starts in the object that starts here.

    Of a key that comes twice the last counts, as it does for a parser.
    """
    if plain[start : start + 1] != "{":
        return None
    found: int | None = None
    at = _skip(plain, start + 1)
    while plain[at] != "}":
        name, at = _decoded(plain, at)
        at = _skip(plain, _skip(plain, at) + 1)  # Past the colon.
        if name == key:
            found = at
        at = _skip(plain, _end(plain, at))
        if plain[at] == ",":
            at = _skip(plain, at + 1)
    return found


def _end(plain: str, start: int) -> int:
    return _decoded(plain, start)[1]


def _decoded(plain: str, start: int) -> tuple[object, int]:
    return cast("tuple[object, int]", json.JSONDecoder().raw_decode(plain, start))


def _skip(plain: str, at: int) -> int:
    found = _SPACE.match(plain, at)
    assert found is not None
    return found.end()
