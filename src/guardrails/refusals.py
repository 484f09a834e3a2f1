"""Refusals: the exception that a refusal of the ledger is raised as."""

import contextlib
from collections.abc import Generator, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from guardrails.core.accounts import Charging, Stop, StopReason
from guardrails.core.decisions import amount, decide
from guardrails.core.loops import LoopFinding
from guardrails.core.money import usd
from guardrails.core.operations import Refusal
from guardrails.core.reporting.rollups import ranked
from guardrails.errors import (
    BudgetExceeded,
    CallRefused,
    LoopDetected,
    LoopRefused,
    SessionStopped,
    StoreUnavailable,
)
from guardrails.ports import Store

__all__ = ["refusal_error", "refusing"]

TOP_COSTS = 3
"""Causes that a stop names."""

TOP_COSTS_EVENTS = 1_000
"""Calls that are looked at for them."""


def refusal_error(
    refusal: Refusal, charging: Charging, *, is_final: bool, store: Store
) -> SessionStopped | CallRefused:
    """Returns the exception that a refusal is raised as.

    Args:
        refusal: What the ledger answered.
        charging: Whom the call was to be charged to.
        is_final: Whether waiting for open holds cannot help.
        store: Where the causes of a stop are read, once somebody asks for them.
    """
    who = charging.attribution
    decision = decide(refusal, who, is_final=is_final)
    if not is_final:
        error = CallRefused(decision.message)
        error.limit = None if refusal.measure is None else refusal.measure.value
        return error
    if decision.stop is None and refusal.finding is not None:
        return LoopRefused(decision.message)
    common: Mapping[str, Any] = {
        "session_id": who.session_id,
        "agent": who.agent,
        "attribution": who,
        "steps": refusal.steps,
    }
    if refusal.order is not None:
        return SessionStopped(
            decision.message, reason=StopReason.KILLED.value, **common
        )
    stop = decision.stop or _as_stop(refusal)
    if stop.measure is not None:
        needed = None if stop.needed is None else amount(stop.measure, stop.needed)
        return BudgetExceeded(
            decision.message,
            reason=stop.reason.value,
            limit=stop.measure.value,
            scope=stop.scope or refusal.line.scope,
            spent=amount(stop.measure, stop.used),
            allowed=amount(stop.measure, stop.allowed),
            needed=needed,
            part=refusal.line.part,
            read_costs=partial(_top_costs, charging, store),
            **common,
        )
    if stop.finding is not None:
        return LoopDetected(
            decision.message,
            reason=stop.reason.value,
            **_found(stop.finding),
            **common,
        )
    return SessionStopped(decision.message, reason=stop.reason.value, **common)


def _as_stop(refusal: Refusal) -> Stop:
    """Returns the figures of a budget that refuses and has stopped nobody."""
    return Stop(
        reason=StopReason.BUDGET_EXCEEDED,
        at_ms=0,
        measure=refusal.measure,
        scope=refusal.line.scope,
        used=refusal.used,
        allowed=refusal.allowed,
        needed=refusal.needed,
    )


def _found(finding: LoopFinding) -> Mapping[str, Any]:
    """Returns what `LoopDetected` carries of a loop."""
    return {
        "kind": finding.kind.value,
        "tool": finding.tool,
        "tools": finding.tools,
        "count": finding.count,
        "cost": usd(finding.cost_nano_usd),
    }


def _top_costs(
    charging: Charging, store: Store
) -> tuple[tuple[str, Decimal, int], ...]:
    """Returns what the session spent most on, most expensive first."""
    who = charging.attribution
    try:
        events = store.history.events(
            project_id=who.project_id,
            session_id=who.session_id or "",
            limit=TOP_COSTS_EVENTS,
        )
    except Exception:
        return ()
    return tuple(
        (spend.name or "?", usd(spend.total_nano_usd), spend.steps)
        for spend in ranked(events)[:TOP_COSTS]
    )


@contextlib.contextmanager
def refusing() -> Generator[None]:
    """Turns an unavailable store into a refusal of this one call."""
    try:
        yield
    except StoreUnavailable as error:
        raise CallRefused(
            f"call refused: {error} (on_store_error decides what happens then)"
        ) from error
