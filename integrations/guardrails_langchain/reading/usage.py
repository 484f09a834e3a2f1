"""Usage: what LangChain's results say about tokens, models and costs.

The converters of LangChain agree on the shape of `usage_metadata`, not on its
keys: Anthropic and Bedrock move cache writes to `ephemeral_*` keys, OpenAI puts
the service tier in front of others, some gateways report zeros for "unknown".
Read from the sources of langchain-anthropic 1.7.10, langchain-openai 1.7.4,
langchain-aws 1.9.1, langchain-google-genai 4.4.2, langchain-openrouter 0.2.9 and
langchain-litellm 0.11.2.

Nothing here raises: a number that cannot be true makes the report unknown.
"""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from langchain_core.messages import BaseMessage

from guardrails.core.attribution import clean_name
from guardrails.core.money import LIMIT_NANO_USD_MAX, NANO_PER_USD
from guardrails.core.usage import TOKENS_MAX, TokenUsage
from guardrails_langchain.reading.answers import (
    Answer,
    count_of,
    first_of,
    get,
    iterations_in,
    names_of,
)
from guardrails_langchain.reading.searches import web_searches

__all__ = [
    "is_cache_hit",
    "is_report_of_batch",
    "named_tier",
    "reported_cost_nano_usd",
    "usage_of",
]

ORDINARY_TIERS = frozenset({"auto", "default", "on_demand", "standard"})
"""Names of the tier that the list prices are for."""

_AMOUNT = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,2})?")
"""Finite, not negative, and bounded: an exponent is written out as digits."""

_GEMINI = "google_genai"
"""What messages of an integration call their provider that has all thoughts in its
output, as that of Vertex AI has not."""

_INPUT = ("input_tokens", "prompt_tokens", "inputTokens")
_OUTPUT = ("output_tokens", "completion_tokens", "outputTokens")
_READ = ("cache_read_input_tokens", "cacheReadInputTokens", "prompt_cache_hit_tokens")
_WRITE = (
    "cache_creation_input_tokens",
    "cache_write_input_tokens",
    "cacheWriteInputTokens",
)
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")


def usage_of(answer: Answer, *, tier: str | None) -> TokenUsage | None:
    """Returns the usage of a model call, or `None` if it was not reported.

    Read from `usage_metadata` of the messages, else from `token_usage` or `usage`
    of `llm_output` or `response_metadata`, or of the answer that LangChain keeps in
    there as `body` where reading it failed. Candidates of one prompt (`n` > 1)
    repeat the report of their call, which counts once; prompts add up.

    A report of zero tokens, or with an impossible number of input or output
    tokens, is none. An impossible part is 0. Parts larger than their total are
    taken to be missing from it, and added.

    Args:
        answer: What was answered.
        tier: The tier that it names.
    """
    reports = (
        _reports(answer, _standard_report)
        or _reported(_raw_report(answer.output))[:1]
        or _reports(answer, lambda m: _raw_report(get(m, "response_metadata")))
    )
    if not reports:
        return None
    reports = [*reports, *_summaries(answer)]
    total = reports[0]
    if len(reports) > 1:
        total = {name: sum(report[name] for report in reports) for name in total}
    if total["input_tokens"] + total["output_tokens"] > TOKENS_MAX:
        return None
    is_ordinary = tier is None or tier.lower() in ORDINARY_TIERS
    return TokenUsage(
        **total,
        web_searches=web_searches(answer),
        service_tier=None if is_ordinary else tier,
    )


def is_cache_hit(answer: Answer, *, run_id: UUID) -> bool:
    """Whether LangChain's own cache answered, so that no provider was called.

    It reports the usage of the cached call with a `total_cost` of 0. One in memory
    keeps what the call returns, so that may show it too (langchain-core 1.8.3); but the
    call has a report beside its answer, or a message that is named for its run.
    """
    messages = answer.messages
    if answer.output or any(str(run_id) in f"{one.id}" for one in messages):
        return False
    costs = [get(get(one, "usage_metadata"), "total_cost") for one in messages]
    return bool(costs) and all(type(one) in (int, float) and not one for one in costs)


def is_report_of_batch(answer: Answer) -> bool:
    """Whether a result reports what all prompts of its batch used, if it has one.

    Completion models ask for all prompts at once. LangChain leaves the report to
    the first prompt (`LLMResult.flatten` of langchain-core 1.8.3).
    """
    return not answer.messages and bool(_reported(_raw_report(answer.output)))


