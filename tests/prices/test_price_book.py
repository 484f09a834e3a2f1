"""Where a price comes from, and what happens when there is none."""

import subprocess
import sys
import threading
from decimal import Decimal, localcontext
from typing import Any

import pytest
from genai_prices.data_snapshot import (
    DataSnapshot,
    get_snapshot,
    set_custom_snapshot,
)

from guardrails.core.usage import UNPRICED, PriceStatus, TokenUsage
from guardrails.errors import ConfigurationError
from guardrails.ports import PriceBook
from guardrails.prices import ModelPrice, Prices
from guardrails.prices.book import CARDS_MAX, NAME_CHARACTERS_MAX, UNKNOWN_MAX
from guardrails.prices.recent import Recent
from tests.prices.oracle import ms

NOW_MS = ms(2026, 11, 25)
USAGE = TokenUsage(input_tokens=1_000, output_tokens=100)

GPT_4O_NANO_USD = 3_500_000
ROW = ModelPrice(input_per_1m_usd=Decimal(1), output_per_1m_usd=Decimal(2))
ROW_NANO_USD = 1_200_000
OTHER_ROW = ModelPrice(input_per_1m_usd=Decimal(4), output_per_1m_usd=Decimal(5))
OTHER_ROW_NANO_USD = 4_500_000


@pytest.fixture(scope="module")
def prices() -> Prices:
    return Prices()


def cost(
    prices: Prices, provider: str | None, model: str, usage: TokenUsage = USAGE
) -> int | None:
    charge = prices.price(provider=provider, model=model, usage=usage, now_ms=NOW_MS)
    return charge.cost_nano_usd


def test_is_a_price_book(prices: Prices) -> None:
    book: PriceBook = prices
    charge = book.price(provider="openai", model="gpt-4o", usage=USAGE, now_ms=NOW_MS)
    assert charge.cost_nano_usd == GPT_4O_NANO_USD


def test_names_its_source(prices: Prices) -> None:
    with_row = Prices({"mine": ROW})
    listed = prices.price(provider=None, model="gpt-4o", usage=USAGE, now_ms=NOW_MS)
    own = with_row.price(provider=None, model="mine", usage=USAGE, now_ms=NOW_MS)
    assert (listed.source or "").startswith("genai-prices 0.")
    assert own.source == "config"


def test_importing_guardrails_prices_reads_no_price_list() -> None:
    code = "import guardrails.prices, sys; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_prices_that_a_host_program_sets_are_its_own() -> None:
    nothing = DataSnapshot(providers=[], from_auto_update=True)
    set_custom_snapshot(nothing)
    try:
        assert cost(Prices(), "openai", "gpt-4o") == GPT_4O_NANO_USD
        assert get_snapshot() is nothing
    finally:
        set_custom_snapshot(None)


def test_the_decimal_precision_of_a_host_program_changes_no_price() -> None:
    with localcontext(prec=1):
        assert cost(Prices(), "perplexity", "sonar-pro") == 18_500_000
        assert cost(Prices({"mine": ROW}), None, "mine") == ROW_NANO_USD


# --- the user's rows and aliases ---------------------------------------------


@pytest.mark.parametrize(
    ("key", "provider", "model"),
    [
        ("gpt-4o", "openai", "gpt-4o"),
        ("gpt-4o", None, "gpt-4o"),
        ("GPT-4o", "openai", "gpt-4O"),
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("openai/gpt-4o", None, "openai/gpt-4o"),
        ("openai/gpt-4o", "litellm", "openai/gpt-4o"),
        ("azure/my-tune", "azure.ai.openai", "my-tune"),
        ("azure_ai/my-tune", "azure.ai.inference", "my-tune"),
        ("bedrock/my-tune", "aws", "my-tune"),
        ("ollama/llama3", "ollama", "llama3"),
        ("ollama/llama3", None, "ollama/llama3"),
        ("vllm/meta-llama/llama-3", "vllm", "meta-llama/Llama-3"),
        ("gemini-2.5-flash", "google_genai", "models/gemini-2.5-flash"),
    ],
)
def test_a_row_beats_the_list(key: str, provider: str | None, model: str) -> None:
    assert cost(Prices({key: ROW}), provider, model) == ROW_NANO_USD


def test_a_row_of_another_provider_does_not_count() -> None:
    assert cost(Prices({"azure/gpt-4o": ROW}), "openai", "gpt-4o") == GPT_4O_NANO_USD


