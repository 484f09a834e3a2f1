"""Translate: what LangChain's objects say, in each of the shapes they come in.

The shapes are those of the converters of langchain-anthropic 1.7.10, -openai
1.7.4, -aws 1.9.1, -google-genai 4.4.2, -openrouter 0.2.9 and -litellm 0.11.2.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    Generation,
    LLMResult,
)
from langgraph.types import Command
from pydantic import BaseModel

from guardrails.core.attribution import clean_name
from guardrails.core.calls import CallStatus, ModelCall, Outcome
from guardrails.core.estimates import (
    MEDIA_PART_TOKENS_MAX,
    MESSAGE_OVERHEAD_TOKENS,
    input_tokens_max,
)
from guardrails.core.usage import TokenUsage
from guardrails_langchain.reading import translate
from guardrails_langchain.reading.answers import Answer
from guardrails_langchain.reading.usage import named_tier, usage_of

KEY = b"a key of this deployment"
SECRET = "4c1e5a0b-content-of-the-user"


def used_by(result: LLMResult) -> TokenUsage | None:
    answer = Answer(result)
    return usage_of(answer, tier=named_tier(answer))


def answered(
    usage: Mapping[str, Any] | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    output: Mapping[str, Any] | None = None,
    content: Any = "",
    candidates: int = 1,
    prompts: int = 1,
) -> LLMResult:
    """Builds a result as a provider's integration does, whatever the numbers."""

    def generation() -> ChatGeneration:
        message = AIMessage(content, response_metadata=dict(metadata or {}))
        message.usage_metadata = usage  # type: ignore[assignment]
        return ChatGeneration(message=message)

    return LLMResult(
        generations=[[generation() for _ in range(candidates)] for _ in range(prompts)],
        llm_output=None if output is None else dict(output),
    )


def counts(input_tokens: object, output_tokens: object, **details: Any) -> Any:
    """Builds `usage_metadata`; `total_tokens` is wrong, as it is with Bedrock."""
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": 7,
        **details,
    }


