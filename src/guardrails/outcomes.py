"""Outcomes: what there is to say of how a call ended."""

import asyncio
from collections.abc import Callable

from guardrails.core.calls import CallStatus, Outcome
from guardrails.core.usage import TokenUsage
from guardrails.errors import GuardrailsError

__all__ = ["BREAKS", "checked_usage", "failed", "text_of"]

BREAKS: tuple[type[BaseException], ...] = (
    asyncio.CancelledError,
    GeneratorExit,
    KeyboardInterrupt,
)
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


def failed(
    error: BaseException, digest_of: Callable[[BaseException], str | None]
) -> Outcome:
    """Returns the outcome of a call that ended with an error.

    Args:
        error: What the code around it raised.
        digest_of: Returns the digest of how a tool has failed.
    """
    is_cut = isinstance(error, BREAKS)
    # A stop or a cancellation says nothing about how the tool itself fails.
    says_nothing = is_cut or isinstance(error, GuardrailsError)
    return Outcome(
        status=CallStatus.BROKEN_OFF if is_cut else CallStatus.ERROR,
        error_type=type(error).__name__,
        output_tokens_max=0,
        result_digest=None if says_nothing else digest_of(error),
    )


def text_of(error: BaseException) -> str:
    """Returns what an error says, if it can."""
    try:
        return str(error)
    except Exception:
        return ""
