"""A bound is never below the price of a call that stays within its counts."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrails.core.usage import PriceStatus, TokenUsage
from guardrails.prices import Prices
from tests.prices.oracle import CATALOGUE, amounts, ms, prices_tokens, tier_starts
from tests.prices.strategies import usages

NOW_MS = ms(2026, 11, 25)
PRICES = Prices()

NAMES = [
    (provider.id, model.id)
    for provider, model in CATALOGUE
    if prices_tokens(model, NOW_MS)
    and PRICES.bound(
        provider=provider.id,
        model=model.id,
        input_tokens=1,
        output_tokens=1,
        now_ms=NOW_MS,
    ).status
    is PriceStatus.PRICED
]
STARTS_OF = {
    (provider.id, model.id): set(tier_starts(model, NOW_MS))
    for provider, model in CATALOGUE
}
STARTS = {start for starts in STARTS_OF.values() for start in starts}
SPEAKING = [
    (provider.id, model.id)
    for provider, model in CATALOGUE
    if "output_audio_mtok" in amounts(model, NOW_MS)
]


def bound(provider: str, model: str, input_tokens: int, output_tokens: int) -> int:
    charge = PRICES.bound(
        provider=provider,
        model=model,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        now_ms=NOW_MS,
    )
    assert charge.cost_nano_usd is not None
    return charge.cost_nano_usd


def price(provider: str, model: str, usage: TokenUsage) -> int:
    charge = PRICES.price(provider=provider, model=model, usage=usage, now_ms=NOW_MS)
    assert charge.cost_nano_usd is not None
    return charge.cost_nano_usd


def test_knows_most_of_the_catalogue() -> None:
    assert len(NAMES) > 2_000
    assert len(STARTS) > 5


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(NAMES),
    usages(is_text_only=True),
    st.integers(0, 300_000),
    st.integers(0, 100_000),
)
def test_bounds_any_usage_that_fits_inside(
    name: tuple[str, str], usage: TokenUsage, more_input: int, more_output: int
) -> None:
    at_most = bound(
        *name, usage.input_tokens + more_input, usage.output_tokens + more_output
    )
    assert at_most >= price(*name, usage)


@settings(deadline=None)
@given(st.sampled_from(SPEAKING), usages())
def test_bounds_the_audio_of_models_that_speak(
    name: tuple[str, str], usage: TokenUsage
) -> None:
    at_most = bound(*name, usage.input_tokens, usage.output_tokens)
    searches = TokenUsage(web_searches=usage.web_searches)
    assert at_most + price(*name, searches) >= price(*name, usage)


def extremes(total: int, starts: set[int]) -> list[TokenUsage]:
    """Usages of one kind of token each, around the start of each tier."""
    sizes = {0, total, *(start + offset for start in starts for offset in (0, 1))}
    fresh, read, written, written_1h = (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 1, 1)
    kinds = (fresh, read, written, written_1h)
    return [
        TokenUsage(
            input_tokens=size,
            cache_read_tokens=size * kind[0],
            cache_write_tokens=size * kind[1],
            cache_write_1h_tokens=size * kind[2],
            output_tokens=1_000,
            reasoning_tokens=reasoning,
        )
        for size, kind, reasoning in product(sizes, kinds, (0, 1_000))
    ]


def test_bounds_every_model_of_the_catalogue() -> None:
    total = max(STARTS) + 1
    for name in NAMES:
        at_most = bound(*name, total, 1_000)
        cases = extremes(total, STARTS_OF[name])
        assert all(at_most >= price(*name, usage) for usage in cases), name


@pytest.mark.parametrize(
    ("provider", "model", "input_tokens", "cost_nano_usd"),
    [
        # 10 USD per million output tokens; 2.50 input.
        ("openai", "gpt-4o", 1_000, 2_500_000 + 1_000_000),
        # Input that is written to a one-hour cache costs 6.
        ("anthropic", "claude-sonnet-4-5", 1_000, 6_000_000 + 1_500_000),
        # Up to 200,000 tokens 1.25 and 10, above it 2.50 and 15.
        ("google", "gemini-2.5-pro", 200_000, 250_000_000 + 1_000_000),
        ("google", "gemini-2.5-pro", 200_001, 500_002_500 + 1_500_000),
        # A fee of 14 USD per thousand requests; 3 and 15.
        ("perplexity", "sonar-pro", 1_000, 14_000_000 + 3_000_000 + 1_500_000),
        # Nothing comes out of an embedding model.
        ("openai", "text-embedding-3-small", 1_000, 20_000),
        # Audio may come in and out of a model that speaks: 32 and 64.
        ("openai", "gpt-realtime", 1_000, 32_000_000 + 6_400_000),
        # Audio may come into this one, but it is billed as text: 0.30 and 2.50.
        ("google", "gemini-2.5-flash", 1_000, 300_000 + 250_000),
        # Images come out of this one: 0.30 and 30.
        ("google", "gemini-2.5-flash-image", 1_000, 300_000 + 3_000_000),
    ],
)
def test_bounds_at_the_dearest_rate(
    provider: str, model: str, input_tokens: int, cost_nano_usd: int
) -> None:
    assert bound(provider, model, input_tokens, 100) == cost_nano_usd


def test_an_unknown_model_has_no_bound() -> None:
    charge = PRICES.bound(
        provider="openai", model="gpt-99", input_tokens=1, output_tokens=1, now_ms=0
    )
    assert charge.status is PriceStatus.UNPRICED


@pytest.mark.parametrize(
    ("provider", "cost_nano_usd"),
    [
        ("openai", 42_000_000),
        ("anthropic", 22_500_000),
        ("bedrock", 16_500_000),
        ("gemini", 15_000_000),
        ("mistralai", 2_750_000),
        ("azure", 42_000_000),
        ("ollama", 42_000_000),
        ("x" * 10_000, 42_000_000),
        (None, 42_000_000),
    ],
)
def test_the_worst_case_is_an_expensive_model_of_the_provider(
    provider: str | None, cost_nano_usd: int
) -> None:
    charge = PRICES.worst_case(provider=provider, input_tokens=1_000, output_tokens=100)

    assert charge.cost_nano_usd == cost_nano_usd
    assert charge.status is PriceStatus.ESTIMATED
    assert charge.source == "worst case"
