"""Book: what model calls cost, by a user's rows, aliases and genai-prices.

The order is: the user's row, the user's alias, genai-prices, unknown. Finding a
model takes a few hundred microseconds, so what was found is remembered as a
rate card until its rates change; pricing from a card takes a few.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import TypeVar

from guardrails.core.layers import TokenRates
from guardrails.core.usage import Charge, TokenUsage
from guardrails.prices.dialects import (
    by_canonical_name,
    spellings,
    target_spellings,
    user_names,
)
from guardrails.prices.rates import RateCard
from guardrails.prices.recent import Recent
from guardrails.prices.rows import ModelPrice
from guardrails.prices.worst_case import worst_case
from guardrails.system.threads import may_block

__all__ = ["CARDS_MAX", "NAME_CHARACTERS_MAX", "UNKNOWN_MAX", "Prices"]

CARDS_MAX = 1024
"""Models, providers and tiers that one process uses; each takes about 1 KB."""

UNKNOWN_MAX = 1024
"""Names without a price. Kept apart: a flood of them evicts no known model."""

NAME_CHARACTERS_MAX = 512
"""Longer names are unknown. The longest in use, ARNs of Bedrock, have 200."""

_SERVICE_TIERS = frozenset({"batch", "fast", "flex", "priority"})
"""Tiers that may cost something else than the standard one."""

_TIER_CHARACTERS_MAX = max(map(len, _SERVICE_TIERS))

_Key = tuple[str | None, str, str | None]
V = TypeVar("V")


class Prices:
    """What models cost. Thread safe.

    No name makes it raise: an unknown model, or a name that is no name, has the
    price `UNPRICED`, never 0. The first question reads the price list, which
    takes some 20 to 300 ms once per process.

    Args:
        models: The user's rates, by `model` or `provider/model`, in any case. A
            mapping has the fields of `ModelPrice` as keys.
        aliases: What to look a name up as, such as `azure/my-gpt4o-prod` as
            `azure/gpt-4o`. The target may be a user's row; it is no alias.

    Raises:
        ConfigurationError: If a rate is impossible.
    """

    def __init__(
        self,
        models: Mapping[str, ModelPrice | Mapping[str, Decimal]] = MappingProxyType({}),
        aliases: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._rows = by_canonical_name(
            {name: _model_price(row).card() for name, row in models.items()}
        )
        self._aliases = by_canonical_name(
            {name: target.lower() for name, target in aliases.items()}
        )
        self._cards = Recent[_Key, RateCard](entries_max=CARDS_MAX)
        self._unknown = Recent[_Key, RateCard](entries_max=UNKNOWN_MAX)

    def price(
        self, *, provider: str | None, model: str, usage: TokenUsage, now_ms: int
    ) -> Charge:
        """Prices reported usage, rounded up once to nano-USD.

        Args:
            provider: Its id in genai-prices, OpenTelemetry, LangChain or LiteLLM,
                or the address of its API. `None` finds it by the model's name,
                which may be `provider/model`.
            model: The model that answered.
            usage: As billed. Its service tier chooses the rates of `flex`,
                `priority`, `fast` and `batch`, where the provider has them.
            now_ms: When the call was made; prices have dates and hours.

        Returns:
            A charge that is `partial`, and a lower bound, if a unit of the usage
            has no rate: web searches, audio or cache writes without one, images
            that cost more than text, a premium tier. `UNPRICED` if tokens have
            no rate.
        """
        return self._card((provider, model, _tier(usage)), now_ms).price(usage)

    def token_rates(
        self, *, provider: str | None, model: str, usage: TokenUsage, now_ms: int
    ) -> TokenRates | None:
        """Returns the rates by which `price` prices the same usage, if it has any."""
        return self._card((provider, model, _tier(usage)), now_ms).token_rates(usage)

    def bound(
        self,
        *,
        provider: str | None,
        model: str,
        input_tokens: int,
        output_tokens: int,
        now_ms: int,
    ) -> Charge:
        """Bounds the price of a call that uses at most these tokens.

        All input at the dearest of fresh, cached and written input, all output
        at the dearest of text, reasoning and other modalities, both in the
        long-context tier if the input may reach it. At the standard service tier;
        `price` says what another one makes of it. Not included: provider-run
        searches, and audio sent to a model that answers in text only. A model
        without an output rate, such as one for embeddings, has no output to bound.
        """
        card = self._card((provider, model, None), now_ms)
        return card.bound(input_tokens=input_tokens, output_tokens=output_tokens)

    def worst_case(
        self, *, provider: str | None, input_tokens: int, output_tokens: int
    ) -> Charge:
        """Prices a call of an unknown model as one of its provider's dearest.

        The status is `estimated`: dearer models exist, so this is no bound.
        """
        return worst_case(
            provider=provider, input_tokens=input_tokens, output_tokens=output_tokens
        )

    def context_tokens(
        self, *, provider: str | None, model: str, now_ms: int
    ) -> int | None:
        """Returns the most tokens that a model reads.

        `None` where genai-prices does not know it, or its price is the user's.
        """
        return self._card((provider, model, None), now_ms).context_tokens

    def card(self, *, provider: str | None, model: str, now_ms: int) -> RateCard:
        """Returns the standard rates of a model; without tiers if none are known."""
        return self._card((provider, model, None), now_ms)

    def _card(self, key: _Key, now_ms: int) -> RateCard:
        card = self._cards.get(key) or self._unknown.get(key)
        if card is not None and now_ms in card.valid_ms:
            return card
        provider, model, tier = key
        if max(len(model), len(provider or "")) > NAME_CHARACTERS_MAX:
            return _NO_RATES
        card = self._found(provider, model, tier, now_ms)
        (self._cards if card.tiers else self._unknown).put(key, card)
        return card

    @may_block
    def _found(
        self, provider: str | None, model: str, tier: str | None, now_ms: int
    ) -> RateCard:
        # The price list is read when it is first needed, not when guardrails is
        # imported: a program that calls no model does not pay for it.
        from guardrails.prices import catalogue

        provider, model = provider and provider.lower(), model.lower()
        names = list(user_names(provider, model))
        if (row := _first(self._rows, names)) is not None:
            return row
        pairs = spellings(provider, model)
        if (target := _first(self._aliases, names)) is not None:
            if (row := _first(self._rows, user_names(provider, target))) is not None:
                return row
            pairs = target_spellings(provider, target)
        for pair in pairs:
            if (found := catalogue.find(*pair)) is not None:
                return catalogue.rate_card(*found, service_tier=tier, now_ms=now_ms)
        return _NO_RATES


_NO_RATES = RateCard(tiers=())


def _tier(usage: TokenUsage) -> str | None:
    tier = usage.service_tier
    if tier is None:
        return None
    tier = tier[: _TIER_CHARACTERS_MAX + 1].lower()
    return tier if tier in _SERVICE_TIERS else None


def _model_price(row: ModelPrice | Mapping[str, Decimal]) -> ModelPrice:
    return row if isinstance(row, ModelPrice) else ModelPrice(**row)


def _first(entries: Mapping[str, V], names: Iterable[str]) -> V | None:
    return next((entries[name] for name in names if name in entries), None)
