"""Ends: what the middleware makes of a limit, and how the thread says so.

An answer that was cut short, and a tool call that was refused, carry it in their
`response_metadata`, which stays here: no provider is sent it.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from langchain.agents.middleware.types import ModelResponse
from langchain_core.messages import AIMessage, ToolMessage

from guardrails.errors import BudgetExceeded, CallRefused, SessionStopped

__all__ = ["Refused", "cut_short", "is_at_limit", "not_run"]

Refused: TypeAlias = SessionStopped | CallRefused

METADATA_KEY = "guardrails"
"""In `response_metadata` of the messages that a limit brought about."""

NO_ANSWER = "The budget is used up, and the model gave no answer."
"""In place of an empty answer, which providers refuse in a history."""

_CALLS = frozenset({"function_call", "tool_call", "tool_call_chunk", "tool_use"})


def is_at_limit(refusal: Refused) -> bool:
    """Whether a limit is in the way, and neither a person nor a loop nor a fault."""
    if isinstance(refusal, CallRefused):
        return refusal.limit is not None
    return isinstance(refusal, BudgetExceeded)


def cut_short(response: ModelResponse[Any], refusal: Refused) -> ModelResponse[Any]:
    """Returns the answer of a closing call, without tool calls and marked as such."""
    answers = [
        _answer(message, refusal) if isinstance(message, AIMessage) else message
        for message in response.result
    ]
    return ModelResponse(result=answers)


def not_run(call: Mapping[str, Any], refusal: Refused, *, is_over: bool) -> ToolMessage:
    """Returns the answer to a tool call that a limit prevented or broke off.

    Args:
        call: The tool call.
        refusal: What was raised.
        is_over: Whether no tool is called after it. Otherwise a person may give more.
    """
    text = "Not done: the budget is used up."
    part = getattr(refusal, "part", None)
    if part is not None and part[1] == "tool":
        text = f"Not done: {part[2]} was called as often as it may be. Do without it."
    elif isinstance(refusal, CallRefused):
        text = "Not done: the budget has no room for it while other calls run."
    elif not is_over:
        text = "Not done: the budget was used up. Call it again if it is still needed."
    return ToolMessage(
        content=text,
        name=call["name"],
        tool_call_id=call["id"],
        status="error",
        response_metadata=_metadata(refusal),
    )


def _answer(message: AIMessage, refusal: Refused) -> AIMessage:
    content: Any = message.content
    if isinstance(content, list):
        content = [block for block in cast("list[Any]", content) if not _is_call(block)]
    extras = message.additional_kwargs.items()
    return message.model_copy(
        update={
            "content": content or NO_ANSWER,
            "tool_calls": [],
            "invalid_tool_calls": [],
            "additional_kwargs": {
                name: value
                for name, value in extras
                if name not in ("function_call", "tool_calls")
            },
            "response_metadata": {
                **message.response_metadata,
                **_metadata(refusal, is_cut_short=True),
            },
        }
    )


def _is_call(block: Any) -> bool:
    return isinstance(block, dict) and (
        cast("dict[str, Any]", block).get("type") in _CALLS
    )


def _metadata(refusal: Refused, *, is_cut_short: bool = False) -> dict[str, Any]:
    """Returns what a message says of a limit: texts, in the units of its key."""
    about: dict[str, Any] = {
        "cut_short": is_cut_short,
        "limit": getattr(refusal, "limit", None),
    }
    if isinstance(refusal, BudgetExceeded):
        about |= {
            "scope": refusal.scope,
            "spent": str(refusal.spent),
            "allowed": str(refusal.allowed),
            "session_id": refusal.session_id,
        }
    return {METADATA_KEY: about}
