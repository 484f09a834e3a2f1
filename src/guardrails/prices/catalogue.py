"""Catalogue: the prices of genai-prices, made into rate cards.

Importing this module takes tens of milliseconds, because it reads thousands of
prices. Nothing here touches the snapshot that genai-prices shares in a process,
updates prices, or reaches the network.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from genai_prices import __version__
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import (
    ModelInfo,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from guardrails.prices.rates import ALWAYS, RateCard, Rates, rate

if TYPE_CHECKING:
    # Its type is all that a checker needs: reading the prices takes it most of a
    # minute, for each of their literals.
    providers: list[Provider]
else:
    from genai_prices.data import providers

__all__ = ["SOURCE", "find", "rate_card"]

SOURCE = f"genai-prices {__version__}"

_CONTEXTS: Mapping[str, Mapping[str, str]] = {
    "batch": {"processing": "batch"},
    "fast": {"service_tier": "fast", "speed": "fast"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}
"""Price contexts by service tier: OpenAI's, Google's and Anthropic's at once."""

_PREMIUM_TIERS = frozenset({"fast", "priority"})
"""Dearer than the standard tier, so a standard rate is only a lower bound."""

_PER_1M = {
    "input_mtok": ("input_tokens", 1),
    "cache_read_mtok": ("cache_read_tokens", 1),
    "cache_write_mtok": ("cache_write_tokens", 1),
    "cache_write_1h_mtok": ("cache_write_1h_tokens", 1),
    "input_audio_mtok": ("input_audio_tokens", 1),
    "cache_audio_read_mtok": ("cached_audio_tokens", 1),
    "output_mtok": ("output_tokens", 1),
    "output_reasoning_mtok": ("reasoning_tokens", 1),
    "output_audio_mtok": ("output_audio_tokens", 1),
    "web_searches_kcount": ("web_searches", 1000),
    "requests_kcount": ("requests", 1000),
}
"""Keys of genai-prices, the units that they price, and how often per million."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_MILLISECOND = timedelta(milliseconds=1)


def find(provider: str | None, model: str) -> tuple[Provider, ModelInfo] | None:
    """Finds a model as genai-prices does, by the provider's id or API address."""
    is_url = provider is not None and "://" in provider
    # A fresh snapshot, because a snapshot remembers every name that it was ever
    # asked for (genai-prices 0.2.3, `_provider_misses`). It costs 2 µs.
    snapshot = DataSnapshot(providers=providers, from_auto_update=False)
    try:
        return snapshot.find_provider_model(
            model, None, None if is_url else provider, provider if is_url else None
        )
    except LookupError:
        return None


def rate_card(
    provider: Provider, model: ModelInfo, *, service_tier: str | None, now_ms: int
) -> RateCard:
    """Returns the rates of a model at an instant, and how long they hold."""
    at = _EPOCH + timedelta(milliseconds=now_ms)
    prices = model.get_prices(at)
    is_floor = False
    context = None if service_tier is None else _CONTEXTS.get(service_tier)
    if context is not None:
        # Tiers are those of the provider that sells the model, not of another
        # whose price list it is looked up in. So is genai-prices' own rule.
        is_own = any(own is model for own in provider.models)
        special = model.get_prices(at, context) if is_own else prices
        is_floor = service_tier in _PREMIUM_TIERS and special == prices
        prices = special
    amounts: Mapping[str, object] = vars(prices)
    return RateCard.of(
        _tiers(amounts, is_floor=is_floor),
        source=SOURCE,
        valid_ms=_valid_ms(model, at=at, now_ms=now_ms),
        context_tokens=model.context_window,
    )


def _tiers(
    amounts: Mapping[str, object], *, is_floor: bool
) -> Iterator[tuple[int, Rates]]:
    """Yields the rates above each threshold; none if tokens have no price."""
    if amounts.get("input_mtok") is None:
        return
    starts = {
        tier.start
        for amount in amounts.values()
        if isinstance(amount, TieredPrices)
        for tier in amount.tiers
    }
    for above in (-1, *sorted(starts)):
        yield above, _rates(amounts, input_tokens=above + 1, is_floor=is_floor)


def _rates(
    amounts: Mapping[str, object], *, input_tokens: int, is_floor: bool
) -> Rates:
    known: dict[str, int] = {}
    others = {"input": 0, "output": 0}
    for key, amount in amounts.items():
        usd = _usd(amount, input_tokens=input_tokens)
        if usd is None:
            continue
        if key in _PER_1M:
            unit, count = _PER_1M[key]
            known[unit] = rate(usd) * count
        elif key.endswith("_mtok") and (side := key.partition("_")[0]) in others:
            others[side] = max(others[side], rate(usd))
    return Rates.of(
        known,
        other_input=others["input"],
        other_output=others["output"],
        is_floor=is_floor,
    )


def _usd(amount: object, *, input_tokens: int) -> Decimal | None:
    """Returns the amount that holds for a whole prompt of this size."""
    if isinstance(amount, TieredPrices):
        within = [tier.price for tier in amount.tiers if input_tokens > tier.start]
        return within[-1] if within else amount.base
    return amount if isinstance(amount, Decimal) else None


def _valid_ms(model: ModelInfo, *, at: datetime, now_ms: int) -> range:
    """Returns the instants around now during which no price of a model changes."""
    parts = [*(model.prices if isinstance(model.prices, list) else ())]
    variants = model.price_variants or ()
    constraints = [part.constraint for part in (*parts, *variants)]
    turns = [
        (instant - _EPOCH) // _MILLISECOND
        for constraint in constraints
        if constraint is not None
        for instant in _turns(constraint, day=at.date())
    ]
    return range(
        max((turn for turn in turns if turn <= now_ms), default=ALWAYS.start),
        min((turn for turn in turns if turn > now_ms), default=ALWAYS.stop),
    )


def _turns(
    constraint: StartDateConstraint | TimeOfDateConstraint, *, day: date
) -> Iterator[datetime]:
    """Yields the instants near a day at which a constraint may change its answer."""
    if isinstance(constraint, StartDateConstraint):
        yield datetime.combine(constraint.start_date, time(), tzinfo=UTC)
        return
    for near in (day - _DAY, day, day + _DAY):
        for clock in (constraint.start_time, constraint.end_time):
            yield datetime.combine(near, clock, tzinfo=clock.tzinfo or UTC)