def test_the_row_that_names_the_provider_wins() -> None:
    prices = Prices({"gpt-4o": ROW, "azure/gpt-4o": OTHER_ROW})
    assert cost(prices, "azure.ai.openai", "gpt-4o") == OTHER_ROW_NANO_USD
    assert cost(prices, "openai", "gpt-4o") == ROW_NANO_USD


def test_a_row_may_be_a_mapping_as_in_yaml() -> None:
    row = {"input_per_1m_usd": Decimal(1), "output_per_1m_usd": Decimal(2)}
    assert cost(Prices({"mine": row}), None, "mine") == ROW_NANO_USD


def test_a_row_of_zero_is_a_price() -> None:
    row = ModelPrice(input_per_1m_usd=Decimal(0), output_per_1m_usd=Decimal(0))
    prices = Prices({"ollama/llama3": row})
    charge = prices.price(provider="ollama", model="llama3", usage=USAGE, now_ms=NOW_MS)
    assert charge.cost_nano_usd == 0
    assert charge.status is PriceStatus.PRICED


def test_a_row_prices_each_kind_of_token() -> None:
    row = ModelPrice(
        input_per_1m_usd=Decimal(10),
        output_per_1m_usd=Decimal(50),
        cache_read_per_1m_usd=Decimal(1),
        cache_write_per_1m_usd=Decimal(12),
        cache_write_1h_per_1m_usd=Decimal(20),
    )
    usage = TokenUsage(
        input_tokens=1_000,
        cache_read_tokens=500,
        cache_write_tokens=300,
        cache_write_1h_tokens=100,
        output_tokens=10,
        reasoning_tokens=5,
    )
    charge = Prices({"mine": row}).price(
        provider=None, model="mine", usage=usage, now_ms=NOW_MS
    )
    # 200 fresh, 500 read, 200 written, 100 written for an hour, 10 out.
    usd_per_1m = 200 * 10 + 500 * 1 + 200 * 12 + 100 * 20 + 10 * 50
    assert charge.cost_nano_usd == usd_per_1m * 1_000
    assert charge.status is PriceStatus.PRICED


def test_a_row_without_cache_rates_bills_cached_input_as_input() -> None:
    usage = TokenUsage(input_tokens=1_000, cache_read_tokens=900, output_tokens=100)
    assert cost(Prices({"mine": ROW}), None, "mine", usage) == ROW_NANO_USD


def test_rounds_up_once_per_call() -> None:
    row = ModelPrice(
        input_per_1m_usd=Decimal("0.0001"), output_per_1m_usd=Decimal("0.0001")
    )
    prices = Prices({"mine": row})
    one_each = TokenUsage(input_tokens=1, output_tokens=1)
    assert cost(prices, None, "mine", one_each) == 1  # Of 0.2 nano-USD.
    assert cost(prices, None, "mine", TokenUsage(input_tokens=10)) == 1
    assert cost(prices, None, "mine", TokenUsage(input_tokens=11)) == 2
    assert cost(prices, None, "mine", TokenUsage()) == 0


@pytest.mark.parametrize(
    ("alias", "target", "provider", "model"),
    [
        ("azure/my-gpt4o-prod", "azure/gpt-4o", "azure", "my-gpt4o-prod"),
        ("azure/my-gpt4o-prod", "azure/gpt-4o", "azure.ai.openai", "My-GPT4o-prod"),
        ("my-gpt4o-prod", "gpt-4o", "azure", "my-gpt4o-prod"),
        ("my-gpt4o-prod", "GPT-4o", None, "my-gpt4o-prod"),
        ("my-gpt4o-prod", "gpt-4o", "my-gateway", "my-gpt4o-prod"),
        ("my-gpt4o-prod", "openai/gpt-4o", "my-gateway", "my-gpt4o-prod"),
        ("my-gpt4o-prod", "openrouter/openai/gpt-4o", None, "my-gpt4o-prod"),
        ("gpt-4o-mini", "gpt-4o", "openai", "gpt-4o-mini"),
    ],
)
def test_an_alias_names_what_to_look_up(
    alias: str, target: str, provider: str | None, model: str
) -> None:
    assert cost(Prices({}, {alias: target}), provider, model) == GPT_4O_NANO_USD


def test_the_target_of_an_alias_is_a_model_of_the_callers_provider() -> None:
    prices = Prices({}, {"fast": "meta-llama/Llama-3.3-70B-Instruct-Turbo"})
    assert cost(prices, "together", "fast") == 968_000


