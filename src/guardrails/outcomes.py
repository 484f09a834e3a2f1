"""Outcomes: what there is to say of how a call ended."""

import asyncio

from guardrails.core.usage import TokenUsage

__all__ = ["BREAKS", "checked_usage", "text_of"]

BREAKS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)
"""Errors that say that nobody waits for the call any more."""


def checked_usage(usage: object) -> TokenUsage | None:
    """Returns what was reported.

    Raises:
        ValueError: If it is no usage.
    """
    if usage is None or isinstance(usage, TokenUsage):
        return usage
    raise ValueError(
        f"settle.usage: a {type(usage).__name__} is no TokenUsage. Pass "
        "TokenUsage(input_tokens=..., output_tokens=...)."
    )


def text_of(error: BaseException) -> str:
    """Returns what an error says, if it can."""
    try:
        return str(error)
    except Exception:
        return ""
