"""Known prices: what a call costs under every spelling of its provider and model.

The amounts come from the providers' public lists, by hand (those of Hugging Face and
Fireworks, which change often, from genai-prices 0.2.3): 1,000 input and 100
output tokens at 2.50 and 10 USD per million are 3,500,000 nano-USD.
"""

import pytest

from guardrails.core.usage import PriceStatus, TokenUsage
from guardrails.prices import Prices
from tests.prices.oracle import ms

PLAIN = TokenUsage(input_tokens=1_000, output_tokens=100)
EMBEDDED = TokenUsage(input_tokens=1_000)
CACHED = TokenUsage(
    input_tokens=10_000,
    cache_read_tokens=6_000,
    output_tokens=1_000,
    reasoning_tokens=400,
)
WRITTEN = TokenUsage(
    input_tokens=10_000,
    cache_read_tokens=2_000,
    cache_write_tokens=6_000,
    cache_write_1h_tokens=1_000,
    output_tokens=500,
)
LONG = TokenUsage(input_tokens=250_000, output_tokens=1_000)
SEARCHED = TokenUsage(input_tokens=1_000, output_tokens=100, web_searches=10)

NOW_MS = ms(2026, 11, 25)

ROWS: list[tuple[str | None, str, TokenUsage, int]] = [
    ("openai", "gpt-4o-2024-08-06", PLAIN, 3_500_000),
    (None, "gpt-4o-2024-08-06", PLAIN, 3_500_000),
    ("openai", "gpt-4o-2024-05-13", PLAIN, 6_500_000),
    ("openai", "gpt-4o-mini", PLAIN, 210_000),
    ("openai", "gpt-4.1-2025-04-14", PLAIN, 2_800_000),
    ("openai", "gpt-4.1-mini", PLAIN, 560_000),
    ("openai", "gpt-4.1-nano", PLAIN, 140_000),
    ("openai", "gpt-5-2025-08-07", PLAIN, 2_250_000),
    (None, "gpt-5-2025-08-07", PLAIN, 2_250_000),
    ("openai", "gpt-5-mini", PLAIN, 450_000),
    ("openai", "gpt-5-nano", PLAIN, 90_000),
    ("openai", "o3", PLAIN, 2_800_000),
    ("openai", "o4-mini", PLAIN, 1_540_000),
    ("openai", "gpt-4-turbo", PLAIN, 13_000_000),
    ("openai", "gpt-3.5-turbo", PLAIN, 650_000),
    ("openai", "o1-pro", PLAIN, 210_000_000),
    ("OpenAI", "GPT-4o", PLAIN, 3_500_000),
    ("openai", "openai/gpt-4o", PLAIN, 3_500_000),
    ("azure.ai.openai", "gpt-4o", PLAIN, 3_500_000),
    ("azure", "gpt-4o-2024-11-20", PLAIN, 3_500_000),
    ("azure_openai", "gpt-4o", PLAIN, 3_500_000),
    ("azure_ai", "gpt-4o", PLAIN, 3_500_000),
    ("az.ai.inference", "gpt-4o", PLAIN, 3_500_000),
    ("azure.ai.inference", "gpt-4o", PLAIN, 3_500_000),
    ("azure", "azure/gpt-4o", PLAIN, 3_500_000),
    ("azure", "gpt-35-turbo", PLAIN, 650_000),
    ("litellm", "azure/gpt-4o", PLAIN, 3_500_000),
    (None, "azure/gpt-4o", PLAIN, 3_500_000),
    ("litellm", "gpt-4o", PLAIN, 3_500_000),
    (None, "openai/gpt-4o", PLAIN, 3_500_000),
    ("litellm_proxy", "openai/gpt-4o", PLAIN, 3_500_000),
    ("https://api.openai.com/v1", "gpt-4o", PLAIN, 3_500_000),
    ("https://api.anthropic.com", "claude-sonnet-4-5", PLAIN, 4_500_000),
    ("anthropic", "claude-sonnet-4-5-20250929", PLAIN, 4_500_000),
    (None, "claude-sonnet-4-5-20250929", PLAIN, 4_500_000),
    ("anthropic", "claude-haiku-4-5-20251001", PLAIN, 1_500_000),
    (None, "claude-haiku-4-5-20251001", PLAIN, 1_500_000),
    ("anthropic", "claude-3-5-haiku-20241022", PLAIN, 1_200_000),
    ("anthropic", "claude-opus-4-1-20250805", PLAIN, 22_500_000),
    ("anthropic", "claude-opus-4-5", PLAIN, 7_500_000),
    ("anthropic", "claude-3-haiku-20240307", PLAIN, 375_000),
    ("aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", PLAIN, 4_950_000),
    ("aws", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", PLAIN, 4_950_000),
    ("aws", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", PLAIN, 4_500_000),
    (
        "aws.bedrock",
        "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        PLAIN,
        4_500_000,
    ),
    (
        "bedrock_converse",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        PLAIN,
        4_950_000,
    ),
    (
        "amazon_bedrock",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        PLAIN,
        4_950_000,
    ),
    (
        "aws",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        PLAIN,
        4_950_000,
    ),
    (
        "litellm",
        "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        PLAIN,
        4_950_000,
    ),
    (
        "litellm",
        "bedrock/converse/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        PLAIN,
        4_950_000,
    ),
    ("google", "claude-sonnet-4-5@20250929", PLAIN, 4_500_000),
    ("google_vertexai", "claude-sonnet-4-5@20250929", PLAIN, 4_500_000),
    ("google", "gemini-2.5-pro", PLAIN, 2_250_000),
    ("gcp.vertex_ai", "gemini-2.5-pro", PLAIN, 2_250_000),
    ("gcp.gemini", "gemini-2.5-pro", PLAIN, 2_250_000),
    ("gcp.gen_ai", "gemini-2.5-pro", PLAIN, 2_250_000),
    ("google_genai", "models/gemini-2.5-flash", PLAIN, 550_000),
    ("google", "models/gemini-2.5-flash", PLAIN, 550_000),
    (None, "models/gemini-2.5-flash", PLAIN, 550_000),
    ("google", "publishers/google/models/gemini-2.5-pro", PLAIN, 2_250_000),
    ("litellm", "vertex_ai/gemini-2.5-pro", PLAIN, 2_250_000),
    (None, "gemini/gemini-2.5-flash-lite", PLAIN, 140_000),
    ("google", "gemini-2.0-flash-001", PLAIN, 140_000),
    ("openrouter", "anthropic/claude-sonnet-4.5", PLAIN, 4_500_000),
    ("openrouter", "openai/gpt-4o-2024-08-06", PLAIN, 3_500_000),
    ("litellm", "openrouter/anthropic/claude-sonnet-4.5", PLAIN, 4_500_000),
    (None, "openrouter/openai/gpt-4o-2024-08-06", PLAIN, 3_500_000),
    ("groq", "llama-3.3-70b-versatile", PLAIN, 669_000),
    (None, "groq/llama-3.3-70b-versatile", PLAIN, 669_000),
    ("mistral", "mistral-large-2411", PLAIN, 2_600_000),
    ("mistral_ai", "mistral-large-2411", PLAIN, 2_600_000),
    ("mistralai", "mistral-large-2411", PLAIN, 2_600_000),
    ("x_ai", "grok-4", PLAIN, 4_500_000),
    ("xai", "grok-4", PLAIN, 4_500_000),
    ("x-ai", "grok-4-0709", PLAIN, 4_500_000),
    ("cohere", "command-r-plus", PLAIN, 3_500_000),
    ("cohere_chat", "command-r-plus-08-2024", PLAIN, 3_500_000),
    ("together_ai", "meta-llama/Llama-3.3-70B-Instruct-Turbo", PLAIN, 968_000),
    ("fireworks_ai", "accounts/fireworks/models/deepseek-v3p2", PLAIN, 728_000),
    ("litellm", "fireworks_ai/accounts/fireworks/models/deepseek-v3p2", PLAIN, 728_000),
    ("huggingface", "meta-llama/Llama-3.3-70B-Instruct:together", PLAIN, 1_144_000),
    (
        "litellm",
        "huggingface/together/meta-llama/Llama-3.3-70B-Instruct",
        PLAIN,
        1_144_000,
    ),
    ("moonshot_ai", "kimi-k2-0905-preview", PLAIN, 850_000),
    ("openai", "text-embedding-3-small", EMBEDDED, 20_000),
    ("openai", "text-embedding-3-large", EMBEDDED, 130_000),
    ("openai", "gpt-4o", CACHED, 27_500_000),
    ("openai", "gpt-5", CACHED, 15_750_000),
    ("openai", "o3", CACHED, 19_000_000),
    ("openai", "gpt-4.1", CACHED, 19_000_000),
    ("anthropic", "claude-sonnet-4-5", CACHED, 28_800_000),
    ("anthropic", "claude-haiku-4-5", CACHED, 9_600_000),
    ("google", "gemini-2.5-pro", CACHED, 15_750_000),
    ("google", "gemini-2.5-flash", CACHED, 3_880_000),
    ("x-ai", "grok-4", CACHED, 31_500_000),
    ("perplexity", "sonar-deep-research", CACHED, 26_000_000),
    ("anthropic", "claude-sonnet-4-5", WRITTEN, 38_850_000),
    ("anthropic", "claude-haiku-4-5", WRITTEN, 12_950_000),
    ("anthropic", "claude-opus-4-5", WRITTEN, 64_750_000),
    ("google", "gemini-2.5-pro", LONG, 640_000_000),
    ("anthropic", "claude-sonnet-4-5", LONG, 1_522_500_000),
    ("openai", "gpt-4.1", LONG, 508_000_000),
    ("openai", "gpt-5.4", LONG, 640_000_000),
    ("openai", "gpt-5", SEARCHED, 102_250_000),
    ("anthropic", "claude-sonnet-4-5", SEARCHED, 104_500_000),
    ("google", "gemini-2.5-pro", SEARCHED, 352_250_000),
    ("perplexity", "sonar-pro", PLAIN, 18_500_000),
]


@pytest.fixture(scope="module")
def prices() -> Prices:
    return Prices()


@pytest.mark.parametrize(("provider", "model", "usage", "cost_nano_usd"), ROWS)
def test_costs_what_the_provider_lists(
    prices: Prices,
    provider: str | None,
    model: str,
    usage: TokenUsage,
    cost_nano_usd: int,
) -> None:
    charge = prices.price(provider=provider, model=model, usage=usage, now_ms=NOW_MS)

    assert charge.cost_nano_usd == cost_nano_usd
    assert charge.status is PriceStatus.PRICED


@pytest.mark.parametrize(
    ("model", "service_tier", "cost_nano_usd"),
    [
        ("gpt-5", None, 2_250_000),
        ("gpt-5", "default", 2_250_000),
        ("gpt-5", "flex", 1_125_000),
        ("gpt-5", "FLEX", 1_125_000),
        ("gpt-5", "batch", 1_125_000),
        ("gpt-5", "priority", 4_500_000),
        ("o3", "flex", 1_400_000),
        ("o3", "batch", 1_400_000),
        ("claude-opus-4-8", None, 7_500_000),
        ("claude-opus-4-8", "fast", 15_000_000),
    ],
)
def test_bills_the_service_tier(
    prices: Prices, model: str, service_tier: str | None, cost_nano_usd: int
) -> None:
    usage = TokenUsage(input_tokens=1_000, output_tokens=100, service_tier=service_tier)
    provider = "anthropic" if model.startswith("claude") else "openai"

    charge = prices.price(provider=provider, model=model, usage=usage, now_ms=NOW_MS)

    assert charge.cost_nano_usd == cost_nano_usd
    assert charge.status is PriceStatus.PRICED


@pytest.mark.parametrize(
    ("provider", "model", "now_ms", "cost_nano_usd"),
    [
        ("openai", "o3", ms(2025, 6, 9), 14_000_000),
        ("openai", "o3", ms(2025, 6, 11), 2_800_000),
        ("openai", "gpt-5.6-sol", ms(2026, 8, 20), 8_000_000),
        ("openai", "gpt-5.6-sol", ms(2026, 8, 22), 6_000_000),
        ("deepseek", "deepseek-reasoner", ms(2025, 3, 1, 0, 29), 190_000),
        ("deepseek", "deepseek-reasoner", ms(2025, 3, 1, 0, 30), 769_000),
        ("deepseek", "deepseek-reasoner", ms(2025, 3, 1, 16, 29), 769_000),
        ("deepseek", "deepseek-reasoner", ms(2025, 3, 1, 16, 30), 190_000),
    ],
)
def test_bills_the_price_of_the_day_and_hour(
    prices: Prices, provider: str, model: str, now_ms: int, cost_nano_usd: int
) -> None:
    charge = prices.price(provider=provider, model=model, usage=PLAIN, now_ms=now_ms)

    assert charge.cost_nano_usd == cost_nano_usd
