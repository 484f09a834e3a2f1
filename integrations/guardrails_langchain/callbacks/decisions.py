"""Decisions: calls of models that answer typed questions, and are no chat models.

LangChain tells of such a call as of a chain whose run is of the type `llm`, with the
model's name in its metadata. What it used is in its answer (`BaseDecisionModel` of
langchain-core 1.8.3, and `OpenAIDecisions` of langchain-openai 1.7.4).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from pydantic import BaseModel

from guardrails.core.attribution import clean_name
from guardrails.core.calls import ModelCall, Outcome
from guardrails.core.estimates import OUTPUT_TOKENS_FLOOR, OUTPUT_TOKENS_MIN
from guardrails.core.tracebacks import let_through
from guardrails_langchain.reading.answers import get
from guardrails_langchain.reading.prompts import (
    DEPTH_MAX,
    is_medium,
    part_tokens_max,
    text_bytes,
)
from guardrails_langchain.reading.shapes import message_tokens_max
from guardrails_langchain.reading.translate import model_call, outcome_of_llm_end

__all__ = ["decision_call", "is_decision", "outcome_of_decision"]

VALUE_OVERHEAD_TOKENS = 8
"""What stands around a value that is sent as JSON: quotes, brackets, a comma."""

ANSWERS_PER_QUESTION = 2
"""A level of a score, and a label of a choice, may be told twice."""


def is_decision(
    metadata: Mapping[str, Any] | None, announced: Mapping[str, Any]
) -> bool:
    """Whether a chain that starts is a call of such a model.

    Args:
        metadata: Of the run.
        announced: What else LangChain says of its start.
    """
    return (
        announced.get("run_type") == "llm"
        and clean_name((metadata or {}).get("ls_model_name")) is not None
    )


def decision_call(asked: object, metadata: Mapping[str, Any] | None) -> ModelCall:
    """Returns the call that such a start announces, bounded by all that is asked.

    Its prompt is in no history, so that none is bounded by what was billed for it.
    """
    call = model_call(
        serialized=None,
        messages=None,
        prompts=None,
        invocation_params=None,
        metadata=metadata,
    )
    return replace(
        call,
        prompt=None,
        input_tokens_max=_tokens_max(asked, DEPTH_MAX),
        output_tokens_expected=_answers_tokens_max(get(asked, "questions")),
    )


def _answers_tokens_max(questions: object) -> int:
    """Bounds the answers, which have the form that their questions define.

    They repeat names, labels and levels, each with a number that is hardly longer than
    what stands around a value.
    """
    said = ANSWERS_PER_QUESTION * _tokens_max(questions, DEPTH_MAX)
    return min(OUTPUT_TOKENS_MIN + said, OUTPUT_TOKENS_FLOOR)


def outcome_of_decision(answer: object) -> Outcome:
    """Returns the outcome of a call that was answered."""
    usage: object = getattr(answer, "usage", None)
    metadata = {"model_name": getattr(answer, "model", None)}
    if isinstance(usage, BaseModel):
        metadata["token_usage"] = usage.model_dump()
    message = AIMessage(_json(answer) or "", response_metadata=metadata)
    if isinstance(usage, Mapping):
        message = message.model_copy(update={"usage_metadata": usage})
    result = LLMResult(generations=[[ChatGeneration(message=message)]])
    return replace(outcome_of_llm_end(result), written=None)


def _tokens_max(value: object, depth: int) -> int:
    if isinstance(value, BaseMessage):
        return VALUE_OVERHEAD_TOKENS + message_tokens_max(value)
    if isinstance(value, BaseModel):
        text = _json(value)
        return part_tokens_max(value) if text is None else text_bytes(text)
    if depth and isinstance(value, Mapping) and not is_medium(value):
        members = cast("Mapping[object, object]", value).items()
        return sum(
            VALUE_OVERHEAD_TOKENS + text_bytes(str(name)) + _tokens_max(one, depth - 1)
            for name, one in members
        )
    if depth and isinstance(value, list | tuple):
        values = cast("list[object]", value)
        return sum(
            VALUE_OVERHEAD_TOKENS + _tokens_max(one, depth - 1) for one in values
        )
    return VALUE_OVERHEAD_TOKENS + part_tokens_max(value)


def _json(value: object) -> str | None:
    try:
        return value.model_dump_json() if isinstance(value, BaseModel) else None
    except Exception as error:  # It holds what cannot be written.
        let_through(error)
        return None
