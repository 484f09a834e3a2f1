"""Usage: what a call consumed, and what that cost.

The inclusion rules are those of OpenTelemetry, LangChain and genai-prices:
`input_tokens` is the total, cache reads and writes are parts of it, and
`output_tokens` includes reasoning.
"""

import enum
from dataclasses import dataclass

__all__ = ["TOKENS_MAX", "UNPRICED", "Charge", "PriceStatus", "TokenUsage"]

TOKENS_MAX = 10**9
"""No real call is larger; above it the report of a provider is nonsense."""


def _are_whole(counts: tuple[object, ...]) -> bool:
    """Whether all counts are `int`: floats would drift, and no store takes them."""
    return set(map(type, counts)) == {int}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """The tokens of one model call, as billed.

    Raises:
        ValueError: If a count is negative, above 10**9, or a part is larger
            than its total.
    """

    input_tokens: int = 0
    """All input: fresh tokens, cache reads and cache writes, text and audio."""
    cache_read_tokens: int = 0
    """Input served from the provider's cache. Part of `input_tokens`."""
    cache_write_tokens: int = 0
    """Input written to the cache, any lifetime. Part of `input_tokens`."""
    cache_write_1h_tokens: int = 0
    """Input written to a one-hour cache. Part of `cache_write_tokens`."""
    input_audio_tokens: int = 0
    """Audio input. Part of `input_tokens`."""
    output_tokens: int = 0
    """All output: text, audio, tool calls and reasoning."""
    reasoning_tokens: int = 0
    """Hidden reasoning. Part of `output_tokens`."""
    output_audio_tokens: int = 0
    """Audio output. Part of `output_tokens`."""
    web_searches: int = 0
    """Searches that the provider ran and bills per request."""
    service_tier: str | None = None
    """The tier that the provider says it billed, such as `flex` or `priority`."""

    def __post_init__(self) -> None:
        counts = (
            self.input_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.cache_write_1h_tokens,
            self.input_audio_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.output_audio_tokens,
            self.web_searches,
        )
        if (
            not _are_whole(counts)
            or min(counts) < 0
            or self.input_tokens + self.output_tokens > TOKENS_MAX
            or self.web_searches > TOKENS_MAX
            or self.cache_read_tokens + self.cache_write_tokens > self.input_tokens
            or self.cache_write_1h_tokens > self.cache_write_tokens
            or self.input_audio_tokens > self.input_tokens
            or self.reasoning_tokens > self.output_tokens
            or self.output_audio_tokens > self.output_tokens
        ):
            raise ValueError(
                f"usage: {self!r} is impossible: counts are whole numbers of at least "
                f"0 and at most {TOKENS_MAX}, and a part is never larger than its "
                "total."
            )

    @property
    def total_tokens(self) -> int:
        """Input plus output; the parts are contained in these."""
        return self.input_tokens + self.output_tokens


class PriceStatus(enum.StrEnum):
    """How far the cost of a call can be trusted."""

    PRICED = "priced"
    """Usage as reported, every unit with a known rate."""
    REPORTED = "reported"
    """The provider, gateway or operator named the cost itself."""
    ESTIMATED = "estimated"
    """The usage was not reported; it was bounded from sizes."""
    PARTIAL = "partial"
    """Some unit of the usage has no known rate: the cost is a lower bound."""
    UNPRICED = "unpriced"
    """No rate is known. The cost is unknown, which is not zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What one call cost, and how that is known.

    Raises:
        ValueError: If the cost is negative, or unknown without the status
            saying so.
    """

    cost_nano_usd: int | None
    """Rounded up once per call. `None` means unknown and is never 0."""
    status: PriceStatus
    source: str | None = None
    """Where the rate comes from, such as `genai-prices 0.2.3` or `config`."""

    def __post_init__(self) -> None:
        if (self.cost_nano_usd is None) != (self.status is PriceStatus.UNPRICED):
            raise ValueError(f"charge: unknown cost and status disagree: {self!r}")
        if self.cost_nano_usd is not None and self.cost_nano_usd < 0:
            raise ValueError(f"charge: the cost of a call is at least 0: {self!r}")


UNPRICED = Charge(cost_nano_usd=None, status=PriceStatus.UNPRICED)
