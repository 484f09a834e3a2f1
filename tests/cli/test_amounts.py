"""Money in a column: enough digits to tell amounts apart, points below each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails.cli.screens.amounts import money_cells
from guardrails.core.money import LIMIT_NANO_USD_MAX, NANO_PER_USD, format_usd


def nano(*amounts: str) -> list[int]:
    return [int(float(amount) * NANO_PER_USD + 0.5) for amount in amounts]


@pytest.mark.parametrize(
    ("amounts", "cells"),
    [
        (("0.435", "0.5", "0.015"), ["$0.435", "$0.500", "$0.015"]),
        (("1", "25"), ["$1.00", "$25.00"]),
        (("0.005",), ["$0.005"]),
        (("0.0000054",), ["$0.000005"]),
        (("47", "0.056"), ["$47.000", "$0.056"]),
        (("12345678",), ["$12,345,678.00"]),
    ],
    ids=["cents", "dollars", "below a cent", "a token", "mixed", "large"],
)
def test_the_smallest_amount_chooses_the_decimals(
    amounts: tuple[str, ...], cells: list[str]
) -> None:
    """All amounts of a column have as many decimals as its smallest needs."""
    assert money_cells(nano(*amounts)) == cells


def test_an_amount_too_small_for_its_column_is_not_nothing() -> None:
    """Beside a large amount, a token's price is shown as less than a cent."""
    assert money_cells(nano("10000", "0.0001")) == ["$10,000.00", "<$0.01"]


def test_nothing_and_unknown_stand_above_the_point() -> None:
    """Zero and an unknown amount differ, and neither moves the column."""
    assert money_cells([25 * 10**7, 0, None]) == ["$0.25", "$0   ", "-   "]


def test_a_column_of_nothing_is_narrow() -> None:
    """Without any amount no decimals are kept free."""
    assert money_cells([0, None]) == ["$0", "-"]


@given(st.lists(st.one_of(st.none(), st.integers(0, 2**53)), min_size=1, max_size=12))
def test_points_line_up_and_nothing_reads_as_zero(amounts: list[int | None]) -> None:
    """Aligned right, every point is in one column, and only zero is zero."""
    cells = money_cells(amounts)

    points = {len(cell) - cell.index(".") for cell in cells if "." in cell}
    assert len(points) <= 1
    for amount, cell in zip(amounts, cells, strict=True):
        has_digit = bool(set(cell) & set("123456789"))
        assert has_digit == bool(amount)


@given(st.integers(NANO_PER_USD, LIMIT_NANO_USD_MAX))
def test_an_amount_reads_alike_in_a_column_and_in_a_sentence(nano_usd: int) -> None:
    assert money_cells([nano_usd]) == [format_usd(nano_usd)]
