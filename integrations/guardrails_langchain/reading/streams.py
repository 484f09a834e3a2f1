"""Streams: what the parts of an answer say of its usage.

LangChain adds up what they report. So do its integrations expect it, that of Gemini
for one, which reports anew with each part all that was used until then. Servers that
do so behind an integration that does not expect it, as xAI's and vLLM's with
`continuous_usage_stats` behind OpenAI's, seem to use many times as much.
"""

import itertools
from collections.abc import Sequence
from typing import TypeGuard

from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.outputs.chat_generation import merge_chat_generation_chunks

from guardrails.core.tracebacks import let_through
from guardrails_langchain.reading.answers import count_of, get, has_finished

__all__ = ["has_report", "is_last", "merged_reports", "with_usage_of"]

REPORTS_MAX = 10_000
"""Reports of one stream that are looked at: one for each part of a long answer."""


def has_report(chunk: object) -> TypeGuard[ChatGenerationChunk]:
    """Whether a part of a stream says what was used."""
    return isinstance(chunk, ChatGenerationChunk) and bool(
        getattr(chunk.message, "usage_metadata", None)
    )


def is_last(chunk: object) -> bool:
    """Whether a part of a stream says that the model has ended its answer."""
    return isinstance(chunk, ChatGenerationChunk) and has_finished(chunk.message)


def merged_reports(
    reports: Sequence[ChatGenerationChunk],
) -> ChatGenerationChunk | None:
    """Returns parts as one, with the usage of all; `None` if they do not fit."""
    try:
        return merge_chat_generation_chunks([*_lone(reports)])
    except Exception as error:  # It refuses what is of two kinds.
        let_through(error)
        return None


def with_usage_of(
    reports: Sequence[ChatGenerationChunk], result: LLMResult
) -> LLMResult:
    """Returns the result of a stream, in which nothing is counted twice."""
    if _lone(reports) is reports:
        return result
    usage = get(reports[-1].message, "usage_metadata")
    generations = [
        [
            ChatGeneration(
                message=one.message.model_copy(update={"usage_metadata": usage})
            )
            if isinstance(one, ChatGeneration) and get(one.message, "usage_metadata")
            else one
            for one in candidates
        ]
        for candidates in result.generations
    ]
    return LLMResult(generations=generations, llm_output=result.llm_output)


def _lone(
    reports: Sequence[ChatGenerationChunk],
) -> Sequence[ChatGenerationChunk]:
    """Returns the last report alone if each holds all that was used until then.

    Shares of a usage name the input once, and no larger one than before.
    """
    counts = [
        count_of(get(get(one.message, "usage_metadata"), "input_tokens")) or 0
        for one in reports[:REPORTS_MAX]
    ]
    repeats = len(counts) > 1 and all(
        0 < before <= after for before, after in itertools.pairwise(counts)
    )
    return reports[-1:] if repeats else reports
