"""Rows: the prices that a user gives, which beat every table."""

from dataclasses import dataclass
from decimal import Decimal

from guardrails.errors import ConfigurationError
from guardrails.prices.rates import ALWAYS, RATE_DECIMALS, RateCard, Rates, rate

__all__ = ["RATE_USD_MAX", "ModelPrice"]

RATE_USD_MAX = Decimal(9000)
"""Per million tokens. The largest usage, 10**9 tokens, then costs less than the
largest amount that an account can hold, 2**53 nano-USD."""

_UNITS = {
    "input_per_1m_usd": "input_tokens",
    "output_per_1m_usd": "output_tokens",
    "cache_read_per_1m_usd": "cache_read_tokens",
    "cache_write_per_1m_usd": "cache_write_tokens",
    "cache_write_1h_per_1m_usd": "cache_write_1h_tokens",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrice:
    """The rates of one model, in USD per million tokens.

    The fields are the keys of `models` in `guardrails.yaml`. A rate of 0 is a
    price, for a model of your own. Service tiers do not change these rates.

    Raises:
        ConfigurationError: If a rate is no `Decimal`, below 0, above 9000, or
            has more than 18 decimals.
    """

    input_per_1m_usd: Decimal
    output_per_1m_usd: Decimal
    """All output, reasoning included."""
    cache_read_per_1m_usd: Decimal | None = None
    """`None` bills cache reads as other input."""
    cache_write_per_1m_usd: Decimal | None = None
    """`None` bills cache writes as other input, and the charge as `partial`."""
    cache_write_1h_per_1m_usd: Decimal | None = None
    """`None` bills one-hour cache writes as other cache writes, and the charge
    as `partial`."""

    def __post_init__(self) -> None:
        _check(self.input_per_1m_usd, name="input_per_1m_usd")
        _check(self.output_per_1m_usd, name="output_per_1m_usd")
        for name in _UNITS:
            if getattr(self, name) is not None:
                _check(getattr(self, name), name=name)

    def card(self) -> RateCard:
        """Returns these rates, valid at any time for prompts of any size."""
        known: dict[str, int] = {}
        for name, unit in _UNITS.items():
            value: Decimal | None = getattr(self, name)
            if value is not None:
                known[unit] = rate(value)
        return RateCard.of([(-1, Rates.of(known))], source="config", valid_ms=ALWAYS)


def _check(value: object, *, name: str) -> None:
    if not isinstance(value, Decimal):
        raise ConfigurationError(
            f"{name}: {value!r} is no Decimal. Write the rate in USD per million "
            'tokens, for example Decimal("3.00").'
        )
    if not (value.is_finite() and 0 <= value <= RATE_USD_MAX):
        raise ConfigurationError(
            f"{name}: {value} must be at least 0 and at most {RATE_USD_MAX} USD per "
            "million tokens. Is it a rate per thousand tokens or per token?"
        )
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int), "finite decimals have a number as exponent"
    if exponent < -RATE_DECIMALS:
        raise ConfigurationError(
            f"{name}: {value} has more than {RATE_DECIMALS} decimals. Round it up."
        )
