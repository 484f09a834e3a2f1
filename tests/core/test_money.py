"""Money: exact or refused, whatever it is written as."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.money import (
    LIMIT_NANO_USD_MAX,
    NANO_PER_USD,
    format_usd,
    nano_usd,
    usd,
)

NANOS = st.integers(min_value=0, max_value=LIMIT_NANO_USD_MAX)


@pytest.mark.parametrize(
    ("amount", "nano"),
    [
        (0, 0),
        (1, 10**9),
        ("0.50", 500_000_000),
        (0.5, 500_000_000),
        (0.1, 100_000_000),
        (Decimal("0.000000001"), 1),
        ("0.1000000000000", 100_000_000),
        (1e-9, 1),
        (2.5e3, 2_500 * 10**9),
        (" 1.00 ", 10**9),
        ("007", 7 * 10**9),
        (-0.0 + 0.0, 0),
        (Decimal("9007199.254740991"), LIMIT_NANO_USD_MAX),
    ],
)
def test_converts_exactly(amount: object, nano: int) -> None:
    """Integers, floats as they are written, decimals and strings are one amount."""
    assert nano_usd(amount, name="k") == nano


@pytest.mark.parametrize(
    "amount",
    [
        -1,
        -0.01,
        "-0.5",
        Decimal("-0"),
        "+1",
        math.nan,
        math.inf,
        -math.inf,
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        "nan",
        "inf",
        float("1e400"),
        "1e400",
        Decimal("1e400"),
        10**400,
        "1e3",
        True,
        False,
        None,
        "",
        " ",
        ".5",
        "5.",
        "1,50",
        "1_000",
        "१२",
        "٣",
        "１",
        "0x10",
        "$1",
        "1 000",
        "1\n2",
        "1\x00",
        b"1",
        [1],
        1 + 0j,
        Fraction(1, 3),
        "9" * 100_000,
    ],
    ids=lambda amount: repr(amount)[:20],
)
def test_refuses_what_is_no_amount(amount: object) -> None:
    """The message names the key; nothing is rounded, guessed or overflows."""
    with pytest.raises(ValueError, match=r"^budgets\[2\].limit: .* amount"):
        nano_usd(amount, name="budgets[2].limit")


def test_a_drifted_float_is_refused_with_what_was_meant() -> None:
    """0.1 + 0.2 is not 0.3; whoever computed it is told to write a string."""
    with pytest.raises(ValueError, match="Floats drift: Write the amount") as caught:
        nano_usd(0.1 + 0.2, name="k")

    assert '"0.3"' in str(caught.value)


def test_a_tenth_decimal_is_refused_and_not_rounded() -> None:
    """There is no half of a nano-dollar, and a string did not drift."""
    with pytest.raises(ValueError, match="more than 9 decimals") as caught:
        nano_usd("0.0000000015", name="k")

    assert "drift" not in str(caught.value)


@pytest.mark.parametrize("amount", ["0.0000000001", 1e-10])
def test_what_is_too_small_is_not_advised_to_become_nothing(amount: object) -> None:
    """A limit of 0 refuses every call."""
    with pytest.raises(ValueError, match=r'for example "0\.000000001"\.$'):
        nano_usd(amount, name="k")


def test_the_largest_amount_is_what_every_store_can_count() -> None:
    """One nano-dollar more is refused, and the message says what is allowed."""
    assert nano_usd("9007199.254740991", name="k") == 2**53 - 1
    with pytest.raises(ValueError, match=r"largest amount, 9007199\.254740991 USD"):
        nano_usd("9007199.254740992", name="k")


@given(NANOS)
def test_amounts_survive_the_way_out_and_in(nano: int) -> None:
    """`usd` is exact, and its text is an amount again."""
    amount = usd(nano)

    assert amount * NANO_PER_USD == nano
    assert nano_usd(amount, name="k") == nano
    assert nano_usd(f"{amount:f}", name="k") == nano


@given(NANOS)
def test_a_float_is_taken_as_it_is_written_or_refused(nano: int) -> None:
    """What YAML makes of a number never becomes another amount."""
    number = float(usd(nano))
    try:
        read = nano_usd(number, name="k")
    except ValueError:
        assert len(repr(number).partition(".")[2]) > 9 or number * 1e9 > 2**53 - 1
    else:
        assert Decimal(repr(number)) * NANO_PER_USD == read


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (None, "-"),
        (0, "$0.00"),
        (10**9, "$1.00"),
        (13_500_000, "$0.0135"),
        (500_000_000, "$0.50"),
        (1_234_567_890, "$1.23"),
        (123, "$0.00"),
        (1_000, "$0.000001"),
        (44_625_000_000, "$44.63"),
        (1_234_567_890_000, "$1,234.57"),
    ],
)
def test_is_shown_with_cents_at_least(nano: int | None, text: str) -> None:
    """Below a dollar up to six decimals; unknown is no zero."""
    assert format_usd(nano) == text
