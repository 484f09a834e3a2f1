"""Informing: adds to the outbox what an operation of the ledger tells people of. Pure.

Nothing is added where nobody wants to know.
"""

from collections.abc import Iterable, Mapping

from guardrails.core.accounts import Account, Line
from guardrails.core.alerting.alerts import (
    alert_of_crossing,
    alert_of_killing,
    alert_of_limit,
    alert_of_loop,
    alert_of_order,
    alert_of_raise,
    alert_of_stop,
)
from guardrails.core.alerting.outbox import Outbox
from guardrails.core.loops import LoopFinding
from guardrails.core.operations import (
    Crossing,
    RaiseLimits,
    Refusal,
    Reserve,
    Settle,
    StopScope,
    StopSession,
)
from guardrails.core.policy import Measure
from guardrails.core.stops import StopOrder
from guardrails.core.telling import AlertKind

__all__ = [
    "reached_label",
    "tell_crossings",
    "tell_killing",
    "tell_limit",
    "tell_loop",
    "tell_order",
    "tell_raise",
    "tell_stop",
]


def reached_label(measure: Measure) -> str:
    """Names a hard limit among the thresholds of which an account has told."""
    return f"reached {measure.value}"


def tell_crossings(
    outbox: Outbox,
    op: Reserve | Settle,
    crossings: Iterable[Crossing],
    accounts: Mapping[str, Account],
) -> None:
    """Tells of soft thresholds."""
    telling, who = op.charging.telling, op.charging.attribution
    if telling is None or AlertKind.SOFT not in telling.kinds:
        return
    for crossing in crossings:
        account = accounts[crossing.line.account]
        alert = alert_of_crossing(crossing, account, who, now_ms=op.now_ms)
        outbox.add(alert, telling.places)


def tell_stop(
    outbox: Outbox, op: Reserve | Settle, line: Line, account: Account
) -> None:
    """Tells of the stop that a limit or a loop has set."""
    telling, stop = op.charging.telling, account.stop
    if telling is None or stop is None or AlertKind.STOP not in telling.kinds:
        return
    who = op.charging.attribution
    alert = alert_of_stop(stop, line, account, who, hold_id=op.hold_id)
    outbox.add(alert, telling.places)


def tell_limit(outbox: Outbox, op: Reserve, refusal: Refusal) -> bool:
    """Tells that a shared account refuses; returns whether anybody wants to know."""
    telling = op.charging.telling
    if telling is None or AlertKind.LIMIT not in telling.kinds:
        return False
    alert = alert_of_limit(refusal, op.charging.attribution, now_ms=op.now_ms)
    outbox.add(alert, telling.places)
    return True


def tell_loop(
    outbox: Outbox,
    op: Settle,
    account: Account,
    finding: LoopFinding,
    *,
    is_stopped: bool,
) -> None:
    """Tells of a loop, unless it ends its session and that is told."""
    telling = op.charging.telling
    if telling is None or AlertKind.LOOP not in telling.kinds:
        return
    if is_stopped and AlertKind.STOP in telling.kinds:
        return
    alert = alert_of_loop(
        finding,
        op.charging.lines[0],
        account,
        op.charging.attribution,
        hold_id=op.hold_id,
        now_ms=op.now_ms,
    )
    outbox.add(alert, telling.places)


def tell_killing(outbox: Outbox, op: StopSession, account: Account) -> None:
    """Tells of a session that a person stopped for good."""
    telling = op.telling
    if telling is not None and AlertKind.STOP in telling.kinds:
        outbox.add(alert_of_killing(account), telling.places)


def tell_order(outbox: Outbox, op: StopScope, order: StopOrder) -> None:
    """Tells of what a person stopped."""
    telling = op.telling
    if telling is not None and AlertKind.STOP in telling.kinds:
        outbox.add(alert_of_order(order, op.project_id), telling.places)


def tell_raise(outbox: Outbox, op: RaiseLimits, account: Account) -> None:
    """Tells of limits that a person raised."""
    telling = op.telling
    if telling is not None and AlertKind.RAISED in telling.kinds:
        alert = alert_of_raise(account, by=op.by, now_ms=op.now_ms)
        outbox.add(alert, telling.places)
