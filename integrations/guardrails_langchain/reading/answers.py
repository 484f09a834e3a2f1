"""Answers: reads what LangChain's results hold, whatever their providers make them of.

Nothing here raises: what is not there, or of another kind, is `None`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from guardrails.core.attribution import clean_name
from guardrails.core.tracebacks import let_through
from guardrails.core.usage import TOKENS_MAX

__all__ = [
    "count_of",
    "first_of",
    "get",
    "has_finished",
    "is_finished",
    "is_pending",
    "iterations_in",
    "messages_of",
    "model_of",
    "names_of",
    "says_why_it_ends",
    "sources_of",
]

ITERATIONS_MAX = 1_000
"""Of the model that one answer took, with tools that its provider runs."""

_FINISHES = ("finish_reason", "stop_reason", "stopReason", "done_reason")
"""What says why a model has ended: of OpenAI and most others, Anthropic, Bedrock's
Converse, and Ollama."""

_FINAL_STATUSES = frozenset({"cancelled", "completed", "failed", "incomplete"})
_PENDING_STATUSES = frozenset({"in_progress", "queued"})
"""Of OpenAI's Responses API, which has a status instead."""


def messages_of(result: LLMResult) -> Iterator[list[BaseMessage]]:
    """Yields the messages of each prompt's candidates."""
    for candidates in result.generations:
        messages = [c.message for c in candidates if isinstance(c, ChatGeneration)]
        if messages:
            yield messages


def is_finished(result: LLMResult) -> bool:
    """Whether an answer says that its model has ended it."""
    return any(has_finished(one) for parts in messages_of(result) for one in parts)


def is_pending(result: LLMResult) -> bool:
    """Whether an answer is still to be written: in the background, for later."""
    return any(
        get(get(one, "response_metadata"), "status") in _PENDING_STATUSES
        for parts in messages_of(result)
        for one in parts
    )


def says_why_it_ends(result: LLMResult) -> bool:
    """Whether an answer says why its model has ended it, and not only that it ends."""
    return any(_says_why(one) for parts in messages_of(result) for one in parts)


def has_finished(message: object) -> bool:
    """Whether a message, or a part of one, says that its model has ended it."""
    return get(message, "chunk_position") == "last" or _says_why(message)


def _says_why(message: object) -> bool:
    metadata = get(message, "response_metadata")
    return (
        first_of(metadata, _FINISHES) is not None
        or get(metadata, "status") in _FINAL_STATUSES
    )


def sources_of(result: LLMResult) -> Iterator[object]:
    """Yields what holds provider metadata, best first."""
    for candidates in messages_of(result):
        for message in candidates:
            metadata = get(message, "response_metadata")
            body = get(metadata, "body")
            yield from (source for source in (metadata, body) if source)
    if result.llm_output:
        yield result.llm_output


def iterations_in(usage: object) -> Sequence[object]:
    """Returns what Anthropic reports of each step in which an answer was made."""
    steps: object = get(usage, "iterations")
    if isinstance(steps, list | tuple):
        return cast("Sequence[object]", steps)[:ITERATIONS_MAX]
    return ()


def model_of(result: LLMResult) -> str | None:
    """Returns the model that answered, often a dated snapshot of the one asked."""
    for source in sources_of(result):
        for name in ("model_name", "model", "model_id"):
            model = clean_name(get(source, name))
            if model is not None:
                return model.removeprefix("models/")  # Gemini's resource names.
    return None


def count_of(value: object) -> int | None:
    """Returns a number of tokens that can be true, else `None`."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = float(value)
    if isinstance(value, float) and math.isfinite(value):
        value = math.ceil(value)  # OpenRouter reports whole numbers as floats.
    if type(value) is int and 0 <= value <= TOKENS_MAX:
        return value
    return None


def first_of(source: object, names: tuple[str, ...]) -> object:
    """Returns what the first of some names has that has anything."""
    for name in names:
        value = get(source, name)
        if value is not None:
            return value
    return None


def names_of(source: object) -> list[str]:
    """Returns the names in a mapping."""
    names = cast("Mapping[Any, Any]", source) if isinstance(source, Mapping) else ()
    return [name for name in names if isinstance(name, str)]


def get(source: object, name: str) -> Any:
    """Reads from mappings and objects alike; LiteLLM's usage is an object."""
    # Asked a hundred times per call: asking for a class of all mappings takes long.
    if type(source) is dict:
        return cast("dict[str, Any]", source).get(name)
    if source is None:
        return None
    try:
        if isinstance(source, Mapping):
            return cast("Mapping[str, Any]", source).get(name)
        return getattr(source, name, None)
    except Exception as error:
        let_through(error)
        return None