USAGES = {
    "anthropic": (
        answered(
            counts(
                1_000,
                50,
                input_token_details={
                    "cache_read": 400,
                    "cache_creation": 0,
                    "ephemeral_5m_input_tokens": 60,
                    "ephemeral_1h_input_tokens": 40,
                },
                output_token_details={"reasoning": 10},
            )
        ),
        TokenUsage(
            input_tokens=1_000,
            cache_read_tokens=400,
            cache_write_tokens=100,
            cache_write_1h_tokens=40,
            output_tokens=50,
            reasoning_tokens=10,
        ),
    ),
    "anthropic without lifetimes": (
        answered(
            counts(
                500, 5, input_token_details={"cache_read": 400, "cache_creation": 60}
            )
        ),
        TokenUsage(
            input_tokens=500,
            cache_read_tokens=400,
            cache_write_tokens=60,
            output_tokens=5,
        ),
    ),
    "cache writes in both forms": (
        answered(
            counts(
                500,
                5,
                input_token_details={
                    "cache_creation": 100,
                    "ephemeral_5m_input_tokens": 60,
                    "ephemeral_1h_input_tokens": 40,
                },
            )
        ),
        TokenUsage(
            input_tokens=500,
            cache_write_tokens=100,
            cache_write_1h_tokens=40,
            output_tokens=5,
        ),
    ),
    "openai": (
        answered(
            counts(
                1_000,
                200,
                input_token_details={"audio": 30, "cache_read": 400},
                output_token_details={"audio": 20, "reasoning": 50},
            ),
            metadata={"service_tier": "default"},
        ),
        TokenUsage(
            input_tokens=1_000,
            cache_read_tokens=400,
            input_audio_tokens=30,
            output_tokens=200,
            reasoning_tokens=50,
            output_audio_tokens=20,
        ),
    ),
    "openai flex": (
        answered(
            counts(
                1_000,
                200,
                input_token_details={"audio": 0, "flex_cache_read": 400, "flex": 600},
                output_token_details={"flex_reasoning": 50, "flex": 150},
            )
        ),
        TokenUsage(
            input_tokens=1_000,
            cache_read_tokens=400,
            output_tokens=200,
            reasoning_tokens=50,
            service_tier="flex",
        ),
    ),
    "openai priority, tier also in the metadata": (
        answered(
            counts(
                1_000,
                200,
                input_token_details={
                    "priority_cache_read": 400,
                    "priority_cache_creation": 100,
                    "priority": 600,
                },
            ),
            metadata={"service_tier": "priority"},
        ),
        TokenUsage(
            input_tokens=1_000,
            cache_read_tokens=400,
            cache_write_tokens=100,
            output_tokens=200,
            service_tier="priority",
        ),
    ),
    "tier in the metadata only": (
        answered(counts(10, 2), metadata={"service_tier": "scale"}),
        TokenUsage(input_tokens=10, output_tokens=2, service_tier="scale"),
    ),
    "tier in anthropic's own usage": (
        answered(counts(10, 2), metadata={"usage": {"service_tier": "batch"}}),
        TokenUsage(input_tokens=10, output_tokens=2, service_tier="batch"),
    ),
    "vertex ai, whose reasoning is beside the output": (
        answered(
            {
                "input_tokens": 1_000,
                "output_tokens": 500,
                "total_tokens": 1_800,
                "input_token_details": {"cache_read": 0},
                "output_token_details": {"reasoning": 300},
            }
        ),
        TokenUsage(input_tokens=1_000, output_tokens=800, reasoning_tokens=300),
    ),
    "xai by openai's protocol": (
        answered(
            metadata={
                "token_usage": {
                    "prompt_tokens": 1_000,
                    "completion_tokens": 500,
                    "total_tokens": 1_800,
                    "completion_tokens_details": {"reasoning_tokens": 300},
                }
            }
        ),
        TokenUsage(input_tokens=1_000, output_tokens=800, reasoning_tokens=300),
    ),
    "gemini, whose tools' results are in the total alone": (
        answered(
            {
                "input_tokens": 1_000,
                "output_tokens": 350,
                "total_tokens": 9_350,
                "output_token_details": {"reasoning": 300},
            },
            metadata={"model_provider": "google_genai"},
        ),
        TokenUsage(input_tokens=9_000, output_tokens=350, reasoning_tokens=300),
    ),
    "gemini by openai's protocol, whose thoughts are in the total alone": (
        answered(
            metadata={
                "token_usage": {
                    "prompt_tokens": 1_000,
                    "completion_tokens": 50,
                    "total_tokens": 1_350,
                }
            }
        ),
        TokenUsage(input_tokens=1_000, output_tokens=350),
    ),
    "anthropic's searches in a stream, of which one has failed": (
        answered(
            counts(10, 2),
            content=[
                {"type": "server_tool_use", "id": "1", "name": "web_search"},
                {"type": "web_search_tool_result", "content": [{"url": "x"}]},
                {"type": "server_tool_use", "id": "2", "name": "web_search"},
                {"type": "web_search_tool_result", "content": {"error_code": "x"}},
            ],
        ),
        TokenUsage(input_tokens=10, output_tokens=2, web_searches=1),
    ),
    "anthropic's searches, of which a call was merged into a text": (
        answered(
            counts(10, 2),
            content=[
                {"type": "text", "text": "", "name": "web_search", "args": "{}"},
                {
                    "type": "server_tool_result",
                    "status": "success",
                    "extras": {"block_type": "web_search_tool_result"},
                },
                {"type": "server_tool_call", "name": "web_search", "args": {}},
                {
                    "type": "server_tool_result",
                    "status": "success",
                    "extras": {"block_type": "web_search_tool_result"},
                },
            ],
        ),
        TokenUsage(input_tokens=10, output_tokens=2, web_searches=2),
    ),
    "anthropic's summaries of the prompt, which its totals leave out": (
        answered(
            counts(1_000, 200),
            metadata={
                "usage": {
                    "input_tokens": 1_000,
                    "output_tokens": 200,
                    "iterations": [
                        {
                            "type": "compaction",
                            "input_tokens": 150_000,
                            "output_tokens": 500,
                            "cache_read_input_tokens": 10_000,
                            "cache_creation_input_tokens": 20,
                        },
                        {
                            "type": "message",
                            "input_tokens": 1_000,
                            "output_tokens": 200,
                        },
                    ],
                }
            },
        ),
        TokenUsage(
            input_tokens=161_020,
            cache_read_tokens=10_000,
            cache_write_tokens=20,
            output_tokens=700,
        ),
    ),
    "a model that searches whatever it is asked": (
        answered(
            counts(10, 2), metadata={"model_name": "gpt-4o-search-preview-2025-03-11"}
        ),
        TokenUsage(input_tokens=10, output_tokens=2, web_searches=1),
    ),
    "reasoning that is part of the output, and of the total": (
        answered(
            {
                "input_tokens": 1_000,
                "output_tokens": 500,
                "total_tokens": 1_500,
                "output_token_details": {"reasoning": 500},
            }
        ),
        TokenUsage(input_tokens=1_000, output_tokens=500, reasoning_tokens=500),
    ),
    "mistral, whose cached input is in its own report": (
        answered(
            {"input_tokens": 801, "output_tokens": 2, "total_tokens": 803},
            metadata={
                "token_usage": {
                    "prompt_tokens": 801,
                    "completion_tokens": 2,
                    "prompt_tokens_details": {"cached_tokens": 768},
                }
            },
        ),
        TokenUsage(input_tokens=801, cache_read_tokens=768, output_tokens=2),
    ),
    "openai's searches, and what it did with what it found": (
        answered(
            counts(10, 2),
            content=[
                {"type": "web_search_call", "id": "1", "action": {"type": "search"}},
                {"type": "web_search_call", "id": "2", "action": {"type": "open_page"}},
                *(
                    {
                        "type": "server_tool_call",
                        "name": "web_search",
                        "args": {"type": kind},
                    }
                    for kind in ("search", "find_in_page")
                ),
            ],
        ),
        TokenUsage(input_tokens=10, output_tokens=2, web_searches=2),
    ),
    "searches of gemini 3, each of which is billed": (
        answered(
            counts(10, 2),
            metadata={
                "model_name": "gemini-3-flash-preview",
                "grounding_metadata": {"web_search_queries": ["a", "b", "a"]},
            },
        ),
        TokenUsage(input_tokens=10, output_tokens=2, web_searches=2),
    ),
    "searches of gemini 2.5, billed by the prompt": (
        answered(
            counts(10, 2),
            metadata={
                "model_name": "models/gemini-2.5-flash",
                "grounding_metadata": {"web_search_queries": ["a", "b"]},
            },
        ),
        TokenUsage(input_tokens=10, output_tokens=2, web_searches=1),
    ),
    "gemini that has not searched": (
        answered(
            counts(10, 2),
            metadata={"grounding_metadata": {"web_search_queries": []}},
        ),
        TokenUsage(input_tokens=10, output_tokens=2),
    ),
    "bedrock's tier": (
        answered(counts(10, 2), metadata={"serviceTier": {"type": "priority"}}),
        TokenUsage(input_tokens=10, output_tokens=2, service_tier="priority"),
    ),
    "bedrock's ordinary tier": (
        answered(counts(10, 2), metadata={"serviceTier": {"type": "default"}}),
        TokenUsage(input_tokens=10, output_tokens=2),
    ),
    "anthropic's fast mode": (
        answered(
            counts(10, 2),
            metadata={"usage": {"service_tier": "standard", "speed": "fast"}},
        ),
        TokenUsage(input_tokens=10, output_tokens=2, service_tier="fast"),
    ),
    "anthropic's ordinary speed": (
        answered(counts(10, 2), metadata={"usage": {"speed": "standard"}}),
        TokenUsage(input_tokens=10, output_tokens=2),
    ),
    "bedrock converse": (
        answered(
            counts(
                2_000, 100, input_token_details={"cache_read": 0, "cache_creation": 0}
            )
        ),
        TokenUsage(input_tokens=2_000, output_tokens=100),
    ),
    "mistral": (
        answered(counts(10, 2)),
        TokenUsage(input_tokens=10, output_tokens=2),
    ),
    "anthropic web search": (
        answered(
            counts(10, 2),
            metadata={"usage": {"server_tool_use": {"web_search_requests": 3}}},
        ),
        TokenUsage(input_tokens=10, output_tokens=2, web_searches=3),
    ),
    "anthropic web search, streamed": (
        answered(
            counts(10, 2),
            content=[
                {"type": "server_tool_use", "id": "1", "name": "web_search"},
                {"type": "web_search_tool_result", "tool_use_id": "1", "content": []},
                {"type": "server_tool_use", "id": "2", "name": "code_execution"},
                {"type": "server_tool_call", "id": "3", "name": "web_search"},
                {"type": "text", "text": "web_search"},
            ],
        ),
        TokenUsage(input_tokens=10, output_tokens=2, web_searches=2),
    ),
    "openai web search": (
        answered(
            counts(10, 2), content=[{"type": "web_search_call", "id": "1"}, "text"]
        ),
        TokenUsage(input_tokens=10, output_tokens=2, web_searches=1),
    ),
    "three candidates repeat the report of their call": (
        answered(counts(10, 2), candidates=3),
        TokenUsage(input_tokens=10, output_tokens=2),
    ),
    "three prompts add up": (
        answered(counts(10, 2), prompts=3, candidates=2),
        TokenUsage(input_tokens=30, output_tokens=6),
    ),
    "exclusive cache counts": (
        answered(
            counts(
                100, 5, input_token_details={"cache_read": 400, "cache_creation": 50}
            )
        ),
        TokenUsage(
            input_tokens=550,
            cache_read_tokens=400,
            cache_write_tokens=50,
            output_tokens=5,
        ),
    ),
    "exclusive reasoning": (
        answered(counts(100, 5, output_token_details={"reasoning": 40})),
        TokenUsage(input_tokens=100, output_tokens=45, reasoning_tokens=40),
    ),
    "floats": (
        answered(counts(100.0, 4.5, input_token_details={"cache_read": 50.0})),
        TokenUsage(input_tokens=100, cache_read_tokens=50, output_tokens=5),
    ),
    "digits": (
        answered(counts("100", "5")),
        TokenUsage(input_tokens=100, output_tokens=5),
    ),
    "impossible parts": (
        answered(
            counts(
                100,
                5,
                input_token_details={
                    "cache_read": -1,
                    "cache_creation": None,
                    "audio": 400,
                    "ephemeral_1h_input_tokens": "many",
                },
                output_token_details={"reasoning": float("nan"), "audio": [1]},
            )
        ),
        TokenUsage(input_tokens=100, input_audio_tokens=100, output_tokens=5),
    ),
    "details that are none": (
        answered(counts(100, 5, input_token_details=7, output_token_details=None)),
        TokenUsage(input_tokens=100, output_tokens=5),
    ),
    "openai's own usage of a model without usage_metadata": (
        answered(
            output={
                "token_usage": {
                    "prompt_tokens": 1_000,
                    "completion_tokens": 200,
                    "total_tokens": 1_200,
                    "prompt_tokens_details": {"cached_tokens": 400, "audio_tokens": 3},
                    "completion_tokens_details": {"reasoning_tokens": 50},
                },
                "service_tier": "flex",
            },
            metadata={"token_usage": {"prompt_tokens": 9, "completion_tokens": 9}},
        ),
        TokenUsage(
            input_tokens=1_000,
            cache_read_tokens=400,
            input_audio_tokens=3,
            output_tokens=200,
            reasoning_tokens=50,
            service_tier="flex",
        ),
    ),
    "in the metadata of each of two prompts": (
        answered(
            output={"token_usage": {}},
            metadata={"token_usage": {"prompt_tokens": 9, "completion_tokens": 1}},
            prompts=2,
        ),
        TokenUsage(input_tokens=18, output_tokens=2),
    ),
    "openai's responses": (
        answered(
            metadata={
                "usage": {
                    "input_tokens": 1_000,
                    "output_tokens": 20,
                    "input_tokens_details": {"cached_tokens": 400},
                    "output_tokens_details": {"reasoning_tokens": 5},
                }
            }
        ),
        TokenUsage(
            input_tokens=1_000,
            cache_read_tokens=400,
            output_tokens=20,
            reasoning_tokens=5,
        ),
    ),
    "anthropic's own usage, without the cache in the input": (
        answered(
            metadata={
                "usage": {
                    "input_tokens": 500,
                    "output_tokens": 20,
                    "cache_read_input_tokens": 400,
                    "cache_creation_input_tokens": 100,
                    "cache_creation": {"ephemeral_1h_input_tokens": 40},
                    "service_tier": "standard",
                }
            }
        ),
        TokenUsage(
            input_tokens=1_000,
            cache_read_tokens=400,
            cache_write_tokens=100,
            cache_write_1h_tokens=40,
            output_tokens=20,
        ),
    ),
    "bedrock's own usage, of which all is missing": (
        answered(
            output={
                "usage": {
                    "inputTokens": 500,
                    "outputTokens": 20,
                    "cacheReadInputTokens": 400,
                    "cacheWriteInputTokens": 100,
                    "totalTokens": 3,
                }
            }
        ),
        TokenUsage(
            input_tokens=1_000,
            cache_read_tokens=400,
            cache_write_tokens=100,
            output_tokens=20,
        ),
    ),
    "litellm's object, with the cache in the input": (
        answered(
            output={
                "token_usage": SimpleNamespace(
                    prompt_tokens=1_000,
                    completion_tokens=20,
                    cache_read_input_tokens=400,
                    cache_creation_input_tokens=100,
                )
            }
        ),
        TokenUsage(
            input_tokens=1_000,
            cache_read_tokens=400,
            cache_write_tokens=100,
            output_tokens=20,
        ),
    ),
    "deepseek": (
        answered(
            metadata={
                "token_usage": {
                    "prompt_tokens": 1_000,
                    "completion_tokens": 20,
                    "prompt_cache_hit_tokens": 400,
                }
            }
        ),
        TokenUsage(input_tokens=1_000, cache_read_tokens=400, output_tokens=20),
    ),
    "a text-completion model": (
        LLMResult(
            generations=[[Generation(text="x")]],
            llm_output={"token_usage": {"prompt_tokens": 9, "completion_tokens": 1}},
        ),
        TokenUsage(input_tokens=9, output_tokens=1),
    ),
}


