"""The second opinion: genai-prices' own calculation of the same call."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from math import ceil

from genai_prices.data import providers
from genai_prices.types import ModelInfo, Provider, TieredPrices, Usage

from guardrails.core.usage import TokenUsage

CATALOGUE = [(provider, model) for provider in providers for model in provider.models]

CONTEXTS = {
    None: None,
    "batch": {"processing": "batch"},
    "fast": {"service_tier": "fast", "speed": "fast"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}


def ms(year: int, month: int, day: int, hour: int = 12, minute: int = 0) -> int:
    return round(
        datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() * 1000
    )


def instant(now_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=now_ms)


def amounts(model: ModelInfo, now_ms: int) -> dict[str, Decimal | TieredPrices]:
    return {
        key: amount
        for key, amount in vars(model.get_prices(instant(now_ms))).items()
        if amount is not None
    }


def prices_tokens(model: ModelInfo, now_ms: int) -> bool:
    return "input_mtok" in amounts(model, now_ms)


def tier_starts(model: ModelInfo, now_ms: int) -> Iterator[int]:
    for amount in amounts(model, now_ms).values():
        if isinstance(amount, TieredPrices):
            yield from (tier.start for tier in amount.tiers)


def cost_nano_usd(
    provider: Provider, model: ModelInfo, usage: TokenUsage, now_ms: int
) -> int:
    """Prices usage with genai-prices, and rounds up once.

    It insists on how much of the audio was cached, which is not reported: as
    little as the counts allow.
    """
    overlap = usage.cache_read_tokens + usage.input_audio_tokens - usage.input_tokens
    with localcontext(prec=60):
        price = model.calc_price(
            Usage(
                input_tokens=usage.input_tokens,
                cache_read_tokens=usage.cache_read_tokens,
                cache_write_tokens=usage.cache_write_tokens,
                cache_write_1h_tokens=usage.cache_write_1h_tokens,
                input_audio_tokens=usage.input_audio_tokens,
                cache_audio_read_tokens=max(0, overlap),
                output_tokens=usage.output_tokens,
                output_reasoning_tokens=usage.reasoning_tokens,
                output_audio_tokens=usage.output_audio_tokens,
                web_searches=usage.web_searches,
            ),
            provider,
            genai_request_timestamp=instant(now_ms),
            price_context=CONTEXTS[usage.service_tier],
        )
        return ceil(price.total_price * 10**9)
