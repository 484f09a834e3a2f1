"""Rates: what each unit of a model's usage costs, in exact integers.

A rate is a whole number of 10**-18 USD per million units. Prices are published
with up to 18 decimals, so nothing is lost before the one rounding of a call.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Self

from guardrails.core.layers import TokenRates
from guardrails.core.usage import UNPRICED, Charge, PriceStatus, TokenUsage

__all__ = ["ALWAYS", "RATE_DECIMALS", "RateCard", "Rates", "rate"]

RATE_DECIMALS = 18
"""Decimals of USD per million units; genai-prices 0.2.3 has up to 18."""

_RATE_UNITS_PER_NANO_USD = 10 ** (RATE_DECIMALS + 6 - 9)
"""Units times rate is in 10**-24 USD."""

ALWAYS = range(-(2**62), 2**62)
"""All instants in milliseconds: rates that never change."""

_UNITS = frozenset(TokenUsage.__dataclass_fields__) - {"service_tier"}

_BILLED_AS_PARENT = frozenset({"cache_read_tokens", "reasoning_tokens"})
"""Without a rate of their own they cost what their total costs, or less."""


def rate(usd_per_1m: Decimal) -> int:
    """Converts USD per million units; more than `RATE_DECIMALS` round up."""
    return ceil(Fraction(usd_per_1m) * 10**RATE_DECIMALS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The rates of a model for one size of prompt."""

    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    input_audio: int
    cached_audio: int
    output: int
    reasoning: int
    output_audio: int
    web_search: int
    request: int
    """Per million requests; every call is one."""
    input_max: int
    """The dearest rate of input whose kind is not known beforehand."""
    output_max: int
    """The dearest rate of output whose kind is not known beforehand."""
    gaps: tuple[str, ...]
    """Fields of `TokenUsage` whose true rate is unknown and may be higher."""

    @classmethod
    def of(
        cls,
        known: Mapping[str, int],
        *,
        other_input: int = 0,
        other_output: int = 0,
        is_floor: bool = False,
    ) -> Self:
        """Completes the rates that are known as genai-prices does.

        A unit without a rate costs what the total costs that it is part of.

        Args:
            known: Rates by field of `TokenUsage`, and of `requests` and
                `cached_audio_tokens`. Has `input_tokens`.
            other_input: The dearest rate of input that usage does not tell
                apart, such as images; 0 if there is none.
            other_output: The same of output.
            is_floor: All rates may be too low.
        """
        base = known["input_tokens"]
        read = known.get("cache_read_tokens", base)
        write = known.get("cache_write_tokens", base)
        write_1h = known.get("cache_write_1h_tokens", write)
        audio = known.get("input_audio_tokens", base)
        output = known.get("output_tokens", 0)
        reasoning = known.get("reasoning_tokens", output)
        output_audio = known.get("output_audio_tokens", output)
        gaps = _UNITS - known.keys() - _BILLED_AS_PARENT
        if is_floor or other_input > base:
            gaps |= {"input_tokens"}
        if is_floor or other_output > output:
            gaps |= {"output_tokens"}
        cached_audio = audio if "input_audio_tokens" in known else read
        input_max = max(base, read, write, write_1h)
        if max(output_audio, other_output) > output:
            # Who is asked to speak or draw is often spoken to or shown something.
            input_max = max(input_max, audio, other_input)
        return cls(
            input=base,
            cache_read=read,
            cache_write=write,
            cache_write_1h=write_1h,
            input_audio=audio,
            cached_audio=known.get("cached_audio_tokens", cached_audio),
            output=output,
            reasoning=reasoning,
            output_audio=output_audio,
            web_search=known.get("web_searches", 0),
            request=known.get("requests", 0),
            input_max=input_max,
            output_max=max(output, reasoning, output_audio, other_output),
            gaps=tuple(sorted(gaps)),
        )

    def cost_nano_usd(self, usage: TokenUsage) -> int:
        """Prices usage, rounded up once."""
        read = usage.cache_read_tokens
        write = usage.cache_write_tokens
        write_1h = usage.cache_write_1h_tokens
        reasoning = usage.reasoning_tokens
        cost = (
            (usage.input_tokens - read - write) * self.input
            + read * self.cache_read
            + (write - write_1h) * self.cache_write
            + write_1h * self.cache_write_1h
            + (usage.output_tokens - reasoning) * self.output
            + reasoning * self.reasoning
            + usage.web_searches * self.web_search
            + self.request
        )
        if usage.input_audio_tokens or usage.output_audio_tokens:
            cost = max(0, cost + self._audio_premium(usage))
        return -(-cost // _RATE_UNITS_PER_NANO_USD)

    def _audio_premium(self, usage: TokenUsage) -> int:
        """Returns what audio costs more than as many tokens of text.

        How much of the audio was cached is not reported. It is taken to be as
        little as the counts allow, which is the dearest reading.
        """
        audio = usage.input_audio_tokens
        cached = max(0, usage.cache_read_tokens + audio - usage.input_tokens)
        return (
            (audio - cached) * (self.input_audio - self.input)
            + cached * (self.cached_audio - self.cache_read)
            + usage.output_audio_tokens * (self.output_audio - self.output)
        )

    def token_rates(self, usage: TokenUsage) -> TokenRates:
        """Returns what each token costs, cache writes of any lifetime on average."""
        write, long_lived = usage.cache_write_tokens, usage.cache_write_1h_tokens
        written = self.cache_write
        if long_lived:
            premium = long_lived * (self.cache_write_1h - self.cache_write)
            written += premium // write
        return TokenRates(
            input=self.input,
            cache_read=self.cache_read,
            cache_write=written,
            output=self.output,
            reasoning=self.reasoning,
        )

    def is_exact(self, usage: TokenUsage) -> bool:
        """Says whether every unit that was used has a known rate."""
        return not any(getattr(usage, unit) for unit in self.gaps)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCard:
    """The rates of a model during a time, by size of prompt."""

    tiers: tuple[tuple[int, Rates], ...]
    """Rates, each with the input tokens above which it holds for the whole
    call; largest first, the last at -1. Empty: the model has no rates."""
    source: str | None = None
    valid_ms: range = ALWAYS
    """The instants, in milliseconds, at which these are the rates."""
    context_tokens: int | None = None
    """The most that the model reads, if that is known."""

    @classmethod
    def of(
        cls,
        tiers: Iterable[tuple[int, Rates]],
        *,
        source: str,
        valid_ms: range,
        context_tokens: int | None = None,
    ) -> Self:
        """Makes a card from tiers, smallest first."""
        return cls(
            tiers=tuple(tiers)[::-1],
            source=source,
            valid_ms=valid_ms,
            context_tokens=context_tokens,
        )

    def price(self, usage: TokenUsage) -> Charge:
        """Prices reported usage."""
        for above, rates in self.tiers:
            if usage.input_tokens > above:
                return Charge(
                    cost_nano_usd=rates.cost_nano_usd(usage),
                    status=(
                        PriceStatus.PRICED
                        if rates.is_exact(usage)
                        else PriceStatus.PARTIAL
                    ),
                    source=self.source,
                )
        return UNPRICED

    def token_rates(self, usage: TokenUsage) -> TokenRates | None:
        """Returns what each token of reported usage costs, cache writes on average."""
        for above, rates in self.tiers:
            if usage.input_tokens > above:
                return rates.token_rates(usage)
        return None

    def bound(self, *, input_tokens: int, output_tokens: int) -> Charge:
        """Bounds the price of usage within these counts."""
        within = [rates for above, rates in self.tiers if input_tokens > above]
        if not within:
            return UNPRICED
        cost = max(
            input_tokens * rates.input_max
            + output_tokens * rates.output_max
            + rates.request
            for rates in within
        )
        return Charge(
            cost_nano_usd=-(-cost // _RATE_UNITS_PER_NANO_USD),
            status=PriceStatus.PRICED,
            source=self.source,
        )
