"""Priced: the price of what was called, and whether it is the expected one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from guardrails.config import Configuration, load_configuration
from guardrails.core.calls import CallKind
from guardrails.core.money import usd_digits
from guardrails.prices import ModelPrice, Prices
from guardrails.prices.rates import RATE_DECIMALS, RateCard
from guardrails.reports.called import Called

__all__ = ["RATES", "Priced", "differences", "expected_prices", "label", "priced"]

RATES = {
    "input_per_1m_usd": "input",
    "output_per_1m_usd": "output",
    "cache_read_per_1m_usd": "cache_read",
    "cache_write_per_1m_usd": "cache_write",
    "cache_write_1h_per_1m_usd": "cache_write_1h",
}
"""Rates of a model as a configuration names them, and as they are kept."""

_SOURCES = {"config": "yours", None: "unknown"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """What was called, and what it costs now."""

    called: Called
    rates: dict[str, Decimal]
    """Of a model: USD per million tokens by the names of `RATES`, for the smallest
    prompts; empty if it has none."""
    per_call_nano_usd: int | None
    """Of a tool: as configured, else what its last call cost."""
    source: str
    """`yours`, `genai-prices` with its version, `reported` or `unknown`."""


def priced(
    called: Sequence[Called], configuration: Configuration, *, now_ms: int
) -> list[Priced]:
    """Looks up the price of what was called."""
    book = Prices(configuration.model_prices, configuration.aliases)
    return [
        _model(one, book, now_ms)
        if one.kind is CallKind.MODEL
        else _tool(one, configuration)
        for one in called
    ]


def expected_prices(path: Path) -> Configuration:
    """Reads the prices that are expected: `models` and `tools` of a configuration.

    Raises:
        ConfigurationError: If the file cannot be read, or is wrong.
    """
    return load_configuration(path, environ={}, cwd=Path.cwd(), overrides={})


def differences(
    rows: Sequence[Priced],
    expected: Configuration,
    configuration: Configuration,
    *,
    now_ms: int,
) -> Iterator[str]:
    """Names each price that is not the expected one, and each that nobody expects."""
    entries = {
        name: (price, Prices({name: price}))
        for name, price in expected.model_prices.items()
    }
    unseen = dict(entries)
    for row in rows:
        one = row.called
        if one.kind is CallKind.TOOL:
            yield from _tool_differences(row, expected)
            continue
        for name, (price, book) in entries.items():
            card = book.card(provider=one.provider, model=one.name, now_ms=now_ms)
            if card.source == "config":
                unseen.pop(name, None)
                yield from _rate_differences(label(one), price, row.rates)
                break
        else:
            yield f"{label(one)}: is called, and no price is expected"
    actual = Prices(configuration.model_prices, configuration.aliases)
    for name, (price, _) in unseen.items():
        card = actual.card(provider=None, model=name, now_ms=now_ms)
        yield from _rate_differences(name, price, _rates(card))


def label(called: Called) -> str:
    """Names what was called: `openai/gpt-4o`, `maps/geocode`."""
    return f"{called.provider}/{called.name}" if called.provider else called.name


def _rate_differences(
    name: str, price: ModelPrice, rates: Mapping[str, Decimal]
) -> Iterator[str]:
    for key in RATES:
        value: Decimal | None = getattr(price, key)
        is_now = rates.get(key)
        if value is not None and value != is_now:
            shown = "unknown" if is_now is None else f"{is_now.normalize():f}"
            yield f"{name}: {key} is {shown}, expected {value.normalize():f}"


def _tool_differences(row: Priced, expected: Configuration) -> Iterator[str]:
    rule = expected.policy.tool_rule(row.called.name)
    cost, is_now = rule and rule.cost_nano_usd, row.per_call_nano_usd
    if cost is None:
        if is_now is not None:
            yield f"{row.called.name}: is called, and no price is expected"
    elif cost != is_now:
        shown = "unknown" if is_now is None else usd_digits(is_now)
        yield (
            f"{row.called.name}: cost_per_call_usd is {shown}, expected "
            f"{usd_digits(cost)}"
        )


def _model(one: Called, book: Prices, now_ms: int) -> Priced:
    card = book.card(provider=one.provider, model=one.name, now_ms=now_ms)
    source = _SOURCES.get(card.source, card.source or "unknown")
    is_reported = one.calls == one.reported_calls
    return Priced(
        called=one,
        rates=_rates(card),
        per_call_nano_usd=None,
        source="reported" if is_reported else source,
    )


def _tool(one: Called, configuration: Configuration) -> Priced:
    rule = configuration.policy.tool_rule(one.name)
    configured = rule.cost_nano_usd if rule is not None else None
    cost = one.last_cost_nano_usd if configured is None else configured
    source = "unknown" if cost is None else "yours"
    is_reported = configured is None and one.reported_calls > 0
    return Priced(
        called=one,
        rates={},
        per_call_nano_usd=cost,
        source="reported" if is_reported else source,
    )


def _rates(card: RateCard) -> dict[str, Decimal]:
    """Returns the rates for the smallest prompts."""
    if not card.tiers:
        return {}
    _, rates = card.tiers[-1]
    return {
        name: Decimal(getattr(rates, kept)).scaleb(-RATE_DECIMALS)
        for name, kept in RATES.items()
    }
