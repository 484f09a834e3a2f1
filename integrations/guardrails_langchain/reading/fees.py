"""Fees: what an answer holds that is billed beside its text, or dearer than text."""

from collections.abc import Iterator
from typing import cast

from guardrails_langchain.reading.answers import (
    Answer,
    blocks_in,
    first_of,
    get,
    iterations_in,
)
from guardrails_langchain.reading.prompts import is_medium, kind_of

__all__ = ["has_drawn", "has_fees"]

_CALLS = frozenset({"code_interpreter_call", "file_search_call"})
_DRAWING_CALL = "image_generation_call"
"""OpenAI's, billed as another model's tokens, of which its report says nothing."""

_SERVER_CALLS = frozenset({"server_tool_call", "server_tool_use"})
_TOOLS = frozenset(
    {
        "bash_code_execution",
        "code_execution",
        "code_interpreter",
        "file_search",
        "image_generation",
        "text_editor_code_execution",
    }
)
"""Tools of providers with a price per call, or per hour of a container (price lists
of OpenAI and Anthropic, 2026-11). Their searches of the web are counted elsewhere."""


def has_fees(answer: Answer) -> bool:
    """Whether a provider bills more for an answer than its report of tokens says.

    Of Anthropic's own: an advisor, work in one country, and a summary of the prompt,
    of which streams report nothing. Of xAI: the sources that it has read.
    """
    steps: set[object] = set()
    for source in answer.sources:
        used = first_of(source, ("usage", "token_usage"))
        if used is not None:
            if get(used, "inference_geo") == "us" or get(used, "num_sources_used"):
                return True
            steps.update(get(step, "type") for step in iterations_in(used))
    blocks = [*_blocks_of(answer)]
    has_summary = any(kind_of(block) == "compaction" for block in blocks)
    return (
        "advisor_message" in steps
        or (has_summary and "compaction" not in steps)
        or any(map(_has_fee, blocks))
    )


def has_drawn(answer: Answer) -> bool:
    """Whether the model itself has made an image, of which tokens are dearer."""
    return any(
        is_medium(block) and "image" in str(kind) and kind != _DRAWING_CALL
        for block in _blocks_of(answer)
        for kind in [kind_of(block)]
    )


def _has_fee(block: dict[str, object]) -> bool:
    kind = kind_of(block)
    if kind in _SERVER_CALLS:
        return block.get("name") in _TOOLS
    return kind in _CALLS or kind == _DRAWING_CALL


def _blocks_of(answer: Answer) -> Iterator[dict[str, object]]:
    for message in answer.messages:
        for blocks in blocks_in(message):
            for block in blocks:
                if isinstance(block, dict):
                    yield cast("dict[str, object]", block)
