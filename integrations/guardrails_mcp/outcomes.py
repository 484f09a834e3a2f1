"""Outcomes: what the result of an MCP tool says of the guarded call that it answers."""

from guardrails.core.calls import CallStatus, Outcome, ToolCall
from guardrails.sessions.guarded_call import GuardedCall
from guardrails_mcp import wire

__all__ = ["outcome_of"]


def outcome_of(
    call: GuardedCall, result: object, *, latency_ms: int | None = None
) -> Outcome:
    """Returns what a call turned out to be.

    Args:
        call: The call of a tool.
        result: What the tool has answered, as whichever SDK has read it.
        latency_ms: How long that took; without it, since the call was reserved.
    """
    assert isinstance(call.call, ToolCall)
    engine = call.session.engine
    rule = engine.policy.tool_rule(call.call.name)
    is_error = wire.is_tool_error(result)
    content = wire.content_of(result)
    return Outcome(
        status=CallStatus.ERROR if is_error else CallStatus.OK,
        error_type="tool_error" if is_error else None,
        cost_nano_usd=wire.believed_cost(result, rule, engine.contain),
        result_digest=None if content is None else call.digest_of(content),
        bytes_out=wire.content_size(result),
        latency_ms=latency_ms,
    )
