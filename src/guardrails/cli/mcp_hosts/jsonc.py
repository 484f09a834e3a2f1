"""JSON with comments, edited in place: all that is not replaced stays as it was.

The configuration files of MCP clients are written by people: with comments, trailing
commas and an order of their own. Writing the parsed content anew would lose them.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

__all__ = ["Edit", "Path", "Span", "edited", "inserted", "parse", "removed", "spans"]

Path = tuple[str, ...]
"""Keys from the outermost object inwards."""

_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"'  # A string, in which nothing is a comment.
    r"|//[^\n]*|/\*.*?\*/"
    # A comma before the end. Atomic: a ruler of slashes is read one way only.
    r"|,(?=(?>\s|//[^\n]*|/\*.*?\*/)*+[}\]])",
    re.DOTALL,
)
_SPACE = re.compile(r"\s*")
_COMMA = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*+,\s*", re.DOTALL)


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
    try:
        return json.loads(_plain(text))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def spans(text: str, paths: Iterable[Path]) -> dict[Path, Span]:
    """Returns where the values at these paths stand; what is not there is left out.

    The text is read once, however many paths there are: Claude Code keeps megabytes of
    other things in the file of its servers.
    """
    plain = _plain(text)
    found: dict[Path, Span] = {}
    _look(plain, _skip(plain, 0), (), frozenset(paths), found)
    return found


def inserted(text: str, array: Span, values: str) -> Edit:
    """Returns what puts values, separated by commas, before those of an array."""
    elements = _elements(text, array)
    if not elements:
        return Edit(Span(array.start + 1, array.start + 1), values)
    return Edit(Span(elements[0].start, elements[0].start), f"{values}, ")


def removed(text: str, array: Span, count: int) -> tuple[Edit, str]:
    """Returns what takes the first values out of an array, and the last of those."""
    elements = _elements(text, array)
    last = elements[count - 1]
    comma = _COMMA.match(text, last.end, array.end)
    end = last.end if comma is None else comma.end()
    return Edit(Span(elements[0].start, end), ""), text[last.start : last.end]


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
    return _TOKEN.sub(blank, re.sub("^\ufeff", " ", text))


def _look(
    plain: str, start: int, path: Path, wanted: frozenset[Path], found: dict[Path, Span]
) -> int:
    """Notes where the wanted values are in the one that starts here.

    Of a key that comes twice the last counts, as it does for a parser.

    Returns:
        Where this one ends.
    """
    inner = {one for one in wanted if len(one) > len(path)}
    if not inner or plain[start : start + 1] != "{":
        end = _end(plain, start)
    else:
        at = _skip(plain, start + 1)
        while plain[at] != "}":
            name, at = _decoded(plain, at)
            at = _skip(plain, _skip(plain, at) + 1)  # Past the colon.
            member = (*path, cast("str", name))
            for one in [one for one in found if one[: len(member)] == member]:
                del found[one]
            below = {one for one in inner if one[: len(member)] == member}
            at = _skip(plain, _look(plain, at, member, frozenset(below), found))
            if plain[at] == ",":
                at = _skip(plain, at + 1)
        end = at + 1
    if path in wanted:
        found[path] = Span(start, end)
    return end


def _elements(text: str, array: Span) -> Sequence[Span]:
    plain = _plain(text[array.start : array.end])
    elements: list[Span] = []
    at = _skip(plain, 1)
    while plain[at] != "]":
        end = _end(plain, at)
        elements.append(Span(array.start + at, array.start + end))
        at = _skip(plain, end)
        if plain[at] == ",":
            at = _skip(plain, at + 1)
    return elements


def _end(plain: str, start: int) -> int:
    return _decoded(plain, start)[1]


def _decoded(plain: str, start: int) -> tuple[object, int]:
    return cast("tuple[object, int]", json.JSONDecoder().raw_decode(plain, start))


def _skip(plain: str, at: int) -> int:
    found = _SPACE.match(plain, at)
    assert found is not None
    return found.end()
