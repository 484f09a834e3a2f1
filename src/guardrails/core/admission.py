"""Admission: plans the operations of one guarded call.

Pure functions from a call, its attribution and the policy to one frozen store
operation. What the ledger answers is put into words by `decisions.py`.
"""

from dataclasses import dataclass

from guardrails.core.accounts import Charging
from guardrails.core.attribution import clean_name
from guardrails.core.calls import CallStatus, ModelCall, Outcome, ToolCall
from guardrails.core.events import Event
from guardrails.core.loops import FAILED, LoopAction, LoopRule, ToolTrace
from guardrails.core.operations import Release, Reserve, Settle
from guardrails.core.usage import TOKENS_MAX, Charge, TokenUsage

__all__ = [
    "Reservation",
    "plan_release",
    "plan_reserve",
    "plan_settle",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A planned call: the operation, and what its settling will need."""

    op: Reserve
    call: ModelCall | ToolCall
    charge: Charge
    """The upper bound that is held; its cost is `None` when it is not known."""
    input_tokens: int
    """The bound of the input: what a broken-off call is charged at least."""
    refused_by: str | None = None
    """In observe mode: what would have refused it."""


def plan_reserve(
    call: ModelCall | ToolCall,
    *,
    hold_id: str,
    charging: Charging,
    charge: Charge,
    output_tokens: int,
    now_ms: int,
    ttl_ms: int,
    active_ms: tuple[int, ...],
) -> Reservation:
    """Plans to hold the upper bound of a call.

    Args:
        call: What is about to happen.
        hold_id: The id that makes the reservation idempotent.
        charging: Whom it is charged to.
        charge: The upper bound of its cost. An unknown cost holds nothing; the
            policy has let it pass.
        output_tokens: The upper bound of its output; 0 for a tool.
        now_ms: The instant of the reservation; it decides the windows.
        ttl_ms: After this the hold counts as unconfirmed.
        active_ms: One entry per session line.
    """
    input_tokens = call.input_tokens_max if isinstance(call, ModelCall) else 0
    op = Reserve(
        hold_id=hold_id,
        charging=charging,
        kind=call.kind,
        cost_nano_usd=charge.cost_nano_usd or 0,
        tokens=min(input_tokens + output_tokens, TOKENS_MAX),
        now_ms=now_ms,
        expires_at_ms=now_ms + ttl_ms,
        active_ms=active_ms,
        trace=_open_trace(call, charging.loop),
    )
    return Reservation(op=op, call=call, charge=charge, input_tokens=input_tokens)


def plan_settle(
    reservation: Reservation,
    *,
    outcome: Outcome,
    usage: TokenUsage | None,
    charge: Charge,
    now_ms: int,
    active_ms: tuple[int, ...],
    took_ms: int | None = None,
) -> Settle:
    """Plans to book what a call really cost.

    Args:
        reservation: The planned call.
        outcome: What happened.
        usage: The tokens to book, reported or bounded; `None` for a tool.
        charge: The cost to book.
        now_ms: The instant of the settling.
        active_ms: One entry per session line.
        took_ms: How long it took, if the outcome does not say.
    """
    op, call = reservation.op, reservation.call
    is_tool = isinstance(call, ToolCall)
    event = Event(
        event_id=op.hold_id,
        time_ms=now_ms,
        attribution=op.charging.attribution,
        kind=call.kind,
        provider=None if is_tool else call.provider,
        model=None if is_tool else (outcome.model or call.model),
        server=call.server if is_tool else None,
        tool=call.tool if is_tool else None,
        status=outcome.status,
        error_type=outcome.error_type,
        latency_ms=took_ms if outcome.latency_ms is None else outcome.latency_ms,
        bytes_in=call.bytes_in if is_tool else None,
        bytes_out=outcome.bytes_out,
        usage=usage,
        charge=charge,
        reserved_nano_usd=op.cost_nano_usd,
        refused_by=reservation.refused_by,
    )
    return Settle(
        hold_id=op.hold_id,
        charging=op.charging,
        kind=op.kind,
        cost_nano_usd=charge.cost_nano_usd or 0,
        tokens=usage.total_tokens if usage else 0,
        now_ms=now_ms,
        active_ms=active_ms,
        event=event,
        trace=_completed(call, outcome, charge),
    )


def plan_release(reservation: Reservation, *, now_ms: int) -> Release:
    """Plans to give a call back that was never sent."""
    op = reservation.op
    return Release(hold_id=op.hold_id, account=op.charging.accounts[0], now_ms=now_ms)


def _open_trace(call: ModelCall | ToolCall, loop: LoopRule | None) -> ToolTrace | None:
    """Returns the trace of a call before it runs; only `block` looks at it."""
    if loop is None or loop.action is not LoopAction.BLOCK:
        return None
    return _trace(call, result_digest=None, cost_nano_usd=None)


def _completed(
    call: ModelCall | ToolCall, outcome: Outcome, charge: Charge
) -> ToolTrace | None:
    """Returns the trace of a tool call that ran; a broken-off one proves nothing."""
    if outcome.status is CallStatus.BROKEN_OFF:
        return None
    digest = outcome.result_digest
    if digest is not None and outcome.status is CallStatus.ERROR:
        digest = FAILED + digest
    return _trace(
        call,
        result_digest=digest,
        cost_nano_usd=charge.cost_nano_usd,
    )


def _trace(
    call: ModelCall | ToolCall,
    *,
    result_digest: str | None,
    cost_nano_usd: int | None,
) -> ToolTrace | None:
    if not isinstance(call, ToolCall) or call.arguments_digest is None:
        return None
    return ToolTrace(
        tool=call.name,
        arguments_digest=call.arguments_digest,
        result_digest=result_digest,
        call_id=clean_name(call.call_id),  # A model wrote it.
        cost_nano_usd=cost_nano_usd,
    )
