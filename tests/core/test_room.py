"""What fits: the largest output, found without trying all of them."""

from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.room import Room, fair_output, largest_output

TOKENS = st.integers(min_value=0, max_value=200_000)


@given(room=TOKENS, most=TOKENS)
def test_finds_the_largest_that_fits(room: int, most: int) -> None:
    found = largest_output(lambda tokens: tokens <= room, most=most)

    assert found == min(room, most)


@given(largest=TOKENS, expected=TOKENS)
def test_never_asks_for_more_than_fits(largest: int, expected: int) -> None:
    asked = fair_output(largest, expected=expected)

    assert largest // 2 <= asked <= largest
    assert asked >= min(largest, expected)


def test_no_limit_fits_everything() -> None:
    assert Room().fits(cost_nano_usd=10**15, tokens=10**9)
    assert not Room(tokens=9).fits(cost_nano_usd=0, tokens=10)
    assert not Room(cost_nano_usd=9).fits(cost_nano_usd=10, tokens=0)
