"""Amounts: money in a column, with decimals that line up, and parts of it."""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

from guardrails.core.money import usd

__all__ = ["money_cells", "percent_text"]

DECIMALS_MIN = 2
DECIMALS_MAX = 6
"""A millionth of a dollar: a token of a cheap model."""

LARGEST_DIGITS_MIN = 3
"""Digits that the largest amount shows: $0.645, not $0.65."""
LARGEST_DIGITS_MAX = 6
"""And at most, from a dollar up: more are noise beside it."""
SMALLEST_DIGITS = 2
"""Digits that the smallest amount shows, where there is room for them."""

UNKNOWN = "-"
NOTHING = "$0"


def money_cells(amounts_nano_usd: Sequence[int | None]) -> list[str]:
    """Writes the amounts of one column for people, padded to align right.

    All have as many decimals as the smallest needs, within reason: an amount
    that would read as zero beside a much larger one becomes `<$0.01`.

    Args:
        amounts_nano_usd: The amounts, top to bottom; `None` is not known.

    Returns:
        One cell per amount, in the same order.
    """
    known = [usd(nano) for nano in amounts_nano_usd if nano]
    decimals = _decimals(known) if known else 0
    return [_cell(nano, decimals) for nano in amounts_nano_usd]


def percent_text(part: float) -> str:
    """Writes a part of a whole; a little is not nothing."""
    return f"{part:.0%}" if not part or part >= 0.005 else "<1%"


def _decimals(amounts: Sequence[Decimal]) -> int:
    largest, smallest = max(amounts), min(amounts)
    room = _for_digits(largest, LARGEST_DIGITS_MAX) if largest >= 1 else DECIMALS_MAX
    wanted = max(
        _for_digits(largest, LARGEST_DIGITS_MIN),
        _for_digits(smallest, SMALLEST_DIGITS),
    )
    wanted = max(DECIMALS_MIN, min(wanted, room, DECIMALS_MAX))
    # Zeros at the end of all of them say nothing.
    used = max(_decimals_used(amount, wanted) for amount in amounts)
    return max(DECIMALS_MIN, used)


def _for_digits(amount: Decimal, digits: int) -> int:
    return digits - 1 - amount.adjusted()


def _decimals_used(amount: Decimal, decimals: int) -> int:
    exponent = _rounded(amount, decimals).normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def _rounded(amount: Decimal, decimals: int) -> Decimal:
    return amount.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP)


def _cell(nano: int | None, decimals: int) -> str:
    if not nano:
        # Stands above the point, as a whole number would.
        whole = UNKNOWN if nano is None else NOTHING
        return whole + " " * (decimals + 1 if decimals else 0)
    rounded = _rounded(usd(nano), decimals)
    return f"${rounded:,f}" if rounded else f"<${Decimal(1).scaleb(-decimals):f}"