def reported_cost_nano_usd(answer: Answer) -> int | None:
    """Returns the cost that a gateway reported, rounded up; `None` if none did.

    OpenRouter says `cost`, and for a key of the user's own adds what its owner
    pays elsewhere as `cost_details.upstream_inference_cost`. LangChain keeps the
    costs and not whose key it was; only on an own key is the cost the smaller one.
    LiteLLM says `response_cost`, which is 0 for models that it has no price of: not
    reported.
    """
    for source in answer.sources:
        for place in (source, get(source, "usage"), get(source, "token_usage")):
            cost = _nano_usd(get(place, "cost"))
            if cost is not None:
                details = get(place, "cost_details")
                upstream = _nano_usd(get(details, "upstream_inference_cost")) or 0
                is_own_key = get(place, "is_byok") is True or cost < upstream
                return cost + upstream if is_own_key else cost
            cost = _nano_usd(get(place, "response_cost"))
            if cost:
                return cost
    return None


def _reports(
    answer: Answer, read: Callable[[BaseMessage], dict[str, int] | None]
) -> list[dict[str, int]]:
    """Reads one report per prompt; more if its candidates do not say the same."""
    found: list[dict[str, int]] = []
    for candidates in answer.prompts:
        reports = _reported(*map(read, candidates))
        is_same = all(report == reports[0] for report in reports)
        found += reports[:1] if is_same else reports
    return found


def _reported(*reports: dict[str, int] | None) -> list[dict[str, int]]:
    return [report for report in reports if report is not None]


def _standard_report(message: BaseMessage) -> dict[str, int] | None:
    """Reads `usage_metadata`, in which cache reads and writes are input."""
    usage = get(message, "usage_metadata")
    read_from = get(usage, "input_token_details")
    written = get(usage, "output_token_details")
    short_lived = count_of(get(read_from, "ephemeral_5m_input_tokens")) or 0
    long_lived = count_of(get(read_from, "ephemeral_1h_input_tokens")) or 0
    by_lifetime = short_lived + long_lived
    writes = _part(read_from, "cache_creation")
    provider = get(get(message, "response_metadata"), "model_provider")
    return _report(
        has_thoughts=provider == _GEMINI,
        input_tokens=count_of(get(usage, "input_tokens")),
        output_tokens=count_of(get(usage, "output_tokens")),
        total_tokens=count_of(get(usage, "total_tokens")),
        cache_read_tokens=_cached(message)
        if read_from is None
        else _part(read_from, "cache_read"),
        # The converters set `cache_creation` to 0 when they know the lifetimes;
        # one that repeats their sum there means the same tokens.
        cache_write_tokens=by_lifetime + (writes if writes != by_lifetime else 0),
        cache_write_1h_tokens=long_lived,
        input_audio_tokens=_part(read_from, "audio"),
        reasoning_tokens=_part(written, "reasoning"),
        output_audio_tokens=_part(written, "audio"),
    )


def _summaries(answer: Answer) -> list[dict[str, int]]:
    """Reads what Anthropic used to shorten the prompt, which its totals leave out."""
    for source in answer.sources:
        steps = iterations_in(get(source, "usage"))
        if steps:
            made = [step for step in steps if get(step, "type") == "compaction"]
            return _reported(*(_raw_report({"usage": step}) for step in made))
    return []


def _cached(message: BaseMessage) -> int:
    """Reads the cached input that `usage_metadata` leaves out, as Mistral's does."""
    raw = _raw_report(get(message, "response_metadata"))
    if raw is None:
        return 0
    is_same = raw["input_tokens"] == get(get(message, "usage_metadata"), "input_tokens")
    return raw["cache_read_tokens"] if is_same else 0