def test_the_target_of_an_alias_may_be_a_row() -> None:
    prices = Prices({"azure/tuned": ROW}, {"prod": "azure/tuned"})
    assert cost(prices, "azure", "prod") == ROW_NANO_USD


def test_a_row_beats_an_alias() -> None:
    prices = Prices({"prod": ROW}, {"prod": "gpt-4o"})
    assert cost(prices, "openai", "prod") == ROW_NANO_USD


def test_an_alias_of_an_alias_is_unknown() -> None:
    prices = Prices({}, {"one": "two", "two": "gpt-4o"})
    assert cost(prices, "openai", "one") is None


@pytest.mark.parametrize(
    "rate",
    [
        Decimal(-1),
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("9000.01"),
        Decimal("1e-19"),
        Decimal("1e999999"),
        1.5,
        3,
        "3.00",
        None,
    ],
)
def test_refuses_an_impossible_rate(rate: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^input_per_1m_usd: "):
        ModelPrice(input_per_1m_usd=rate, output_per_1m_usd=Decimal(1))


def test_refuses_an_impossible_optional_rate() -> None:
    with pytest.raises(ConfigurationError, match=r"^cache_read_per_1m_usd: "):
        ModelPrice(
            input_per_1m_usd=Decimal(1),
            output_per_1m_usd=Decimal(1),
            cache_read_per_1m_usd=Decimal(-1),
        )


# --- unknown and partial -------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-opus-9"),
        ("openai", "gpt-7"),
        ("openai", "claude-sonnet-4-5"),
        (None, "gemini-9-pro-turbo-x"),
        ("azure", "my-gpt4o-prod"),
        ("my-gateway", "gpt-4o"),
        ("ollama", "gpt-oss:20b"),
        ("vllm", "gpt-4o"),
        ("hosted_vllm", "gpt-4o"),
        ("openai_like", "gpt-oss-20b"),
        (None, "ollama/gpt-4o"),
        (None, "ollama/deepseek-r1"),
        ("litellm", "ollama/claude-sonnet-4-5"),
        ("nvidia", "meta/llama-3.1-70b-instruct"),
        ("ibm.watsonx.ai", "ibm/granite-3-8b"),
        # Listed without any rate: free there, or nobody knows.
        ("google", "gemma-3-27b-it"),
        ("github-copilot", "gpt-4o"),
        # Billed by the second, by the page and by the character.
        ("openai", "whisper-1"),
        ("mistral", "mistral-ocr-2505"),
        ("openai", "tts-1"),
    ],
)
def test_an_unknown_price_is_not_zero(
    prices: Prices, provider: str | None, model: str
) -> None:
    charge = prices.price(provider=provider, model=model, usage=USAGE, now_ms=NOW_MS)
    assert charge == UNPRICED


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", ""),
        (None, ""),
        ("", ""),
        ("", "gpt-4o"),
        ("openai", " "),
        ("openai", "/"),
        (None, "/"),
        (None, "litellm/" * 60),
        (None, "models/"),
        ("aws", "a/"),
        ("huggingface", ":"),
        ("://", "gpt-4o"),
        ("openai", "gpt-4o\x00"),
        (None, "\x1b[31mgpt-4o\n"),
        ("openai", "\ud800"),
        (None, "ﬁ’İ😀"),
        ("openai", "gpt-4o" + "x" * 10**6),
        ("x" * 10**6, "gpt-4o"),
        (None, "a/" * 10**6),
    ],
    ids=lambda name: ascii(name)[:20],
)
def test_a_name_that_is_no_name_is_unknown(
    prices: Prices, provider: str | None, model: str
) -> None:
    for _ in range(2):  # The second answer is remembered.
        charge = prices.price(
            provider=provider, model=model, usage=USAGE, now_ms=NOW_MS
        )
        assert charge == UNPRICED
    bound = prices.bound(
        provider=provider, model=model, input_tokens=1, output_tokens=1, now_ms=NOW_MS
    )
    assert bound == UNPRICED


def test_a_name_of_the_largest_length_is_looked_up() -> None:
    longest = "m" * NAME_CHARACTERS_MAX
    prices = Prices({longest: ROW, longest + "m": ROW})
    assert cost(prices, None, longest) == ROW_NANO_USD
    assert cost(prices, None, longest + "m") is None


