"""Refusals: what a client of an MCP server gets instead of a tool's result.

A refusal is a tool result with `isError`, not a JSON-RPC error: that is what the
specification says a client should give to the model (server/tools, 2025-11-25), and
the only form that every agent framework passes on with its text.
"""

from collections.abc import Mapping
from decimal import Decimal

from guardrails import BudgetExceeded, GuardrailsError, SessionStopped

__all__ = ["REFUSAL_KEY", "refusal_result", "refusal_text"]

REFUSAL_KEY = "guardrails.runtime/refusal"
"""The key in `_meta` under which a program finds why a call was refused."""

_FIGURES = ("limit", "scope", "spent", "allowed", "needed", "tool", "count", "cost")
"""What stops carry for a program: names, amounts and counts."""


def refusal_text(error: GuardrailsError, *, ran_in: str | None = None) -> str:
    """Writes a refusal for the model: who refused, why, and what to do now.

    Args:
        error: Why the call was not made, or did not go on.
        ran_in: The session of the call, if its tool was stopped while it ran. That may
            have been in a session that the tool had opened: its caller's goes on then.
    """
    what = "Not called" if ran_in is None else "Stopped while it ran"
    advice = "Do not repeat this call. Go on without it, or answer with what you have."
    if _ends_one_tool(error):
        advice = (
            "Do not call this tool any more. Others may still be called: go on without "
            "it, or answer with what you have."
        )
    elif _is_final(error, ran_in):
        advice = (
            "Do not call any more tools: they will be refused as well. Answer with "
            "what you have, and say that guardrails ended the work."
        )
    return f"{what}: guardrails refused it. {error}\n{advice}"


def refusal_result(
    error: GuardrailsError, *, is_modern: bool = False, ran_in: str | None = None
) -> dict[str, object]:
    """Returns the refusal as a `CallToolResult` on the wire.

    Args:
        error: Why the call was not made, or did not go on.
        is_modern: Whether the request is of protocol 2026-07-28 or newer, in which a
            result names its type.
        ran_in: As of `refusal_text`.
    """
    result: dict[str, object] = {
        "content": [{"type": "text", "text": refusal_text(error, ran_in=ran_in)}],
        "isError": True,
        "_meta": {REFUSAL_KEY: _facts(error, ran_in)},
    }
    if is_modern:
        result["resultType"] = "complete"
    return result


def _ends_one_tool(error: GuardrailsError) -> bool:
    """Whether only a tool was called as often as it may be: nothing else is over."""
    part = error.part if isinstance(error, BudgetExceeded) else None
    return part is not None and part[1] == "tool"


def _is_final(error: GuardrailsError, ran_in: str | None) -> bool:
    """Whether all that the caller may still call would be refused as well."""
    if not isinstance(error, SessionStopped) or _ends_one_tool(error):
        return False
    return ran_in in (None, error.session_id)


def _facts(error: GuardrailsError, ran_in: str | None) -> Mapping[str, object]:
    facts: dict[str, object] = {
        "error": type(error).__name__,
        "final": _is_final(error, ran_in),
    }
    if isinstance(error, SessionStopped):
        facts |= {
            "reason": error.reason,
            "session_id": error.session_id,
            "steps": error.steps,
        }
    for name in _FIGURES:
        figure = getattr(error, name, None)
        if figure is not None:
            # Money is a decimal string in JSON; counts are numbers.
            facts[name] = str(figure) if isinstance(figure, Decimal) else figure
    return facts
