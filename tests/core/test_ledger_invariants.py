"""The ledger's invariants, whatever the order of operations."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stores.scenarios import Checker, Scenario, codes_of, scripts, setups


@pytest.mark.timeout(400)  # Hypothesis takes up to five minutes to shrink a failure.
@settings(max_examples=300, deadline=None)
@given(setup=setups, script=scripts, is_honest=st.booleans())
def test_its_invariants_hold_whatever_the_order_of_operations(
    setup: bytes, script: bytes, is_honest: bool
) -> None:
    """Sums, verdicts, stops and thresholds agree with books kept apart."""
    scenario = Scenario(setup, is_honest)
    checker = Checker(scenario)
    for code in codes_of(script):
        checker.apply(scenario.operation(code, checker.ledger))
