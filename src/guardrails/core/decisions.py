"""Decisions: puts a refusal of the ledger into words and exact amounts.

A stop says who stopped, at what, after how many steps, and how to go on.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import assert_never

from guardrails.core.accounts import Line, Stop, StopReason
from guardrails.core.attribution import Attribution
from guardrails.core.loops import LoopFinding, LoopKind
from guardrails.core.money import EXACT, format_usd, usd
from guardrails.core.operations import Refusal
from guardrails.core.policy import Measure
from guardrails.core.stops import StopKind, StopOrder

__all__ = [
    "Decision",
    "amount",
    "decide",
    "format_amount",
    "format_count",
    "format_time",
    "loop_text",
    "refused_by",
    "stop_text",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A refusal in words."""

    message: str
    stop: Stop | None
    """The stop that ends the session; `None` when the next call may pass."""
    refusal: Refusal


def decide(refusal: Refusal, attribution: Attribution, *, is_final: bool) -> Decision:
    """Puts a refusal into words.

    Args:
        refusal: What the ledger answered.
        attribution: Whom the call is charged to.
        is_final: Whether waiting for open holds cannot help (`DENY`).
    """
    who = attribution.agent or "session"
    where = f"session {attribution.session_id}"
    around = _session_id(refusal.line, attribution)
    if around != attribution.session_id:
        where += f" inside of session {around}"
    stop = refusal.stop
    if refusal.order is not None:
        order = refusal.order
        message = (
            f"{who} stopped: {_order_text(order)}, after {refusal.steps} steps. "
            f"{where}. To go on: guard.resume({order.target.argument})"
        )
    elif stop is not None:
        what = stop_text(stop)
        how = _way_on(stop, around)
        message = f"{who} stopped: {what}, after {refusal.steps} steps. {where}. {how}"
    elif refusal.finding is not None:
        message = _advice(refusal.finding)
    elif is_final:
        message = (
            f"{who} stopped: {_limit_text(refusal)}, after {refusal.steps} steps. "
            f"{where}. {_limit_way_on(refusal, attribution)}"
        )
    else:
        message = (
            f"{who}: call refused for now: {_limit_text(refusal)}, part of it held by "
            f"calls in flight. {where}. Try again when they are done, or set "
            "max_wait_s to let calls wait."
        )
    return Decision(message=message, stop=stop, refusal=refusal)


def refused_by(refusal: Refusal) -> str:
    """Names for reports what refused a call: `max_cost_usd of customer_id`.

    Of whom is said by the call; here it would be one more name to forget.
    """
    if refusal.order is not None:
        return StopReason.KILLED.value
    if refusal.measure is None:
        stop = refusal.stop
        return (StopReason.LOOP_DETECTED if stop is None else stop.reason).value
    return f"{refusal.measure.value} of {_kind_of(refusal.line)}"


def _kind_of(line: Line) -> str:
    """Names what a budget is kept per."""
    if line.is_session:
        return "session"
    if line.part is not None:
        _, kind, name = line.part
        return f"{kind}={name}"
    dimensions = [part.partition("=")[0] for part in line.account.split("/")[2:]]
    return ",".join(dimensions).replace("~", " ") or "project"


def amount(measure: Measure, value: int) -> Decimal | int:
    """Converts from the unit of the ledger: USD, seconds, or a count."""
    match measure:
        case Measure.COST:
            return usd(value)
        case Measure.WALL_TIME:
            return Decimal(value).scaleb(-3, EXACT)
        case Measure.TOKENS | Measure.STEPS | Measure.MODEL_CALLS | Measure.TOOL_CALLS:
            return value
        case _:
            assert_never(measure)


def format_amount(measure: Measure, value: int) -> str:
    """Writes an amount for people: `$0.98`, `118.2 s`, `25`."""
    if measure is Measure.COST:
        return format_usd(value)
    if measure is Measure.WALL_TIME:
        return f"{value / 1000:.1f} s"
    return f"{value:,}"


def format_time(time_ms: int) -> str:
    """Writes an instant for people: `2026-11-26 16:02 UTC`, the minute it is in."""
    return f"{datetime.fromtimestamp(time_ms / 1000, tz=UTC):%Y-%m-%d %H:%M} UTC"


