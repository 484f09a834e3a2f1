"""FOCUS: hourly charges that add up to what was booked, by the rules of 1.2."""

import io
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus
from guardrails.core.events import Event
from guardrails.core.reporting.flat_events import FlatEvent, flat_event
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.core.usage import Charge, PriceStatus, TokenUsage
from guardrails.exports import open_writer
from guardrails.exports.focus import FOCUS_COLUMNS, Charges, FocusRow
from guardrails.exports.meters import METERS, shares
from tests.exports.strategies import events, no_rates

HOUR = 490_000
RATES = (4, 2, 5, 10)


def rates(provider: str | None, model: str, now_ms: int) -> Sequence[int] | None:
    return RATES if model == "gpt-4o" else None


def charges_of(*drawn: Event) -> tuple[list[FocusRow], int]:
    charges = Charges(rates)
    rows = [row for event in drawn for row in charges.add([flat_event(event)])]
    return [*rows, *charges.rest()], charges.unpriced_calls


def model_event(number: int = 0, *, hour: int = HOUR, cost: int | None = 700) -> Event:
    status = PriceStatus.UNPRICED if cost is None else PriceStatus.PRICED
    return Event(
        event_id=str(number),
        time_ms=hour * HOUR_MS + number,
        attribution=Attribution(
            project_id="shop",
            customer_id="acme",
            feature="triage",
            agent="support",
            agent_path=("router", "support"),
            session_id=f"s-{number}",
            tags=(("env", "prod"),),
        ),
        kind=CallKind.MODEL,
        provider="openai",
        model="gpt-4o",
        status=CallStatus.OK,
        usage=TokenUsage(input_tokens=100, cache_read_tokens=50, output_tokens=20),
        charge=Charge(cost_nano_usd=cost, status=status, source="genai-prices"),
        reserved_nano_usd=0,
    )


def tool_event(cost: int = 5_000_000) -> Event:
    return replace(
        model_event(7, cost=cost),
        kind=CallKind.TOOL,
        provider=None,
        model=None,
        server="maps",
        tool="geocode",
        usage=None,
    )


@given(
    st.integers(0, 10**15),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=6).filter(any),
)
def test_shares_add_up_and_are_off_by_less_than_one(
    cost: int, weights: list[int]
) -> None:
    parts = shares(cost, weights)

    assert sum(parts) == cost
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - cost * weight) < sum(weights)
        assert weight or not part
    lost = [cost * weight % sum(weights) for weight in weights]
    went_up = [
        part > cost * weight // sum(weights)
        for part, weight in zip(parts, weights, strict=True)
    ]
    kept = [loss for loss, is_up in zip(lost, went_up, strict=True) if not is_up]
    raised = [loss for loss, is_up in zip(lost, went_up, strict=True) if is_up]
    assert min(raised, default=0) >= max(kept, default=0) or not raised


def test_a_model_call_has_a_row_per_class_of_tokens() -> None:
    """Its cost is divided by rates: 200, 100 and 200 parts of 500."""
    rows, _ = charges_of(model_event())

    assert [row["SkuMeter"] for row in rows] == [
        "Input Tokens",
        "Cached Input Tokens",
        "Output Tokens",
    ]
    assert [row["BilledCost"] for row in rows] == [
        Decimal("0.000000280"),
        Decimal("0.000000140"),
        Decimal("0.000000280"),
    ]
    assert [row["ConsumedQuantity"] for row in rows] == [50, 50, 20]
    first = rows[0]
    assert first["SkuId"] == "openai/gpt-4o/Input Tokens"
    assert first["PricingUnit"] == "1000000 Tokens"
    assert first["ListUnitPrice"] == Decimal("0.0056")
    assert first["ResourceId"] == "router/support"
    assert first["SubAccountId"] == "acme"
    assert first["BillingAccountId"] == "shop"
    assert first["Tags"] == '{"env": "prod", "guardrails/feature": "triage"}'


def test_the_fee_of_a_tool_is_a_row() -> None:
    rows, _ = charges_of(tool_event(), tool_event())

    assert [row["ServiceCategory"] for row in rows] == ["Integration"]
    assert rows[0]["ServiceName"] == "maps/geocode"
    assert (rows[0]["ConsumedUnit"], rows[0]["ConsumedQuantity"]) == ("Calls", 2)
    assert rows[0]["BilledCost"] == Decimal("0.01")