@pytest.mark.parametrize("shape", USAGES)
def test_reads_the_usage(shape: str) -> None:
    result, expected = USAGES[shape]
    assert used_by(result) == expected


@pytest.mark.parametrize(
    "result",
    [
        answered(),
        answered({}),
        answered({"total_cost": 0}),
        answered(counts(0, 0)),  # LiteLLM writes zeros where it knows nothing.
        answered(counts(-1, 5)),
        answered(counts(5, None)),
        answered(counts(5, "five")),
        answered(counts(True, 5)),
        answered(counts(float("inf"), 5)),
        answered(counts(10**9 + 1, 5)),
        answered(counts(10**9, 5)),
        answered(counts(10**9 // 2, 5), prompts=3),
        answered(output={"token_usage": {"total_tokens": 7}}),
        answered(output={"token_usage": None, "usage": []}),
        LLMResult(generations=[]),
        LLMResult(generations=[[]]),
    ],
)
def test_reports_no_usage_where_none_can_be_true(result: LLMResult) -> None:
    assert used_by(result) is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NAMES = st.sampled_from(
    [
        "input_tokens",
        "output_tokens",
        "prompt_tokens",
        "completion_tokens",
        "cache_read",
        "cache_creation",
        "flex_cache_read",
        "ephemeral_1h_input_tokens",
        "reasoning",
        "audio",
        "input_token_details",
        "output_token_details",
        "cache_read_input_tokens",
        "prompt_tokens_details",
        "cached_tokens",
        "total_cost",
        "token_usage",
        "usage",
        "cost",
        "service_tier",
        "model_name",
    ]
)
REPORTS = st.dictionaries(
    NAMES,
    st.integers(-10, 10**9) | st.dictionaries(NAMES, st.integers(0, 999)) | ANYTHING,
    max_size=12,
)


@given(usage=REPORTS, metadata=REPORTS, output=REPORTS)
def test_raises_at_no_report(
    usage: dict[str, Any], metadata: dict[str, Any], output: dict[str, Any]
) -> None:
    result = answered(usage, metadata=metadata, output=output, candidates=2)
    outcome = translate.outcome_of_llm_end(result)
    assert outcome.cost_nano_usd is None or outcome.cost_nano_usd >= 0
    translate.is_cache_hit(Answer(result), run_id=uuid4())
    translate.outcome_of_llm_error(ValueError(), result)


class Unfriendly:
    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


def test_raises_at_no_object() -> None:
    result = answered(metadata={"usage": Unfriendly()}, output={"cost": Unfriendly()})
    assert used_by(result) is None
    assert translate.reported_cost_nano_usd(Answer(result)) is None


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (answered(metadata={"model_name": "gpt-4o-2024-08-06"}), "gpt-4o-2024-08-06"),
        (
            answered(metadata={"model_name": "dated"}, output={"model_name": "asked"}),
            "dated",
        ),
        (answered(output={"model_name": "gpt-4o"}), "gpt-4o"),
        (answered(output={"model": "openai/gpt-4o"}), "openai/gpt-4o"),
        (answered(metadata={"model_name": "models/gemini-3-pro"}), "gemini-3-pro"),
        (answered(metadata={"model_name": ""}, output={"model_name": None}), None),
        (answered(metadata={"model_name": 7}), None),
        (answered(metadata={"model_name": "a\nb"}), clean_name("a\nb")),
        (LLMResult(generations=[]), None),
    ],
)
def test_names_the_model_that_answered(result: LLMResult, expected: str) -> None:
    assert translate.model_of(Answer(result)) == expected


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (answered({**counts(10, 2), "total_cost": 0}), True),
        (answered({**counts(10, 2), "total_cost": 0}, candidates=2), True),
        (answered({"total_cost": 0}), True),
        (answered({"total_cost": 0}, output={"model_name": "gpt-4o"}), False),
        (answered({**counts(10, 2), "total_cost": 0.5}), False),
        (answered({**counts(10, 2), "total_cost": None}), False),
        (answered({**counts(10, 2), "total_cost": False}), False),
        (answered(counts(10, 2)), False),
        (answered(), False),
        (LLMResult(generations=[]), False),
    ],
)
def test_knows_an_answer_of_langchains_cache(
    result: LLMResult, *, expected: bool
) -> None:
    assert translate.is_cache_hit(Answer(result), run_id=uuid4()) is expected


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (answered(metadata={"cost": 1.35e-05}), 13_500),
        (answered(metadata={"cost": 0.0}), 0),  # OpenRouter's free models.
        (answered(metadata={"cost": "0.25"}), 250_000_000),
        (answered(metadata={"cost": 0.1 + 0.2}), 300_000_000),  # As it was meant.
        (answered(metadata={"cost": 0.1000000001}), 100_000_001),  # Up, not off.
        (answered(metadata={"cost": 1e-12}), 1),
        (answered(metadata={"cost": 2}), 2 * 10**9),
        (answered(metadata={"cost": 0.5}, candidates=3), 500_000_000),
        (answered(output={"token_usage": {"cost": 0.5}}), 500_000_000),
        (answered(metadata={"usage": {"cost": 0.5}}), 500_000_000),
        (answered(metadata={"response_cost": 0.5}), 500_000_000),
        (answered(output={"response_cost": 0.5}), 500_000_000),
        # LiteLLM's 0 means that it has no price.
        (answered(metadata={"response_cost": 0.0}), None),
        (
            answered(
                metadata={"cost": 0, "cost_details": {"upstream_inference_cost": 0.5}}
            ),
            500_000_000,
        ),
        (
            answered(
                output={
                    "token_usage": {
                        "cost": 0.1,
                        "is_byok": True,
                        "cost_details": {"upstream_inference_cost": 0.5},
                    }
                }
            ),
            600_000_000,
        ),
        (
            answered(
                metadata={"cost": 0.1, "cost_details": {"upstream_inference_cost": 0.1}}
            ),
            100_000_000,
        ),
        (  # The fee of OpenRouter, and what the owner of the key pays the provider.
            answered(
                metadata={"cost": 0.1, "cost_details": {"upstream_inference_cost": 2.0}}
            ),
            2_100_000_000,
        ),
        (answered(metadata={"cost": float("nan")}), None),
        (answered(metadata={"cost": float("inf")}), None),
        (answered(metadata={"cost": -0.1}), None),
        (answered(metadata={"cost": True}), None),
        (answered(metadata={"cost": "1_0"}), None),
        (answered(metadata={"cost": "٣"}), None),
        (answered(metadata={"cost": 10**5000}), None),
        (answered(metadata={"cost": 10**7}), None),  # Above any limit: nonsense.
        (answered(metadata={"cost": None}, output={"cost": {}}), None),
        (answered(), None),
    ],
)
def test_reads_a_reported_cost(result: LLMResult, expected: int | None) -> None:
    assert translate.reported_cost_nano_usd(Answer(result)) == expected


