"""Worst case: what to charge for a model whose price nobody knows."""

from collections.abc import Mapping

from guardrails.core.usage import Charge, PriceStatus
from guardrails.prices.dialects import provider_id

__all__ = ["worst_case"]

_NANO_USD_PER_TOKEN: Mapping[str, tuple[int, int]] = {
    "anthropic": (15_000, 75_000),
    "aws": (11_000, 55_000),
    "google": (10_000, 50_000),
    "mistral": (2_000, 7_500),
    "openai": (30_000, 120_000),
}
"""Input and output; 1,000 is 1 USD per million tokens. The 95th percentile of a
provider's current models in genai-prices 0.2.3. The true maximum, 150 and 600 USD
for o1-pro, would refuse everything."""

_ELSEWHERE = max(_NANO_USD_PER_TOKEN.values())
"""Azure sells OpenAI's models, and a gateway anybody's."""


def worst_case(
    *, provider: str | None, input_tokens: int, output_tokens: int
) -> Charge:
    """Prices tokens at the rates of an expensive model of the provider."""
    name = provider_id(provider) or ""
    per_input, per_output = _NANO_USD_PER_TOKEN.get(name, _ELSEWHERE)
    return Charge(
        cost_nano_usd=input_tokens * per_input + output_tokens * per_output,
        status=PriceStatus.ESTIMATED,
        source="worst case",
    )
