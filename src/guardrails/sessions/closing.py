"""Closing: what a session that finishes keeps for its closing call.

The policy's own limit is lowered by it, so that no call but the closing one can be
admitted into the reserve. A limit that a person has raised is the ledger's, and has
no reserve there: then the calls of this process look at it before they reserve. At
worst a call of another process takes from the reserve; none passes the limit.
"""

from dataclasses import replace

from guardrails.core.accounts import Account, Charging, Line
from guardrails.core.admission import Reservation
from guardrails.core.limits import effective_limits, refusal_of
from guardrails.core.lines import closing_charging
from guardrails.core.operations import ReadAccount, Settle
from guardrails.core.policy import Budget, OnLimit
from guardrails.engine import Engine
from guardrails.errors import StoreUnavailable
from guardrails.refusals import refusal_error

__all__ = ["akeep_reserve", "closing_of", "for_work", "keep_reserve"]


def closing_of(engine: Engine, charging: Charging, budget: Budget) -> Charging | None:
    """Returns whom a session's closing call is charged to; `None` if it has none.

    Args:
        engine: The guard's engine.
        charging: Whom other calls of the session are charged to.
        budget: The session's own budget.
    """
    try:
        account = engine.store.execute(ReadAccount(account=charging.accounts[0]))
    except StoreUnavailable:
        return None
    now_ms = engine.clock.now_ms()
    return closing_charging(charging, budget, account, now_ms=now_ms)


def keep_reserve(
    engine: Engine,
    reservation: Reservation,
    budget: Budget,
    *,
    ended: Settle | None = None,
) -> None:
    """Refuses a call that would take what a raised limit leaves to the closing call.

    Args:
        engine: The guard's engine.
        reservation: The call, as planned.
        budget: The session's own budget.
        ended: What books a call that has ended: booked first if it matters.

    Raises:
        BudgetExceeded: If it would.
        CallRefused: If it would while calls in flight hold what they hold.
    """
    if _may_have_reserve(reservation, budget):
        if ended is not None:
            engine.settle(ended)  # Booked twice, it counts once.
        try:
            account = engine.store.execute(_reading(reservation))
        except StoreUnavailable:
            return  # Reserving decides what holds then.
        _refuse(engine, reservation, budget, account)


async def akeep_reserve(
    engine: Engine, reservation: Reservation, budget: Budget
) -> None:
    """Like `keep_reserve`, for asyncio."""
    if _may_have_reserve(reservation, budget):
        try:
            account = await engine.store.aexecute(_reading(reservation))
        except StoreUnavailable:
            return  # Reserving decides what holds then.
        _refuse(engine, reservation, budget, account)


def _may_have_reserve(reservation: Reservation, budget: Budget) -> bool:
    is_enforced = reservation.op.charging.is_enforced
    return budget.on_limit is OnLimit.FINISH and is_enforced


def _reading(reservation: Reservation) -> ReadAccount:
    return ReadAccount(account=reservation.op.charging.accounts[0])


def _refuse(
    engine: Engine, reservation: Reservation, budget: Budget, account: Account | None
) -> None:
    """Refuses the call if its session's raised limit has no room for it."""
    op = reservation.op
    if account is None or account.raised is None or account.stop is not None:
        return
    line, account = for_work(op.charging.lines[0], account, budget)
    charging = replace(op.charging, lines=(line,))
    refusal, is_final = refusal_of(replace(op, charging=charging), [account])
    if refusal is not None:
        raise refusal_error(refusal, op.charging, is_final=is_final, store=engine.store)


def for_work(line: Line, account: Account, budget: Budget) -> tuple[Line, Account]:
    """Returns a session's line and account as they count for all but a closing call."""
    if budget.on_limit is not OnLimit.FINISH or account.raised is None:
        return line, account
    raised = replace(budget, limits=effective_limits(budget.limits, account.raised))
    return replace(line, limits=raised.work_limits), replace(account, raised=None)