def test_reads_what_the_converter_of_anthropic_writes() -> None:
    chat_models = pytest.importorskip("langchain_anthropic.chat_models")
    types = pytest.importorskip("anthropic.types")
    usage = types.Usage(
        input_tokens=500,
        output_tokens=50,
        cache_read_input_tokens=400,
        cache_creation_input_tokens=100,
        cache_creation=types.CacheCreation(
            ephemeral_5m_input_tokens=60, ephemeral_1h_input_tokens=40
        ),
    )
    converted = chat_models._create_usage_metadata(usage)
    assert converted["input_token_details"]["cache_creation"] == 0
    assert used_by(answered(converted)) == TokenUsage(
        input_tokens=1_000,
        cache_read_tokens=400,
        cache_write_tokens=100,
        cache_write_1h_tokens=40,
        output_tokens=50,
    )


def test_reads_what_anthropic_says_at_the_end_of_a_stream() -> None:
    """The start has named the input; what else the end says is kept."""
    chat_models = pytest.importorskip("langchain_anthropic.chat_models")
    types = pytest.importorskip("anthropic.types")
    used = types.ServerToolUsage(web_search_requests=2, web_fetch_requests=0)
    usage = types.MessageDeltaUsage(output_tokens=50, server_tool_use=used)
    end = answered(
        chat_models._create_usage_metadata(usage),
        metadata={"usage": {"server_tool_use": used.model_dump()}},
    )
    outcome = translate.outcome_of_llm_end(end)
    assert outcome.usage == TokenUsage(output_tokens=50, web_searches=2)
    assert outcome.is_input_unknown
    cut = translate.outcome_of_llm_error(GeneratorExit(), end)
    assert (cut.usage, cut.is_input_unknown) == (outcome.usage, True)


def test_reads_a_whole_answer_of_anthropic() -> None:
    anthropic = pytest.importorskip("langchain_anthropic")
    types = pytest.importorskip("anthropic.types")
    model = anthropic.ChatAnthropic(model="claude-sonnet-4-5", api_key="none")
    result = model._format_output(
        types.Message(
            id="msg_1",
            type="message",
            role="assistant",
            model="claude-sonnet-4-5-20250929",
            content=[types.TextBlock(type="text", text="It rains.")],
            stop_reason="end_turn",
            usage=types.Usage(
                input_tokens=500,
                output_tokens=50,
                server_tool_use=types.ServerToolUsage(
                    web_search_requests=2, web_fetch_requests=0
                ),
                service_tier="priority",
            ),
        )
    )
    outcome = translate.outcome_of_llm_end(
        LLMResult(generations=[result.generations], llm_output=result.llm_output)
    )
    assert without_sizes(outcome) == Outcome(
        usage=TokenUsage(
            input_tokens=500, output_tokens=50, web_searches=2, service_tier="priority"
        ),
        model="claude-sonnet-4-5-20250929",
        names_tier=True,
    )


def without_sizes(outcome: Outcome) -> Outcome:
    """Leaves out what `test_layers` is about."""
    assert outcome.written is not None
    return replace(outcome, written=None)


# --- prompts ------------------------------------------------------------------


def shape(*messages: BaseMessage, **params: Any) -> Any:
    return translate.prompt_shape(
        messages=[list(messages)], prompts=None, invocation_params=params
    )


