"""Tables: lays columns of cells out in a width; the less important fall away.

Names come from outside: they are fitted by the cells they take on a terminal,
and lose what could move its cursor or reorder the line around them.
"""

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

__all__ = ["Column", "console_width", "cut", "print_lines", "table_lines"]

GAP = "  "

ID_WIDTH = 24
"""What ids may take from other columns, so that they are told apart."""

WIDTH_PIPED = 80
"""Columns at least where there is no terminal with an edge."""

_RIGHT_TO_LEFT = {"R", "AL", "AN"}
_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its cells from top to bottom."""

    title: str
    cells: Sequence[str]
    total: str = ""
    priority: int
    """Columns of the highest number fall away first; those of 1 always stay."""
    is_text: bool = False
    """Aligned left, and may be cut. What lacks least takes first what is left."""
    width_min: int = 10
    """Of text: cut further, it says nothing."""
    width_max: int = 16
    """Of text."""
    keeps_end: bool = False
    """Whether a text is an id: cut in its middle, and not so far that two that differ
    look the same, if `ID_WIDTH` is enough for that."""
    styles: Sequence[str] = ()
    """One per cell, or none."""
    natural: int = field(init=False)
    """The width of the widest cell."""
    narrowest: int = field(init=False)
    """The least width that still says something."""

    def __post_init__(self) -> None:
        widest = max(cell_len(cell) for cell in (self.title, *self.cells, self.total))
        width = min(widest, self.width_max) if self.is_text else widest
        object.__setattr__(self, "natural", width)

        least = min(width, self.width_min) if self.is_text else width
        if self.keeps_end:
            most = max(least, min(width, ID_WIDTH))
            widths = range(least, most)
            least += bisect_left(widths, self._told_apart(most), key=self._told_apart)
        object.__setattr__(self, "narrowest", least)

    def _told_apart(self, width: int) -> int:
        """Counts the ids that differ from one another in a width."""
        return len({cut(cell, width, keeps_end=True) for cell in self.cells})


def console_width(console: Console) -> int:
    """Returns the columns that a table may take."""
    return console.width if console.is_terminal else max(console.width, WIDTH_PIPED)


def print_lines(lines: Iterable[Text], console: Console) -> None:
    """Prints lines, each as one: what is too long for the terminal is not broken."""
    for line in lines:
        line.rstrip()  # Where it was wrapped.
        # A `Text` is no markup.
        console.print(line, soft_wrap=True)


def table_lines(columns: Sequence[Column], *, width: int) -> Iterator[Text]:
    """Lays the columns out.

    Args:
        columns: Left to right, with as many cells each.
        width: Of the terminal. Narrower than the columns that always stay, the
            lines are as wide as these.

    Yields:
        The titles, a line per row, and the totals.
    """
    kept = _fitting(columns, width)
    widths = _widths(kept, width)
    yield _line([column.title for column in kept], kept, widths, ["dim"] * len(kept))
    for row in range(len(kept[0].cells)):
        styles = [column.styles[row] if column.styles else "" for column in kept]
        yield _line([column.cells[row] for column in kept], kept, widths, styles)
    yield _line([column.total for column in kept], kept, widths, ["bold"] * len(kept))


def _fitting(columns: Sequence[Column], width: int) -> list[Column]:
    kept = list(columns)
    while _taken([column.narrowest for column in kept]) > width:
        last = max(column.priority for column in kept)
        if last == 1:
            break
        kept = [column for column in kept if column.priority != last]
    return kept


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """Gives what is left to the texts: as many as can be are shown in full."""
    widths = [column.narrowest for column in columns]
    lacking = [column.natural - column.narrowest for column in columns]
    for index in sorted(range(len(columns)), key=lacking.__getitem__):
        widths[index] += min(max(0, width - _taken(widths)), lacking[index])
    return widths


def _taken(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _line(
    cells: Sequence[str],
    columns: Sequence[Column],
    widths: Sequence[int],
    styles: Sequence[str],
) -> Text:
    line = Text(no_wrap=True)
    for column, cell, width, style in zip(columns, cells, widths, styles, strict=True):
        line.append(GAP if line else "")
        line.append(_fitted(cell, width, column), style=style)
    line.rstrip()
    return line


def _fitted(cell: str, width: int, column: Column) -> str:
    """Fits a cell into a width; wide characters take two, marks none."""
    if not column.is_text:
        return " " * (width - cell_len(cell)) + cell
    shown = cut(cell, width, keeps_end=column.keeps_end)
    padding = " " * (width - cell_len(shown))
    if any(unicodedata.bidirectional(one) in _RIGHT_TO_LEFT for one in shown):
        # Else a terminal that reorders would draw the numbers beside it into it.
        shown = f"{_ISOLATE}{shown}{_POP_ISOLATE}"
    return shown + padding


def cut(text: str, width: int, *, keeps_end: bool = False) -> str:
    """Cuts a text to the cells of a terminal that it may take."""
    if cell_len(text) <= width:
        return text
    end = _tail(text, (width - 1) // 2) if keeps_end else ""
    return set_cell_size(text, width - 1 - cell_len(end)).rstrip() + "…" + end


def _tail(text: str, width: int) -> str:
    return set_cell_size(text[::-1], width).rstrip()[::-1]
