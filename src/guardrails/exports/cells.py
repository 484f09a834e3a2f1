"""Cells: keeps spreadsheets from running what came from outside, and back. Pure."""

__all__ = ["inert", "restored"]

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A spreadsheet runs a cell that starts so; names come from outside."""


def inert(text: str) -> str:
    """Puts a quote before a text that a spreadsheet would run.

    Also before one that begins with a quote, so that `restored` is exact.
    """
    is_quoted = text.startswith("'")
    return (
        f"'{text}" if is_quoted or text.lstrip().startswith(_FORMULA_STARTS) else text
    )


def restored(cell: str) -> str:
    """Returns the text that a cell was made from."""
    return cell.removeprefix("'")