def bound(message: BaseMessage) -> int:
    """Returns the bound of a message, without what every message costs."""
    (tokens,) = shape(message).message_tokens_max
    return tokens - MESSAGE_OVERHEAD_TOKENS


def called(**arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "find", "args": arguments, "id": "id-7"}])


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (HumanMessage("hello"), 5),
        (HumanMessage("Größe 😀"), 12),
        (HumanMessage("\ud800"), 3),
        (HumanMessage(""), 0),
        (HumanMessage("hello", name="Bob"), 8),
        (HumanMessage(["hello", {"type": "text", "text": "Größe"}]), 12),
        (ToolMessage("ok", tool_call_id="call_7"), 8),
        (ToolMessage("ok", tool_call_id="c", artifact="x" * 99), 3),
        (AIMessage("hello", id="run-1", response_metadata={"a": "x" * 99}), 5),
        (AIMessage("", additional_kwargs={"refusal": None, "tool_calls": [1]}), 0),
    ],
)
def test_bounds_a_message_by_its_bytes(message: BaseMessage, expected: int) -> None:
    assert bound(message) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"q": "weather", "city": "Berlin"},
        {"q": 'say "hi"\\\n\t\x00', "größe": "😀"},
        {"n": 7, "f": 1.5, "b": True, "none": None},
        {"rows": [{"id": 1}, {"id": 2}], "q": "x"},
        {"n": 2**90},
    ],
)
def test_bounds_arguments_by_their_json(arguments: dict[str, Any]) -> None:
    text = json.dumps(arguments, ensure_ascii=False)
    exact = len(text.encode()) + len("find") + len("id-7") + MESSAGE_OVERHEAD_TOKENS
    # A number costs no quotes, and the last argument no comma: not worth the time.
    assert exact <= bound(called(**arguments)) <= exact + 4 + 2 * len(arguments)


@given(
    arguments=st.dictionaries(
        st.text(max_size=5),
        st.text(max_size=20) | st.integers() | st.floats() | st.booleans() | st.none(),
    )
)
def test_bounds_any_flat_arguments_from_above(arguments: dict[str, Any]) -> None:
    text = json.dumps(arguments, ensure_ascii=False)
    assert bound(called(**arguments)) >= len(text.encode("utf-8", "surrogatepass"))


def test_counts_a_tool_call_once() -> None:
    blocks = [
        {"type": "text", "text": "hm"},
        {"type": "tool_use", "id": "id-7", "name": "find", "input": {"q": "x"}},
    ]
    call = {"name": "find", "args": {"q": "x"}, "id": "id-7"}
    both = AIMessage(blocks, tool_calls=[call])
    assert bound(both) == bound(called(q="x")) + len("hm")
    assert bound(HumanMessage(blocks)) > len("hm")  # Only there, it counts.


def test_counts_calls_that_were_not_understood() -> None:
    broken = {"name": "find", "args": "{" * 90, "id": "1", "error": None}
    assert bound(AIMessage("", invalid_tool_calls=[broken])) > 90


PIXELS = "A" * 10**6
URL = f"data:image/png;base64,{PIXELS}"


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": URL}},
        {"type": "image_url", "image_url": URL},
        {"type": "input_image", "image_url": URL},
        {"type": "image", "base64": PIXELS, "mime_type": "image/png"},
        {"type": "image", "source": {"type": "base64", "data": PIXELS}},
        {"type": "audio", "url": "https://example.org/a.mp3"},
        {"type": "file", "file": {"file_id": "file-7"}},
        {"type": "file", "file": {"file_data": URL, "filename": "a.pdf"}},
        {"type": "image_generation_call", "id": "1", "result": PIXELS},
        {"image": {"format": "png", "source": {"bytes": PIXELS}}},
        {"inline_data": {"mime_type": "image/png", "data": PIXELS}},
        {
            "type": "tool_result",
            "content": [
                {"type": "image", "source": {"type": "base64", "data": PIXELS}}
            ],
        },
        {
            "type": "computer_call_output",
            "output": {"type": "computer_screenshot", "image_url": URL},
        },
        {"type": "non_standard", "value": {"type": "image", "data": PIXELS}},
    ],
)
def test_counts_images_and_not_their_bytes(block: dict[str, Any]) -> None:
    tokens = bound(HumanMessage([block, block]))
    assert 2 * MEDIA_PART_TOKENS_MAX <= tokens <= 2 * MEDIA_PART_TOKENS_MAX + 300


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text", "text": SECRET * 900, "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "", "citations": [{"cited_text": SECRET * 900}]},
        {"type": "thinking", "thinking": SECRET * 900, "signature": "x"},
        {"type": "reasoning", "summary": [{"type": "s", "text": SECRET * 900}]},
        {"type": "text-plain", "text": SECRET * 900},
        {"type": "tool_result", "content": SECRET * 900},
        {"type": "tool_result", "content": [{"type": "text", "text": SECRET * 900}]},
        {"type": "document", "source": {"type": "text", "data": SECRET * 900}},
        {"type": "file", "source_type": "text", "text": SECRET * 900},
        # An argument that looks like a medium is none.
        {"type": "tool_use", "input": {"image": "a.png", "text": SECRET * 900}},
        {"type": "tool_use", "input": {"type": "file", "content": SECRET * 900}},
        {"type": "function_call", "arguments": SECRET * 900},
        {"type": "of a provider to come", "words": [[SECRET] * 900]},
        {"words": {"image": "a.png", "text": SECRET * 900}},
    ],
)
def test_counts_every_text_in_a_block(block: dict[str, Any]) -> None:
    assert bound(HumanMessage([block])) >= len(SECRET) * 900


def test_survives_content_that_is_no_json() -> None:
    cycle: dict[str, Any] = {"type": "custom", "text": "x" * 99}
    cycle["again"] = cycle
    deep: dict[str, Any] = {"type": "custom"}
    for _ in range(5_000):
        deep = {"type": "custom", "content": [deep]}
    for block in (cycle, deep, {"type": "custom", "object": object(), "set": {1}}):
        assert bound(HumanMessage([block])) > 0
    assert bound(called(q=object())) > 0


BLOCKS = st.recursive(
    st.dictionaries(
        st.sampled_from(["type", "text", "content", "source", "image", "output"])
        | st.integers(),
        st.sampled_from(["text", "image", "document", "tool_use", 7, None, ["text"]]),
    ),
    lambda inner: st.fixed_dictionaries(
        {}, optional={"type": ANYTHING, "content": st.lists(inner), "source": inner}
    ),
)


@given(blocks=st.lists(BLOCKS | st.text(max_size=5)))
def test_raises_at_no_content(blocks: list[Any]) -> None:
    call = {"name": "find", "args": {}, "id": None}
    assert bound(HumanMessage(blocks)) >= 0
    assert bound(AIMessage(blocks, tool_calls=[call])) > 0


def test_names_replies_and_keeps_the_order() -> None:
    found = shape(SystemMessage("a"), HumanMessage("bb"), AIMessage("ccc"))
    assert [n - MESSAGE_OVERHEAD_TOKENS for n in found.message_tokens_max] == [1, 2, 3]
    assert found.is_reply == (False, False, True)
    assert shape(AIMessageChunk("x")).is_reply == (True,)


