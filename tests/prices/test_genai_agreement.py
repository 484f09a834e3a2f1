"""Every price equals genai-prices' own calculation, rounded up once."""

from collections.abc import Iterator

import pytest
from genai_prices.types import (
    ModelInfo,
    Provider,
    StartDateConstraint,
    TimeOfDateConstraint,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrails.core.usage import PriceStatus, TokenUsage
from guardrails.prices import Prices, catalogue
from tests.prices.oracle import (
    CATALOGUE,
    CONTEXTS,
    cost_nano_usd,
    instant,
    ms,
    prices_tokens,
    tier_starts,
)
from tests.prices.strategies import usages

NOW_MS = ms(2026, 11, 25)

REACHABLE = [
    (provider, model)
    for provider, model in CATALOGUE
    if (found := catalogue.find(provider.id, model.id)) is not None
    and found[1] is model
]
"""Models that are found by their own id; others only by a longer name."""

Entry = tuple[Provider, ModelInfo]

ENTRIES = st.sampled_from(REACHABLE)
TIERED = st.sampled_from([e for e in REACHABLE if any(tier_starts(e[1], NOW_MS))])
AUDIBLE = st.sampled_from(
    [
        e
        for e in REACHABLE
        if "audio" in repr(e[1].prices) and prices_tokens(e[1], NOW_MS)
    ]
)
VARIED = st.sampled_from([e for e in REACHABLE if e[1].price_variants])
INSTANTS = st.integers(ms(2024, 1, 1), ms(2027, 6, 1))
TIERS = tuple(CONTEXTS)

PRICES = Prices()
"""One for all examples, so that what it remembers is tested too."""


def assert_agrees(entry: Entry, usage: TokenUsage, now_ms: int) -> None:
    provider, model = entry
    charge = PRICES.price(
        provider=provider.id, model=model.id, usage=usage, now_ms=now_ms
    )
    if prices_tokens(model, now_ms):
        assert charge.cost_nano_usd == cost_nano_usd(provider, model, usage, now_ms)
    else:
        assert charge.status is PriceStatus.UNPRICED


def test_reaches_most_of_the_catalogue() -> None:
    assert len(REACHABLE) > 2_000


@settings(deadline=None, max_examples=300)
@given(ENTRIES, usages(tiers=TIERS), INSTANTS)
def test_agrees_on_any_model(entry: Entry, usage: TokenUsage, now_ms: int) -> None:
    assert_agrees(entry, usage, now_ms)


@settings(deadline=None)
@given(TIERED, usages(tiers=TIERS), st.sampled_from([-1, 0, 1]), st.data())
def test_agrees_around_the_start_of_a_tier(
    entry: Entry, usage: TokenUsage, offset: int, data: st.DataObject
) -> None:
    start = data.draw(st.sampled_from([*tier_starts(entry[1], NOW_MS)]))
    edge = TokenUsage(
        input_tokens=start + offset,
        cache_read_tokens=min(usage.cache_read_tokens, start + offset),
        output_tokens=usage.output_tokens,
        service_tier=usage.service_tier,
    )
    assert_agrees(entry, edge, NOW_MS)


@settings(deadline=None)
@given(AUDIBLE, usages(tiers=TIERS))
def test_agrees_on_audio(entry: Entry, usage: TokenUsage) -> None:
    assert_agrees(entry, usage, NOW_MS)


@settings(deadline=None)
@given(VARIED, usages(tiers=TIERS), INSTANTS)
def test_agrees_on_service_tiers(entry: Entry, usage: TokenUsage, now_ms: int) -> None:
    assert_agrees(entry, usage, now_ms)


def test_agrees_on_every_model_of_the_catalogue() -> None:
    usage = TokenUsage(
        input_tokens=123_457,
        cache_read_tokens=34_567,
        cache_write_tokens=23_459,
        cache_write_1h_tokens=12_347,
        output_tokens=9_871,
        reasoning_tokens=1_237,
        web_searches=7,
    )
    for entry in REACHABLE:
        assert_agrees(entry, usage, NOW_MS)


def turns(model: ModelInfo) -> Iterator[int]:
    """Yields the instants at which a price of the model changes."""
    parts = [*(model.prices if isinstance(model.prices, list) else ())]
    for part in (*parts, *(model.price_variants or ())):
        match part.constraint:
            case StartDateConstraint(start_date=day):
                yield ms(day.year, day.month, day.day, 0)
            case TimeOfDateConstraint(start_time=start, end_time=end):
                for day in (1, 2):
                    yield ms(2026, 11, day, start.hour, start.minute)
                    yield ms(2026, 11, day, end.hour, end.minute)
            case None:
                pass


CHANGING = [entry for entry in REACHABLE if any(turns(entry[1]))]


def test_finds_the_models_whose_price_changes() -> None:
    assert len(CHANGING) > 200


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_remembered_rate_does_not_outlive_its_time(is_reversed: bool) -> None:
    usage = TokenUsage(input_tokens=1_001, cache_read_tokens=499, output_tokens=101)
    for entry in CHANGING:
        moments = sorted({at + d for at in turns(entry[1]) for d in (-1, 0, 1)})
        for now_ms in reversed(moments) if is_reversed else moments:
            assert_agrees(entry, usage, now_ms)


def test_the_year_of_an_instant_is_exact() -> None:
    assert instant(ms(2026, 11, 25, 16, 30)).isoformat() == "2026-11-25T16:30:00+00:00"
