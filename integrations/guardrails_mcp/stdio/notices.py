"""Notices: what a host or a server gets in place of a message that is withheld."""

from collections.abc import Mapping

from guardrails import GuardrailsError
from guardrails_mcp.refusals import refusal_result
from guardrails_mcp.stdio import messages
from guardrails_mcp.stdio.messages import ToolRequest

__all__ = ["TOO_DEEP", "UNREADABLE_SAMPLING", "refused", "too_long"]

TOO_DEEP = "guardrails: the message is nested too deeply to be read, and was withheld."

UNREADABLE_SAMPLING = (
    "guardrails: what the server asks of the host's model is no JSON in one line, and "
    "was withheld."
)


def too_long(size_bytes: int, bytes_max: int) -> str:
    """Says that a message is longer than is passed on."""
    return (
        f"guardrails: the message has {size_bytes:,} bytes, more than the "
        f"{bytes_max:,} that GUARDRAILS_MAX_LINE_BYTES allows, and was withheld."
    )


def refused(request: ToolRequest, error: GuardrailsError) -> Mapping[str, object]:
    """Returns the answer to a call that is refused; empty if it asks for none."""
    if request.key is None:
        return {}
    return messages.response(
        request.key, refusal_result(error, is_modern=request.is_modern)
    )