def test_bounds_the_prompts_of_a_completion_model() -> None:
    found = translate.prompt_shape(
        messages=None, prompts=["Größe", "x"], invocation_params=None
    )
    assert [n - MESSAGE_OVERHEAD_TOKENS for n in found.message_tokens_max] == [7, 1]
    assert found.is_reply == (False, False)
    assert found.tools_tokens_max == 0


class Schema(BaseModel):
    name: str


@pytest.mark.parametrize("name", ["tools", "functions", "response_format"])
def test_bounds_definitions_by_their_json(name: str) -> None:
    definition = {"name": "find", "parameters": {"q": {"type": "string"}}}
    length = len(json.dumps(definition))
    assert shape(**{name: [definition] * 3}).tools_tokens_max == 3 * length
    assert shape(**{name: definition}).tools_tokens_max == length
    assert shape(**{name: None}).tools_tokens_max == 0
    opaque = shape(**{name: [definition, Schema]}).tools_tokens_max
    assert length < opaque < 10_000


def test_bounds_a_history_in_the_time_between_two_tokens() -> None:
    # About 150 us; fifty times that on a busy machine.
    history: list[BaseMessage] = [
        HumanMessage("What is the weather?"),
        AIMessage("", tool_calls=[{"name": "f", "args": {"q": "x"}, "id": "1"}]),
        ToolMessage("rain", tool_call_id="1"),
        AIMessage("It rains."),
    ] * 50
    seconds = min(_seconds(lambda: shape(*history)) for _ in range(10))
    assert seconds < 0.0075


def _seconds(function: Any) -> float:
    start = time.thread_time()  # Not the time of other processes.
    function()
    return time.thread_time() - start


@pytest.mark.parametrize(
    ("params", "metadata", "expected"),
    [
        ({"max_tokens": 100}, {}, 100),
        ({"max_completion_tokens": 100}, {}, 100),
        ({"max_output_tokens": 100}, {}, 100),
        ({"max_tokens_to_sample": 100}, {}, 100),
        ({"num_predict": 100}, {}, 100),
        ({"num_predict": -1}, {}, None),  # Ollama's "no bound".
        ({"inferenceConfig": {"maxTokens": 100}}, {}, 100),
        ({"generation_config": {"max_output_tokens": 100}}, {}, 100),
        (
            {"max_output_tokens": 9, "generation_config": {"maxOutputTokens": 99}},
            {},
            99,
        ),
        # ChatOpenAI sends the one that was bound.
        ({"max_tokens": 50, "max_completion_tokens": 300}, {}, 50),
        ({"max_tokens": 100, "n": 3}, {}, 300),
        ({"max_tokens": 100, "n": None, "best_of": 4}, {}, 400),
        ({"max_tokens": 100, "n": 0}, {}, 100),
        ({"max_tokens": 100, "n": 10**9}, {}, 100),
        ({"n": 2}, {"ls_max_tokens": 100}, 200),
        ({"max_tokens": 50}, {"ls_max_tokens": 100}, 50),
        ({"max_tokens": None}, {"ls_max_tokens": 100}, 100),
        ({"max_tokens": True}, {}, None),
        ({"max_tokens": "100"}, {}, None),
        ({"max_tokens": 100.0}, {}, None),
        ({"max_tokens": 0}, {}, None),
        ({"max_tokens": 10**9 + 1}, {}, None),
        ({"max_tokens": 10**9, "n": 2}, {}, 10**9),
        ({"inferenceConfig": [], "generation_config": 7}, {}, None),
        (None, None, None),
    ],
)
def test_reads_the_bound_of_the_output(
    params: dict[str, Any] | None, metadata: dict[str, Any] | None, expected: int | None
) -> None:
    assert translate.output_limit(params, metadata) == expected


@pytest.mark.parametrize(
    ("asked", "made_with", "expected"),
    [
        ({"tools": [{"type": "function", "function": {"name": "find"}}]}, {}, 50),
        ({"reasoning_effort": "low"}, {}, 50),
        ({"include": None}, {}, 50),
        ({"reasoning": {"effort": "low"}}, {"use_responses_api": False}, 50),
        ({}, {"use_responses_api": None}, 50),
        ({}, {"use_responses_api": True}, 300),
        ({"reasoning": {"effort": "low"}}, {}, 300),
        ({"previous_response_id": "resp_1"}, {}, 300),
        ({"text": {"verbosity": "low"}}, {}, 300),
        ({"tools": [{"type": "web_search"}]}, {}, 300),
        ({"model": "gpt-6", "tools": [{"type": "function"}]}, {}, 300),
        ({"model": "gpt-6", "tools": []}, {}, 50),
    ],
)
def test_knows_which_of_two_bounds_chatopenai_sends(
    asked: dict[str, Any], made_with: dict[str, Any], expected: int
) -> None:
    """By the Responses API it sends its own, not the one that was bound."""
    params = {"max_tokens": 50, "max_completion_tokens": 300, **asked}
    assert translate.output_limit(params, {}, made_with) == expected
    alone = {**asked, "max_tokens": 50}
    assert translate.output_limit(alone, {}, made_with) == 50


def test_describes_a_call_before_it_is_made() -> None:
    call = translate.model_call(
        serialized={"name": "ChatOpenAI"},
        messages=[[HumanMessage("hello")]],
        prompts=None,
        invocation_params={"model": "other", "max_tokens": 100, "tools": [{}]},
        metadata={"ls_provider": "openai", "ls_model_name": "gpt-4o"},
    )
    assert call == ModelCall(
        model="gpt-4o",
        provider="openai",
        prompt=shape(HumanMessage("hello"), tools=[{}]),
        output_tokens_max=100,
    )
    assert call.prompt is not None
    assert input_tokens_max(call.prompt) > len("hello")


@pytest.mark.parametrize(
    ("metadata", "params", "serialized", "expected"),
    [
        (
            {"ls_model_name": "m", "ls_provider": "google_genai"},
            {},
            {},
            ("m", "google"),
        ),
        ({"ls_provider": "amazon_bedrock"}, {"model_id": "m"}, {}, ("m", "aws")),
        ({"ls_provider": "anthropic-bedrock"}, {"model": "m"}, {}, ("m", "aws")),
        ({}, {"model_name": "models/gemini"}, {}, ("gemini", None)),
        ({}, {}, {"name": "FakeChat"}, ("FakeChat", None)),
        (None, None, None, ("unknown", None)),
        (
            {"ls_model_name": 7, "ls_provider": []},
            {"model": None},
            {},
            ("unknown", None),
        ),
    ],
)
def test_names_model_and_provider(
    metadata: Any, params: Any, serialized: Any, expected: tuple[str, str | None]
) -> None:
    call = translate.model_call(
        serialized=serialized,
        messages=None,
        prompts=["x"],
        invocation_params=params,
        metadata=metadata,
    )
    assert (call.model, call.provider) == expected


# --- outcomes -----------------------------------------------------------------


def chunk(content: Any, **fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content, **fields))