def _raw_report(source: object) -> dict[str, int] | None:
    """Reads a provider's own usage, where LangChain did not."""
    said = first_of(source, ("token_usage", "usage"))
    usage = get(get(source, "body"), "usage") if said is None else said
    if usage is None:
        return None
    details, written = first_of(usage, _INPUT_DETAILS), first_of(usage, _OUTPUT_DETAILS)
    read = count_of(first_of(usage, _READ) or get(details, "cached_tokens")) or 0
    write = count_of(first_of(usage, _WRITE) or get(details, "cache_write_tokens")) or 0
    lifetimes = get(usage, "cache_creation")
    long_lived = count_of(get(lifetimes, "ephemeral_1h_input_tokens")) or 0
    input_tokens = count_of(first_of(usage, _INPUT))
    # Anthropic and Bedrock leave cached tokens out of the input; OpenAI, and
    # LiteLLM, which has the names of both, do not.
    is_exclusive = (
        get(usage, "prompt_tokens") is None and get(details, "cached_tokens") is None
    ) or get(usage, "cache_write_input_tokens") is not None
    if is_exclusive and input_tokens is not None:
        input_tokens += read + write
    return _report(
        has_thoughts=False,
        input_tokens=input_tokens,
        output_tokens=count_of(first_of(usage, _OUTPUT)),
        total_tokens=count_of(get(usage, "total_tokens")),
        cache_read_tokens=read,
        cache_write_tokens=write,
        cache_write_1h_tokens=long_lived,
        input_audio_tokens=count_of(get(details, "audio_tokens")) or 0,
        reasoning_tokens=count_of(get(written, "reasoning_tokens")) or 0,
        output_audio_tokens=count_of(get(written, "audio_tokens")) or 0,
    )


def _report(
    *,
    input_tokens: int | None,
    output_tokens: int | None,
    total_tokens: int | None,
    has_thoughts: bool,
    **parts: int,
) -> dict[str, int] | None:
    """Makes the parts of a report agree with its totals.

    Args:
        input_tokens: As reported, like the others.
        output_tokens: With or without what a model thinks.
        total_tokens: Of what is in neither, too.
        has_thoughts: What the model thinks is in the output: what only the total holds
            was read.
        parts: Of the input, or of the output.
    """
    if (
        input_tokens is None
        or output_tokens is None
        or not input_tokens + output_tokens
    ):
        return None
    cached = parts["cache_read_tokens"] + parts["cache_write_tokens"]
    if cached > input_tokens:
        input_tokens += cached
    reasoning = parts["reasoning_tokens"]
    # Vertex AI and xAI leave reasoning out of the output, but not out of the total.
    # A total that is too small says nothing: Bedrock leaves the cache out of it.
    is_apart = (total_tokens or 0) >= input_tokens + output_tokens + reasoning
    if (is_apart and not has_thoughts) or reasoning > output_tokens:
        output_tokens += reasoning
    left_out = max(0, (total_tokens or 0) - input_tokens - output_tokens)
    if has_thoughts:
        # Before langchain-google-genai 4.3, what Gemini's own tools have brought.
        input_tokens += left_out
    else:
        # Gemini behind OpenAI's API leaves out what it thinks, and says so nowhere.
        output_tokens += left_out
    return {
        **parts,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cache_write_1h_tokens": min(
            parts["cache_write_1h_tokens"], parts["cache_write_tokens"]
        ),
        "input_audio_tokens": min(parts["input_audio_tokens"], input_tokens),
        "output_audio_tokens": min(parts["output_audio_tokens"], output_tokens),
    }


def named_tier(answer: Answer) -> str | None:
    """Returns the tier that an answer names; `None` if it names none."""
    for message in answer.messages:
        usage = get(message, "usage_metadata")
        for details in ("input_token_details", "output_token_details"):
            for name in names_of(get(usage, details)):
                for part in ("_cache_read", "_reasoning"):
                    if name.endswith(part):
                        return clean_name(name.removesuffix(part))
    for source in answer.sources:
        if get(get(source, "usage"), "speed") == "fast":
            return "fast"  # Anthropic's, beside the tier of its usage.
        for place in (source, get(source, "usage")):
            bedrock = get(get(place, "serviceTier"), "type")
            tier = clean_name(get(place, "service_tier") or bedrock)
            if tier is not None:
                return tier
    return None


def _part(details: object, part: str) -> int:
    """Returns a part whose name may have a service tier in front of it."""
    for name in names_of(details):
        if name == part or name.endswith(f"_{part}"):
            count = count_of(get(details, name))
            if count is not None:
                return count
    return 0


def _nano_usd(value: object) -> int | None:
    """Returns an amount in USD as nano-USD, rounded up, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    if isinstance(value, int) and value > LIMIT_NANO_USD_MAX:
        return None  # Too long to be written out.
    # LiteLLM multiplies floats: what is beyond their precision is no part of a bill.
    text = f"{value:.15g}" if isinstance(value, float) else str(value)
    if not _AMOUNT.fullmatch(text):
        return None
    nano = math.ceil(Fraction(text) * NANO_PER_USD)
    return nano if nano <= LIMIT_NANO_USD_MAX else None
