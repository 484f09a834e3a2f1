"""Admission: plans the operations of one guarded call.

Pure functions from a call, its attribution and the policy to one frozen store
operation. What the ledger answers is put into words by `decisions.py`.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import quote

from guardrails.core.accounts import Account, Charging, Line, StopReason, Threshold
from guardrails.core.attribution import Attribution, clean_name
from guardrails.core.calls import CallStatus, ModelCall, Outcome, ToolCall
from guardrails.core.events import Event
from guardrails.core.limits import effective_limits
from guardrails.core.loops import FAILED, LoopAction, LoopRule, ToolTrace
from guardrails.core.operations import Release, Reserve, Settle
from guardrails.core.policy import Budget, BudgetAction, Limits, Measure
from guardrails.core.usage import TOKENS_MAX, Charge, TokenUsage
from guardrails.core.windows import Window, window_end_ms, window_name

__all__ = [
    "Reservation",
    "account_key",
    "closing_charging",
    "plan_release",
    "plan_reserve",
    "plan_settle",
    "session_line",
    "shared_lines",
]

CLOSING_RETENTION_MS = 31 * 86_400_000
"""How long it is known that a session was closed. Longer than threads rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A planned call: the operation, and what its settling will need."""

    op: Reserve
    call: ModelCall | ToolCall
    charge: Charge
    """The upper bound that is held; its cost is `None` when it is not known."""
    input_tokens: int
    """The bound of the input: what a broken-off call is charged at least."""


def account_key(
    attribution: Attribution, *, per: tuple[str, ...], every: Window, now_ms: int
) -> str:
    """Builds the key of the account of a scope in a window.

    Names are percent-encoded, so that no name can imitate another scope. A
    dimension without a name has an account too: leaving a name out is no way
    around a budget.
    """
    parts = [quote(attribution.project_id, safe=""), window_name(every, now_ms=now_ms)]
    for dimension in per:
        name = attribution.value(dimension)
        parts.append(dimension if name is None else f"{dimension}={quote(name, '')}")
    return "/".join(parts)


def session_line(budget: Budget, attribution: Attribution) -> Line:
    """Returns the line of a session's own account, for all but a closing call."""
    key = account_key(attribution, per=("session_id",), every=Window.SESSION, now_ms=0)
    return Line(
        account=key,
        scope="session",
        limits=budget.work_limits,
        thresholds=_thresholds(budget),
        is_session=True,
        attribution=attribution,
        on_store_error=budget.on_store_error,
    )


def closing_charging(
    charging: Charging, budget: Budget, account: Account | None, *, now_ms: int
) -> Charging | None:
    """Returns whom the closing call of a session is charged to; `None` if it has none.

    A closing call is charged like any other, though against the whole limit. It may
    be made after its session was stopped at a limit: then nothing else is admitted
    there, so that what is left now is still left when it is reserved. It has an
    account of its own besides, which admits one call: each limit is closed once,
    whoever tries. Wall time has no reserve: the call is made when it is over.

    Args:
        charging: Whom other calls of the session are charged to.
        budget: The session's own budget.
        account: The session's account.
        now_ms: The instant of the call.
    """
    own, others = charging.lines[0], charging.lines[1:]
    account = account or Account(key=own.account)
    raised = effective_limits(budget.limits, account.raised)
    limits = replace(raised, wall_time_ms=None)
    if account.stop is not None:
        is_over_steps = any(
            limit is not None and account.posted(measure) >= limit
            for measure in (Measure.STEPS, Measure.MODEL_CALLS)
            for limit in [limits.of(measure)]
        )
        if account.stop.reason is not StopReason.BUDGET_EXCEEDED or is_over_steps:
            return None
    left = Limits(
        cost_nano_usd=_left(limits, account, Measure.COST),
        tokens=_left(limits, account, Measure.TOKENS),
        model_calls=1,
    )
    levels = (limits.cost_nano_usd, limits.steps, limits.model_calls, limits.tokens)
    level = ",".join("" if limit is None else str(limit) for limit in levels)
    once = Line(
        account=f"{own.account}/closing={quote(level, safe='')}",
        scope=own.scope,
        limits=left,
        expires_at_ms=now_ms + CLOSING_RETENTION_MS,
        on_store_error=own.on_store_error,
    )
    own = replace(own, limits=limits, is_binding=account.stop is None)
    return replace(charging, lines=(own, *others, once))


def _left(limits: Limits, account: Account, measure: Measure) -> int | None:
    limit = limits.of(measure)
    return None if limit is None else max(0, limit - account.used(measure))


def shared_lines(
    budgets: tuple[Budget, ...], attribution: Attribution, *, now_ms: int
) -> tuple[Line, ...]:
    """Returns one line per shared budget, in their order."""
    return tuple(
        Line(
            account=account_key(
                attribution, per=budget.per, every=budget.every, now_ms=now_ms
            ),
            scope=_scope(budget, attribution),
            limits=budget.limits,
            thresholds=_thresholds(budget),
            is_binding=budget.action is BudgetAction.STOP,
            expires_at_ms=window_end_ms(budget.every, now_ms=now_ms),
            on_store_error=budget.on_store_error,
        )
        for budget in budgets
    )


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
) -> Settle:
    """Plans to book what a call really cost.

    Args:
        reservation: The planned call.
        outcome: What happened.
        usage: The tokens to book, reported or bounded; `None` for a tool.
        charge: The cost to book.
        now_ms: The instant of the settling.
        active_ms: One entry per session line.
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
        latency_ms=outcome.latency_ms,
        bytes_in=call.bytes_in if is_tool else None,
        bytes_out=outcome.bytes_out,
        usage=usage,
        charge=charge,
        reserved_nano_usd=op.cost_nano_usd,
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


def _scope(budget: Budget, attribution: Attribution) -> str:
    """Names a scope for people."""
    names = [f"{part}={attribution.value(part) or '-'}" for part in budget.per]
    return ",".join(names) or "project"


@lru_cache(maxsize=1024)
def _thresholds(budget: Budget) -> tuple[Threshold, ...]:
    """Returns the soft thresholds of a budget, one per measure and point."""
    alerts = budget.soft_alerts
    points: list[Threshold] = []
    if alerts.cost_nano_usd is not None:
        points.append(
            Threshold(
                measure=Measure.COST, value=alerts.cost_nano_usd, label="soft_alert_usd"
            )
        )
    for measure in Measure:
        limit = budget.limits.of(measure)
        if limit is not None:
            points += [
                Threshold(
                    measure=measure,
                    value=math.ceil(limit * ratio),
                    ratio=ratio,
                    label=f"{measure.value}:{ratio}",
                )
                for ratio in alerts.ratios
            ]
    return tuple(points)
