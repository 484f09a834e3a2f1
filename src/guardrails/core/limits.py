"""Limits: what stands in the way of a call, and which thresholds were crossed.

Pure functions over the rows of one operation; the ledger calls them and keeps
the rows.
"""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from decimal import Decimal

from guardrails.core.accounts import Account, Line, Stop, StopReason
from guardrails.core.calls import CallKind
from guardrails.core.loops import LoopAction, continues_loop, find_loop
from guardrails.core.money import EXACT
from guardrails.core.operations import Crossing, Refusal, Reserve, Settle
from guardrails.core.policy import Limits, Measure

__all__ = [
    "crossings_of",
    "effective_limits",
    "merged_limits",
    "overrun",
    "readings_of",
    "refusal_of",
    "stopped",
    "threshold_at",
]

_NAMES = tuple([field.name for field in fields(Limits)])


def refusal_of(op: Reserve, accounts: list[Account]) -> tuple[Refusal | None, bool]:
    """Returns what stands in the way of a call, and whether waiting is in vain."""
    refusal, is_final = _in_the_way(op, accounts)
    if refusal is not None:
        refusal = replace(refusal, steps=accounts[0].steps)
    return refusal, is_final


def _in_the_way(op: Reserve, accounts: list[Account]) -> tuple[Refusal | None, bool]:
    """Asks the lines in their order, and last the loop.

    What waiting helps with is passed over as long as something else may refuse: else
    a call would wait for nothing.
    """
    waiting: Refusal | None = None
    for index, account in enumerate(accounts):
        line = op.charging.lines[index]
        if not line.is_binding:
            continue
        if account.stop is not None:
            return stopped(line, account.stop), True
        limits = line.limits
        if account.raised is not None:
            limits = effective_limits(line.limits, account.raised)
        refusal = _over_calls(limits, line, account, op, index)
        if refusal is not None:
            return refusal, True
        refusal = _over_amounts(limits, line, account, op)
        if refusal is not None:
            if not _fits_without_holds(refusal, account):
                return refusal, True
            waiting = waiting or refusal
    if op.trace is not None and (looping := _looping(op, accounts[0])):
        return looping, True
    return waiting, False


def stopped(line: Line, stop: Stop, *, steps: int = 0) -> Refusal:
    """Returns the refusal of every call in a stopped session."""
    return Refusal(
        line=line,
        used=stop.used,
        allowed=stop.allowed,
        needed=stop.needed or 0,
        steps=steps,
        stop=stop,
    )


def _over_calls(
    limits: Limits, line: Line, account: Account, op: Reserve, index: int
) -> Refusal | None:
    """Returns the limit on steps or time that the call would pass.

    Steps are never held, so waiting for open holds is in vain.
    """
    if limits.steps is not None and account.steps >= limits.steps:
        return _refused_by(Measure.STEPS, line, account, limits.steps, needed=1)
    if op.kind is CallKind.MODEL:
        calls, allowed, measure = (
            account.model_calls,
            limits.model_calls,
            Measure.MODEL_CALLS,
        )
    else:
        calls, allowed, measure = (
            account.tool_calls,
            limits.tool_calls,
            Measure.TOOL_CALLS,
        )
    if allowed is not None and calls >= allowed:
        return _refused_by(measure, line, account, allowed, needed=1)
    if limits.wall_time_ms is not None and account.session is not None:
        elapsed_ms = account.session.elapsed_ms(op.now_ms, op.active_ms[index])
        if elapsed_ms >= limits.wall_time_ms:
            return _refused_by(
                Measure.WALL_TIME, line, account, limits.wall_time_ms, used=elapsed_ms
            )
    return None


def _over_amounts(
    limits: Limits, line: Line, account: Account, op: Reserve
) -> Refusal | None:
    """Returns the limit on money or tokens that the call would pass.

    One that waiting does not help with comes first.
    """
    waiting: Refusal | None = None
    cost_limit, token_limit = limits.cost_nano_usd, limits.tokens
    if cost_limit is not None and account.used_nano_usd + op.cost_nano_usd > cost_limit:
        waiting = _refused_by(
            Measure.COST, line, account, cost_limit, needed=op.cost_nano_usd
        )
        if not _fits_without_holds(waiting, account):
            return waiting
    if token_limit is not None and account.used_tokens + op.tokens > token_limit:
        refusal = _refused_by(
            Measure.TOKENS, line, account, token_limit, needed=op.tokens
        )
        if waiting is None or not _fits_without_holds(refusal, account):
            return refusal
    return waiting