@pytest.mark.parametrize(
    ("provider", "model", "usage", "cost_nano_usd"),
    [
        ("x-ai", "grok-4", TokenUsage(input_tokens=1_000, web_searches=10), 3_000_000),
        # 1,000 tokens of audio, billed as text for want of a rate.
        (
            "openai",
            "gpt-4o",
            TokenUsage(input_tokens=1_000, input_audio_tokens=1_000),
            2_500_000,
        ),
        (
            "openai",
            "gpt-4o",
            TokenUsage(output_tokens=1_000, output_audio_tokens=1),
            10_000_000,
        ),
        (
            "openai",
            "gpt-4o",
            TokenUsage(input_tokens=1_000, cache_write_tokens=1),
            2_500_000,
        ),
        # Of the output an unknown part is images, at 30 instead of 2.50 USD.
        (
            "google",
            "gemini-2.5-flash-image",
            TokenUsage(output_tokens=1_000),
            2_500_000,
        ),
        # Of the input an unknown part may be images, at 10 instead of 5 USD.
        ("openai", "gpt-image-1", TokenUsage(input_tokens=1_000), 5_000_000),
        # A tier that costs more, without a list price.
        (
            "anthropic",
            "claude-sonnet-4-5",
            TokenUsage(input_tokens=1_000, service_tier="priority"),
            3_000_000,
        ),
        # Azure's list is not OpenAI's, whose rates it is looked up in.
        (
            "azure",
            "gpt-5",
            TokenUsage(input_tokens=1_000, service_tier="priority"),
            1_250_000,
        ),
        ("openai", "text-embedding-3-small", USAGE, 20_000),
    ],
)
def test_a_unit_without_a_rate_makes_the_charge_partial(
    prices: Prices,
    provider: str,
    model: str,
    usage: TokenUsage,
    cost_nano_usd: int,
) -> None:
    charge = prices.price(provider=provider, model=model, usage=usage, now_ms=NOW_MS)

    assert charge.status is PriceStatus.PARTIAL
    assert charge.cost_nano_usd == cost_nano_usd


@pytest.mark.parametrize(
    ("provider", "model", "usage"),
    [
        ("x-ai", "grok-4", USAGE),
        ("google", "gemini-2.5-flash-image", TokenUsage(input_tokens=1_000)),
        ("anthropic", "claude-sonnet-4-5", TokenUsage(service_tier="standard")),
        ("anthropic", "claude-sonnet-4-5", TokenUsage(service_tier="batch" * 10**5)),
        ("azure", "gpt-5", TokenUsage(input_tokens=1_000, service_tier="flex")),
        ("openai", "gpt-5", TokenUsage(output_tokens=9, reasoning_tokens=9)),
    ],
)
def test_a_unit_that_was_not_used_needs_no_rate(
    prices: Prices, provider: str, model: str, usage: TokenUsage
) -> None:
    charge = prices.price(provider=provider, model=model, usage=usage, now_ms=NOW_MS)
    assert charge.status is PriceStatus.PRICED


# --- memory and threads --------------------------------------------------------


def test_remembers_the_last_answers_only() -> None:
    recent = Recent[int, str](entries_max=2)
    for key in (1, 2, 1, 3):
        recent.put(key, f"answer {key}")

    assert len(recent) == 2
    assert [recent.get(key) for key in (1, 2, 3)] == ["answer 1", None, "answer 3"]


def test_memory_stays_bounded_whatever_names_come() -> None:
    prices = Prices({"known": ROW})
    for number in range(max(CARDS_MAX, UNKNOWN_MAX) + 100):
        assert cost(prices, f"provider-{number}", "known") == ROW_NANO_USD
        assert cost(prices, f"provider-{number}", "unknown") is None

    # No behaviour shows what is held: the sizes are the contract.
    assert len(prices._cards) == CARDS_MAX  # pyright: ignore[reportPrivateUsage]
    assert len(prices._unknown) == UNKNOWN_MAX  # pyright: ignore[reportPrivateUsage]


def test_many_threads_get_the_same_answers() -> None:
    prices = Prices({"mine": ROW}, {"prod": "gpt-4o"})
    questions = [("openai", "gpt-4o"), ("openai", "prod"), (None, "mine"), (None, "no")]
    expected = [GPT_4O_NANO_USD, GPT_4O_NANO_USD, ROW_NANO_USD, None]
    start = threading.Barrier(8)
    answers: list[list[int | None]] = []

    def ask(gateway: int) -> None:
        start.wait()
        for number in range(300):
            # Together more names than are remembered: they evict one another.
            cost(prices, f"gateway-{gateway}-{number}", "mine")
            answers.append([cost(prices, *question) for question in questions])

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 8 * 300
    assert all(answer == expected for answer in answers)