def received(content: Any, **fields: Any) -> LLMResult:
    """Builds what LangChain passes on when a stream breaks off."""
    message = AIMessageChunk(content, **fields)
    error = ChatGeneration(message=AIMessage("", response_metadata={"body": SECRET}))
    return LLMResult(generations=[[ChatGeneration(message=message)], [error]])


def test_bounds_what_was_received() -> None:
    chunk = {"name": "find", "args": '{"q": "wea', "id": "id-7", "index": 0}
    assert translate.received_tokens_max(received("Größe")) == 7
    assert translate.received_tokens_max(received("")) == 0
    assert translate.received_tokens_max(received("", tool_call_chunks=[chunk])) >= 10
    thought = received([{"type": "thinking", "thinking": "x" * 90, "index": 0}])
    assert translate.received_tokens_max(thought) >= 90
    text = LLMResult(generations=[[Generation(text="Größe")]])
    assert translate.received_tokens_max(text) == 7
    assert translate.received_tokens_max(None) == 0


def test_reports_an_answer() -> None:
    result = answered(
        counts(10, 2),
        metadata={"model_name": "gpt-4o-2024-08-06", "cost": 0.5},
        content=SECRET,
    )
    outcome = translate.outcome_of_llm_end(result)
    assert without_sizes(outcome) == Outcome(
        usage=TokenUsage(input_tokens=10, output_tokens=2),
        model="gpt-4o-2024-08-06",
        cost_nano_usd=500_000_000,
    )


def test_bounds_an_answer_without_a_report() -> None:
    outcome = translate.outcome_of_llm_end(answered(content="Größe"))
    assert without_sizes(outcome) == Outcome(usage=None, output_tokens_max=7)


def _failed(status: object, **fields: Any) -> Exception:
    error = ValueError(SECRET)
    error.__dict__.update(fields)
    if status is not None:
        error.__dict__["status_code"] = status
    return error


def _caused_by(cause: BaseException) -> Exception:
    error = RuntimeError(SECRET)
    error.__cause__ = cause
    return error


class ConnectError(Exception):
    """The one of httpx, by its name."""


@pytest.mark.parametrize(
    ("error", "response", "expected"),
    [
        (_failed(429), None, True),
        (_failed(400), received(""), True),
        (_failed(None, response=SimpleNamespace(status_code=500)), None, True),
        (_failed(None, code=503), None, True),
        (
            _failed(None, response={"ResponseMetadata": {"HTTPStatusCode": 400}}),
            None,
            True,
        ),
        (_caused_by(_failed(401)), None, True),
        (_caused_by(ConnectError()), None, True),
        (ConnectionRefusedError(), None, True),
        (_failed(429), received("some of it"), False),
        (_failed(429), answered(counts(10, 0)), False),
        (_failed(504), None, False),  # The provider may go on with it.
        (_failed(200), None, False),  # Anthropic's error in the middle of a stream.
        (_failed("429"), None, False),
        (_failed(True), None, False),
        (_failed(None, code="rate_limit_exceeded"), None, False),
        (_failed(None, response={"ResponseMetadata": None}), None, False),
        (_failed(None, response=Unfriendly()), None, False),
        (_failed(None), None, False),
        (TimeoutError(), None, False),
    ],
)
def test_knows_what_was_not_consumed(
    error: Exception, response: LLMResult | None, *, expected: bool
) -> None:
    outcome = translate.outcome_of_llm_error(error, response)
    assert outcome.is_unsent is expected
    assert outcome.status is CallStatus.ERROR
    assert outcome.error_type == type(error).__name__


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (
            {
                "model": "gpt-4o-2024-08-06",
                "service_tier": "flex",
                "usage": {
                    "prompt_tokens": 70,
                    "completion_tokens": 30,
                    "prompt_tokens_details": {"cached_tokens": 64},
                    "completion_tokens_details": {"reasoning_tokens": 20},
                },
            },
            TokenUsage(
                input_tokens=70,
                cache_read_tokens=64,
                output_tokens=30,
                reasoning_tokens=20,
                service_tier="flex",
            ),
        ),
        (
            {
                "model": "gpt-4o-2024-08-06",
                "usage": {
                    "input_tokens": 70,
                    "input_tokens_details": {"cached_tokens": 0},
                    "output_tokens": 30,
                    "output_tokens_details": {"reasoning_tokens": 0},
                },
            },
            TokenUsage(input_tokens=70, output_tokens=30),
        ),
    ],
)
def test_books_an_answer_that_its_client_failed_to_read(
    body: Mapping[str, Any], usage: TokenUsage
) -> None:
    """As langchain-core 1.8.3 tells of an answer that fits no schema, or was cut.

    The error is langchain-openai's, of its chat completions and of its responses.
    """
    unread = answered(metadata={"body": body, "headers": {}, "status_code": 200})
    answer = SimpleNamespace(status_code=200)
    outcome = translate.outcome_of_llm_error(_failed(None, response=answer), unread)
    assert (outcome.usage, outcome.model) == (usage, "gpt-4o-2024-08-06")
    assert (outcome.status, outcome.output_tokens_max) == (CallStatus.ERROR, None)
    assert not outcome.is_unsent


@pytest.mark.parametrize("body", ["no JSON", None, {"error": "x"}, {"usage": None}])
def test_bills_nothing_for_a_refusal_of_any_form(body: object) -> None:
    refused = answered(metadata={"body": body, "headers": {}, "status_code": 400})
    outcome = translate.outcome_of_llm_error(_failed(400), refused)
    assert (outcome.usage, outcome.is_unsent) == (None, True)


@pytest.mark.parametrize(
    "error", [GeneratorExit(), asyncio.CancelledError(), KeyboardInterrupt()]
)
def test_bounds_a_call_that_was_broken_off(error: BaseException) -> None:
    outcome = translate.outcome_of_llm_error(error, received("Größe"))
    assert without_sizes(outcome) == Outcome(
        status=CallStatus.BROKEN_OFF,
        error_type=type(error).__name__,
        output_tokens_max=7,
    )
    refused = SimpleNamespace(status_code=429)
    error.__dict__["response"] = refused
    assert not translate.outcome_of_llm_error(error, None).is_unsent


def test_books_what_was_reported_before_a_call_was_broken_off() -> None:
    ended = {"stop_reason": "end_turn"}
    whole = received("Größe", usage_metadata=counts(10, 2), response_metadata=ended)
    outcome = translate.outcome_of_llm_error(GeneratorExit(), whole)
    assert outcome.usage == TokenUsage(input_tokens=10, output_tokens=2)
    assert (outcome.output_tokens_max, outcome.is_output_unknown) == (None, False)
    # Of a report that runs along nobody knows whether it is the last.
    part = received("Größe", usage_metadata=counts(10, 2))
    outcome = translate.outcome_of_llm_error(GeneratorExit(), part)
    assert outcome.usage == TokenUsage(input_tokens=10, output_tokens=2)
    assert (outcome.output_tokens_max, outcome.is_output_unknown) == (7, True)
    # Bedrock reports the input at the start of a stream: half of the truth.
    half = received("Größe", usage_metadata=counts(10, 0))
    outcome = translate.outcome_of_llm_error(GeneratorExit(), half)
    assert outcome.usage is None
    assert outcome.output_tokens_max == 7
    # Of an answer that has not begun, nobody knows how much is billed.
    start = received("", usage_metadata=counts(10, 0))
    outcome = translate.outcome_of_llm_error(GeneratorExit(), start)
    assert (outcome.usage, outcome.output_tokens_max) == (None, None)