def format_count(number: int, noun: str) -> str:
    """Writes a number of things for people: `1 call`, `1,204 calls`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def loop_text(finding: LoopFinding) -> str:
    """Writes for people what repeats, how often, and what that cost."""
    what = finding.tool
    # A tool without a price costs something, too, and nobody knows how much.
    cost = f", {format_usd(finding.cost_nano_usd)}" if finding.cost_nano_usd else ""
    match finding.kind:
        case LoopKind.CYCLE:
            return (
                f"{' > '.join(finding.tools)} repeated {finding.repeats} times "
                f"({finding.kind.value} of {len(finding.tools)} calls){cost}"
            )
        case LoopKind.REPEATED_ERROR:
            return (
                f"{what} failed {finding.count} times in a row with the same error "
                f"({finding.kind.value}){cost}"
            )
        case LoopKind.IDENTICAL | LoopKind.POLLING:
            return f"{what} repeated {finding.count} times ({finding.kind.value}){cost}"
        case _:
            assert_never(finding.kind)


def _advice(finding: LoopFinding) -> str:
    """Tells a model why its call was not run, and what to do instead."""
    what, count = finding.tool, finding.count
    match finding.kind:
        case LoopKind.IDENTICAL:
            why = f"{what} was called {count} times with the same arguments and result"
            advice = "Do not repeat it; go on with what you have."
        case LoopKind.CYCLE:
            why = (
                f"{' > '.join(finding.tools)} were called {finding.repeats} times in "
                "this order, with the same arguments and results"
            )
            advice = "Do not repeat them; go on with what you have."
        case LoopKind.REPEATED_ERROR:
            why = f"{what} failed {count} times in a row with the same error"
            advice = "Other arguments do not help; do without it, or say what is wrong."
        case LoopKind.POLLING:
            why = f"{what} was called {count} times in a row with the same arguments"
            advice = "Do not ask again now; go on with what you have."
        case _:
            assert_never(finding.kind)
    cost = finding.cost_nano_usd
    return f"Not run: {why}{f', for {format_usd(cost)}' if cost else ''}. {advice}"


def stop_text(stop: Stop) -> str:
    """Writes for people why a session ended: its limit, its loop, or who ended it."""
    match stop.reason:
        case StopReason.BUDGET_EXCEEDED:
            assert stop.measure is not None
            return _used_text(stop.measure, stop.used, stop.allowed, stop.needed)
        case StopReason.LOOP_DETECTED:
            assert stop.finding is not None
            return loop_text(stop.finding)
        case StopReason.KILLED:
            return f"killed{_by(stop.by)}{_why(stop.note)}"
        case _:
            assert_never(stop.reason)


def _order_text(order: StopOrder) -> str:
    what = "" if order.target.kind is StopKind.SESSION else f"{order.target.label} "
    until = ""
    if order.until_ms is not None:
        until = f" until {format_time(order.until_ms)}"
    return f"{what}killed{_by(order.by)}{until}{_why(order.note)}"


def _by(name: str | None) -> str:
    return f" by {name}" if name else ""


def _why(note: str | None) -> str:
    return f": {note}" if note else ""


def _limit_text(refusal: Refusal) -> str:
    assert refusal.measure is not None
    return _used_text(refusal.measure, refusal.used, refusal.allowed, refusal.needed)


def _used_text(measure: Measure, used: int, allowed: int, needed: int | None) -> str:
    text = (
        f"{format_amount(measure, used)} of {format_amount(measure, allowed)} "
        f"({measure.value}) used"
    )
    if needed and measure in (Measure.COST, Measure.TOKENS):
        text += f", the next call needs up to {format_amount(measure, needed)}"
    return text


def _limit_way_on(refusal: Refusal, attribution: Attribution) -> str:
    """Says how to go on where a limit has ended no session."""
    line = refusal.line
    if line.is_session and refusal.measure is not None:  # What is left is to close it.
        session = _session_id(line, attribution)
        return f"To go on: guard.raise_limit({session!r}, {refusal.measure.value}=...)"
    if line.part is None or refusal.measure is None:
        return (
            f"The budget of {line.scope} refuses until its window turns or its limit "
            "is raised."
        )
    session_id, kind, name = line.part
    return (
        f"The budget of {line.scope} refuses until its limit is raised: "
        f"guard.raise_limit({session_id!r}, {kind}={name!r}, "
        f"{refusal.measure.value}=...)"
    )


def _session_id(line: Line, attribution: Attribution) -> str | None:
    """Returns whose limit or stop it is: that of the call, or of one around it."""
    owner = line.attribution if line.is_session else None
    return (owner or attribution).session_id


def _way_on(stop: Stop, session_id: str | None) -> str:
    if stop.reason is StopReason.BUDGET_EXCEEDED and stop.measure is not None:
        return f"To go on: guard.raise_limit({session_id!r}, {stop.measure.value}=...)"
    return f"To go on: guard.resume({session_id!r})"