def _fits_without_holds(refusal: Refusal, account: Account) -> bool:
    """Whether the call would fit if no hold were open."""
    held = account.held_tokens
    if refusal.measure is Measure.COST:
        held = account.held_nano_usd
    return refusal.used - held + refusal.needed <= refusal.allowed


def _refused_by(
    measure: Measure,
    line: Line,
    account: Account,
    allowed: int,
    *,
    needed: int = 0,
    used: int | None = None,
) -> Refusal:
    return Refusal(
        line=line,
        measure=measure,
        used=account.used(measure) if used is None else used,
        allowed=allowed,
        needed=needed,
    )


def _looping(op: Reserve, account: Account) -> Refusal | None:
    """Refuses a call that would go on with a loop, where the rule blocks."""
    rule, trace, session = op.charging.loop, op.trace, account.session
    if rule is None or trace is None or session is None:
        return None
    if rule.action is not LoopAction.BLOCK:
        return None
    finding = find_loop(session.traces, rule)
    if finding is None or not continues_loop(trace, finding, session.traces):
        return None
    return Refusal(line=op.charging.lines[0], finding=finding)


def overrun(line: Line, account: Account, op: Settle) -> Stop | None:
    """Returns the stop of a session whose settled calls passed a limit.

    Of money or tokens: what was held of them was an estimate. Steps are counted when
    they are admitted.
    """
    limits = effective_limits(line.limits, account.raised)
    cost = account.posted_nano_usd + account.unconfirmed_nano_usd
    if limits.cost_nano_usd is not None and cost > limits.cost_nano_usd:
        measure, used, allowed = Measure.COST, cost, limits.cost_nano_usd
    else:
        tokens = account.posted_tokens + account.unconfirmed_tokens
        if limits.tokens is None or tokens <= limits.tokens:
            return None
        measure, used, allowed = Measure.TOKENS, tokens, limits.tokens
    return Stop(
        reason=StopReason.BUDGET_EXCEEDED,
        at_ms=op.now_ms,
        measure=measure,
        scope=line.scope,
        used=used,
        allowed=allowed,
    )


def readings_of(op: Reserve | Settle, accounts: list[Account]) -> list[list[int]]:
    """Reads what the thresholds watch: per line, in their order."""
    if not op.charging.has_thresholds:
        return []
    return [
        [account.posted(point.measure) for point in line.thresholds]
        for line, account in zip(op.charging.lines, accounts, strict=True)
    ]


def crossings_of(
    op: Reserve | Settle, accounts: list[Account], before: list[list[int]]
) -> tuple[Crossing, ...]:
    """Returns the thresholds crossed since `before`, and marks them as told.

    One that was lowered below what is posted, or is new, has been crossed unseen: it is
    told now. Of a limit that a person raised, what lies below was told before.
    """
    if not before:
        return ()
    crossings: list[Crossing] = []
    for line, account, readings in zip(
        op.charging.lines, accounts, before, strict=True
    ):
        limits = effective_limits(line.limits, account.raised)
        for point, earlier in zip(line.thresholds, readings, strict=True):
            posted, limit = account.posted(point.measure), limits.of(point.measure)
            value = point.value
            if account.raised and point.ratio is not None and limit is not None:
                value = threshold_at(limit, point.ratio)
            is_crossed = value <= posted and (earlier < value or not account.raised)
            if is_crossed and point.label not in account.alerted:
                account.alerted = (*account.alerted, point.label)
                crossings.append(
                    Crossing(line=line, threshold=point, posted=posted, limit=limit)
                )
    return tuple(crossings)


def threshold_at(limit: int, ratio: Decimal) -> int:
    """Returns the amount at which a fraction of a limit is reached."""
    return math.ceil(EXACT.multiply(limit, ratio))


def effective_limits(limits: Limits, raised: Limits | None) -> Limits:
    """Returns the policy's limits, raised where a person raised them."""
    if raised is None:
        return limits

    def higher(limit: int | None, other: int | None) -> int | None:
        return limit if limit is None or other is None else max(limit, other)

    return _each(higher, limits, raised)


def merged_limits(earlier: Limits, later: Limits) -> Limits:
    """Returns what two raises come to; `None` means not raised."""

    def higher(one: int | None, other: int | None) -> int | None:
        return max((x for x in (one, other) if x is not None), default=None)

    return _each(higher, earlier, later)


def _each(
    combine: Callable[[int | None, int | None], int | None], one: Limits, other: Limits
) -> Limits:
    """Combines all limits there are: one left out here could never be raised."""
    combined = {
        name: combine(getattr(one, name), getattr(other, name)) for name in _NAMES
    }
    return Limits(**combined)