def test_calls_of_an_hour_are_one_charge() -> None:
    """Sessions are not told apart, hours are; an hour is written once it is over."""
    charges = Charges(rates)
    here = [flat_event(model_event(number)) for number in range(3)]
    later = flat_event(model_event(hour=HOUR + 3))
    rows = [*charges.add(here), *charges.add([later])]

    assert [row["x_Calls"] for row in rows] == [3, 3, 3]
    assert sum(Decimal(str(row["BilledCost"])) for row in rows) == Decimal("0.0000021")
    assert len(list(charges.rest())) == 3


def test_a_call_of_unknown_cost_is_counted_and_no_charge() -> None:
    """Unknown is not 0, and a charge without an amount is against the rules."""
    assert charges_of(model_event(cost=None)) == ([], 1)


@settings(deadline=None)
@given(st.lists(events(), max_size=8))
def test_charges_add_up_to_what_was_booked(drawn: list[Event]) -> None:
    """To the nano-dollar, and every rule of a row holds."""
    rows, unpriced = charges_of(*drawn)
    known = [event.charge.cost_nano_usd for event in drawn]

    billed = sum(Decimal(str(row["BilledCost"])) for row in rows)
    assert billed * 10**9 == sum(cost or 0 for cost in known)
    assert unpriced == known.count(None)
    for row in rows:
        _check_rules(row)


def _check_rules(row: FocusRow) -> None:
    """What the specification asks of a charge for usage."""
    optional = {name for name, value in row.items() if value is None}
    assert list(row) == list(FOCUS_COLUMNS)
    assert optional <= {
        "ChargeClass",
        "InvoiceId",
        "ResourceId",
        "ResourceName",
        "ResourceType",
        "SkuPriceDetails",
        "x_CostSource",
        "x_Model",
    }
    assert len({value for name, value in row.items() if name.endswith("Cost")}) == 1
    price, quantity = row["ListUnitPrice"], row["PricingQuantity"]
    assert isinstance(price, Decimal)
    assert isinstance(quantity, Decimal)
    assert quantity > 0
    assert round(price * quantity, 9) == row["ListCost"]
    assert str(row["ChargePeriodStart"]) < str(row["ChargePeriodEnd"])
    assert row["BillingPeriodStart"] <= row["ChargePeriodStart"]  # type: ignore[operator]
    assert row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]  # type: ignore[operator]
    if row["SkuMeter"] in METERS:
        assert row["ConsumedQuantity"] == quantity * 10**6


def sample() -> list[FlatEvent]:
    found = [model_event(number, hour=HOUR + number % 5) for number in range(60)]
    nobody = replace(model_event(), attribution=Attribution(session_id="s"))
    return [flat_event(event) for event in (*found, tool_event(), nobody)]


VALIDATOR = os.environ.get("FOCUS_PYTHON")
"""A Python with focus-validator, which needs one of its own: see `make test-focus`."""

FIND = "import focus_validator as found; print(*found.__path__)"


@pytest.mark.skipif(VALIDATOR is None, reason="make test-focus runs focus-validator")
def test_the_validator_of_the_specification_agrees(tmp_path: Path) -> None:
    """But for two rules about invoices, which contradict each other."""
    assert VALIDATOR is not None
    out = io.BytesIO()
    writer = open_writer("focus", out, no_rates)
    writer.write(sample())
    writer.finish()
    file = tmp_path / "focus.csv"
    file.write_bytes(out.getvalue())
    found = subprocess.run(
        [VALIDATOR, "-c", FIND], capture_output=True, check=True, text=True, timeout=50
    )
    done = subprocess.run(
        [
            *(VALIDATOR, "-m", "focus_validator.main"),
            *("--data-file", str(file), "--validate-version", "1.2"),
        ],
        capture_output=True,
        check=False,
        cwd=Path(found.stdout.strip()).parent,  # It reads its rules from there.
        text=True,
        timeout=50,
    )
    failed = [line for line in done.stdout.splitlines() if ": FAIL" in line]

    assert "Pass:" in done.stdout
    assert [line.split(":")[0].split()[-1] for line in failed] == ["InvoiceId-C-005-C"]