def test_books_what_a_stream_has_reported_before_it_was_left() -> None:
    """Each part that names a usage has its share of it, as those of Gemini."""
    parts = [
        chunk("Grö", usage_metadata=counts(10, 3)),
        chunk(
            "ße",
            usage_metadata=counts(0, 4),
            response_metadata={"model_name": "gemini-3-pro"},
        ),
    ]
    assert all(map(translate.has_report, parts))
    known = Outcome(
        status=CallStatus.BROKEN_OFF,
        usage=TokenUsage(input_tokens=10, output_tokens=7),
        model="gemini-3-pro",
    )
    assert translate.outcome_of_left_stream(parts, 7, is_whole=True) == known
    known = replace(known, is_output_unknown=True, output_tokens_max=7)
    assert translate.outcome_of_left_stream(parts, 7) == known
    start = [chunk("", usage_metadata=counts(10, 0))]
    odd = {"model_name": 5}  # LangChain refuses to merge it with a text.
    mixed = [*parts, chunk("", usage_metadata=counts(0, 1), response_metadata=odd)]
    for reports, come, bound in ((start, 0, None), (start, 7, 7), (mixed, 7, 7)):
        outcome = translate.outcome_of_left_stream(reports, come)
        assert (outcome.usage, outcome.output_tokens_max) == (None, bound)


@pytest.mark.parametrize(
    "ended",
    [
        {"response_metadata": {"finish_reason": "STOP"}},
        {"response_metadata": {"stopReason": "end_turn"}},
        {"response_metadata": {"done_reason": "stop"}},
        {"response_metadata": {"status": "incomplete"}},
        {"chunk_position": "last"},
    ],
)
def test_knows_when_a_model_has_ended_its_answer(ended: Mapping[str, Any]) -> None:
    assert translate.is_last(chunk("", **ended))
    goes_on = {"finish_reason": None, "status": "in_progress"}
    assert not translate.is_last(chunk("", response_metadata=goes_on))


def test_books_a_cost_that_was_reported_before_a_call_failed() -> None:
    """As of OpenRouter, whose answer langchain-openai fails to read."""
    usage = {"prompt_tokens": 70, "completion_tokens": 30, "cost": 0.25}
    unread = answered(metadata={"body": {"usage": usage}, "status_code": 200})
    outcome = translate.outcome_of_llm_error(ValueError(), unread)
    assert outcome.cost_nano_usd == 250_000_000


def tool_end(output: object) -> Outcome:
    return translate.outcome_of_tool_end(output, key=KEY, label="s/t")


def test_reports_a_tools_result_by_its_digest() -> None:
    message = ToolMessage("Größe", tool_call_id="1", artifact=[1])
    outcome = tool_end(message)
    assert outcome.status is CallStatus.OK
    assert (outcome.bytes_out, outcome.error_type) == (7, None)
    again = ToolMessage("Größe", tool_call_id="2", id="m-2", artifact=[2])
    assert tool_end(again).result_digest == outcome.result_digest
    assert tool_end("Größe").result_digest == outcome.result_digest
    others = [
        translate.outcome_of_tool_end("Größe", key=KEY, label="s/u"),
        translate.outcome_of_tool_end("Größe", key=b"other", label="s/t"),
        tool_end("other"),
        tool_end({"a": 1}),
        tool_end(None),
        outcome,
    ]
    assert len({other.result_digest for other in others}) == len(others)


def test_reports_a_tool_message_of_an_error_as_one() -> None:
    message = ToolMessage("failed", tool_call_id="1", status="error")
    assert tool_end(message).status is CallStatus.ERROR
    command = Command(update={"messages": [HumanMessage("x"), message]})
    assert tool_end(command).status is CallStatus.ERROR


def test_leaves_the_ids_of_content_blocks_out_of_the_digest() -> None:
    def block(**fields: Any) -> Outcome:
        content = [{"type": "text", "text": "rain", **fields}, "text"]
        return tool_end(ToolMessage(content, tool_call_id="1"))

    assert block(id="lc_1").result_digest == block(id="lc_2").result_digest
    assert block(id="order-1").result_digest != block(id="order-2").result_digest
    assert block(id="lc_1").result_digest != block(text="sun").result_digest


@pytest.mark.parametrize("as_items", [False, True])
def test_looks_into_commands_for_the_result(*, as_items: bool) -> None:
    def command(text: str, call_id: str) -> Command[Any]:
        messages = [ToolMessage(text, tool_call_id=call_id, id=call_id)]
        update = [("messages", messages)] if as_items else {"messages": messages}
        return Command(update=update, goto="other")

    rain = tool_end(command("rain", "1")).result_digest
    assert rain == tool_end(command("rain", "2")).result_digest
    assert rain == tool_end([command("rain", "3")]).result_digest
    assert rain != tool_end(command("sun", "1")).result_digest


def test_survives_any_result() -> None:
    for output in (object(), Unfriendly(), [Unfriendly()], Command(), lambda: 1):
        assert tool_end(output).result_digest is not None


def tool_error(error: BaseException) -> Outcome:
    return translate.outcome_of_tool_error(error, key=KEY, label="s/t")


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_digests_an_error_so_that_its_repetition_is_seen() -> None:
    outcome = tool_error(ValueError("no such order"))
    assert outcome.status is CallStatus.ERROR
    assert outcome.error_type == "ValueError"
    digests = {
        tool_error(ValueError("no such order")).result_digest,
        tool_error(ValueError("no such customer")).result_digest,
        tool_error(RuntimeError("no such order")).result_digest,
        tool_end("no such order").result_digest,
        tool_error(Silent()).result_digest,
    }
    assert outcome.result_digest in digests
    assert len(digests) == 5


@pytest.mark.parametrize("error", [GeneratorExit(), asyncio.CancelledError()])
def test_knows_no_result_of_a_tool_that_was_broken_off(error: BaseException) -> None:
    assert tool_error(error) == Outcome(
        status=CallStatus.BROKEN_OFF, error_type=type(error).__name__
    )


def test_returns_no_content() -> None:
    message = AIMessage(
        SECRET,
        tool_calls=[{"name": "t", "args": {SECRET: SECRET}, "id": "1"}],
        response_metadata={"usage": {"note": SECRET}},
        additional_kwargs={"note": SECRET},
    )
    result = LLMResult(generations=[[ChatGeneration(message=message)]])
    returned = [
        translate.model_call(
            serialized={},
            messages=[[message, HumanMessage(SECRET)]],
            prompts=[SECRET],
            invocation_params={"tools": [{"name": SECRET}], "stop": SECRET},
            metadata={"note": SECRET},
        ),
        translate.outcome_of_llm_end(result),
        translate.outcome_of_llm_error(ValueError(SECRET), result),
        tool_end(ToolMessage(SECRET, tool_call_id="1")),
        tool_error(ValueError(SECRET)),
    ]
    assert SECRET not in repr(returned)
