"""Answers: reads what LangChain's results hold, whatever their providers make them of.

Nothing here raises: what is not there, or of another kind, is `None`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from guardrails.core.attribution import clean_name
from guardrails.core.tracebacks import let_through
from guardrails.core.usage import TOKENS_MAX

__all__ = [
    "Answer",
    "blocks_in",
    "count_of",
    "first_of",
    "get",
    "has_finished",
    "is_finished",
    "is_pending",
    "iterations_in",
    "model_of",
    "names_of",
    "says_why_it_ends",
]

ITERATIONS_MAX = 1_000
"""Of the model that one answer took, with tools that its provider runs."""

BLOCKS_MAX = 10_000
"""Content blocks of a message that are looked at, and as many of its tools' outputs."""

_FINISHES = ("finish_reason", "stop_reason", "stopReason", "done_reason")
"""What says why a model has ended: of OpenAI and most others, Anthropic, Bedrock's
Converse, and Ollama."""

_FINAL_STATUSES = frozenset({"cancelled", "completed", "failed", "incomplete"})
_PENDING_STATUSES = frozenset({"in_progress", "queued"})
"""Of OpenAI's Responses API, which has a status instead."""


class Answer:
    """What LangChain has of an answer, read once for all that is asked of it.

    Args:
        result: As LangChain's hooks get it.
    """

    def __init__(self, result: LLMResult) -> None:
        self.result: LLMResult = result
        chats = (
            [one.message for one in candidates if isinstance(one, ChatGeneration)]
            for candidates in result.generations
        )
        self.prompts: list[list[BaseMessage]] = [chat for chat in chats if chat]
        """The messages of each prompt's candidates."""
        self.messages: list[BaseMessage] = [m for chat in self.prompts for m in chat]

    @property
    def output(self) -> object:
        """What is known of it beside its messages."""
        return self.result.llm_output

    @cached_property
    def sources(self) -> list[object]:
        """What holds provider metadata, best first."""
        sources = list[object]()
        for message in self.messages:
            metadata = get(message, "response_metadata")
            sources += (metadata, get(metadata, "body"))
        return [source for source in (*sources, self.output) if source]


def blocks_in(message: BaseMessage) -> Iterator[list[object]]:
    """Yields the content blocks of a message, and those that OpenAI has beside them."""
    outputs = get(message.additional_kwargs, "tool_outputs")
    for blocks in (message.content, outputs):
        if isinstance(blocks, list):
            yield cast("list[object]", blocks)[:BLOCKS_MAX]


def is_finished(answer: Answer) -> bool:
    """Whether an answer says that its model has ended it."""
    return any(map(has_finished, answer.messages))


def is_pending(answer: Answer) -> bool:
    """Whether an answer is still to be written: in the background, for later."""
    return any(
        get(get(one, "response_metadata"), "status") in _PENDING_STATUSES
        for one in answer.messages
    )


def says_why_it_ends(answer: Answer) -> bool:
    """Whether an answer says why its model has ended it, and not only that it ends."""
    return any(map(_says_why, answer.messages))


def has_finished(message: object) -> bool:
    """Whether a message, or a part of one, says that its model has ended it."""
    return get(message, "chunk_position") == "last" or _says_why(message)


def _says_why(message: object) -> bool:
    metadata = get(message, "response_metadata")
    return (
        first_of(metadata, _FINISHES) is not None
        or get(metadata, "status") in _FINAL_STATUSES
    )


def iterations_in(usage: object) -> Sequence[object]:
    """Returns what Anthropic reports of each step in which an answer was made."""
    steps: object = get(usage, "iterations")
    if isinstance(steps, list | tuple):
        return cast("Sequence[object]", steps)[:ITERATIONS_MAX]
    return ()


def model_of(answer: Answer) -> str | None:
    """Returns the model that answered, often a dated snapshot of the one asked."""
    for source in answer.sources:
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
