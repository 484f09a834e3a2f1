"""Lines: which accounts a call is charged to, and with which limits.

A call is charged to its session and to those around it, to the parts of them that have
limits of their own (an agent inside the session's agent, a tool), and to every shared
budget that it falls under. All admit it, or none does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from urllib.parse import quote

from guardrails.core.accounts import (
    Account,
    Charging,
    Line,
    Stop,
    StopReason,
    Threshold,
)
from guardrails.core.attribution import Attribution
from guardrails.core.limits import effective_limits, threshold_at
from guardrails.core.policy import Budget, BudgetAction, Limits, Measure, Policy
from guardrails.core.windows import DAY_MS, Window, window_end_ms, window_name

__all__ = [
    "account_key",
    "call_lines",
    "closing_charging",
    "joined",
    "part_key",
    "session_line",
    "shared_lines",
]

CLOSING_RETENTION_MS = 31 * DAY_MS
"""How long it is known that a session was closed. Longer than threads rest."""

PART_RETENTION_MS = 100 * DAY_MS
"""How long a part of a session is counted: longer than sessions are taken up again."""


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
    if account.stop is not None and not _may_close(limits, account, account.stop):
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


def _may_close(limits: Limits, account: Account, stop: Stop) -> bool:
    """Whether a session that was stopped may still be closed: a limit did it.

    Not one on steps that are used up: no closing call fits into that any more.
    """
    if stop.reason is not StopReason.BUDGET_EXCEEDED:
        return False
    for measure in (Measure.STEPS, Measure.MODEL_CALLS):
        limit = limits.of(measure)
        if limit is not None and account.posted(measure) >= limit:
            return False
    return True


def _left(limits: Limits, account: Account, measure: Measure) -> int | None:
    limit = limits.of(measure)
    return None if limit is None else max(0, limit - account.used(measure))


def call_lines(
    policy: Policy,
    sessions: Sequence[tuple[Budget, Attribution]],
    who: Attribution,
    *,
    tool: str | None = None,
    now_ms: int,
) -> tuple[Line, ...]:
    """Returns everything that a call is charged to.

    Args:
        policy: What is in force.
        sessions: The call's session and those around it, innermost first: the budget
            of each, and whose it is.
        who: Whom the call is charged to.
        tool: The tool of the call, as `server/tool`; `None` for a model's.
        now_ms: The instant of the call.
    """
    lines = [session_line(*sessions[0])]
    for budget, around in sessions[1:]:
        scope = f"session {around.session_id}"
        lines.append(replace(session_line(budget, around), scope=scope))
    limit = None if tool is None else policy.tool_limit(tool)
    path = who.agent_path
    for session, (_, owner) in zip(lines.copy(), sessions, strict=True):
        for agent in dict.fromkeys(path):
            nested = policy.agent_budget(agent)
            if nested is not None and agent not in owner.agent_path:
                part = (owner.session_id or "", "agent", agent)
                lines += _part_lines(nested, session, part, now_ms=now_ms)
        if limit is not None:
            part = (owner.session_id or "", "tool", limit.name)
            lines += _part_lines(limit, session, part, now_ms=now_ms)
        # The agent of a session has the session's budget there, and none around it.
        path = owner.agent_path[: None if owner.agent is None else -1]
    return (*lines, *shared_lines(policy.budgets, who, now_ms=now_ms))


def joined(own: Charging, other: Charging, *, session_id: str) -> Charging:
    """Returns whom a call is charged to that two sessions pay for, each account once.

    Args:
        own: The call's, as its own session is charged.
        other: What another session would be charged for it.
        session_id: That session.
    """
    known = set(own.accounts)
    added = [line for line in other.lines if line.account not in known]
    # Each line has a name of its own, for people and for stops.
    added = [
        replace(line, scope=line.scope.replace("session", f"session {session_id}", 1))
        if line.scope.partition(",")[0] == "session"
        else line
        for line in added
    ]
    lines = sorted((*own.lines, *added), key=lambda line: not line.is_session)
    return replace(own, lines=tuple(lines))


def part_key(session: str, kind: str, name: str) -> str:
    """Returns the key of the account of a part of a session.

    Args:
        session: The key of the session's account.
        kind: `agent` or `tool`.
        name: The agent, or the pattern of the tool's rule.
    """
    return f"{session}/of_{kind}={quote(name, safe='')}"


def _part_lines(
    budget: Budget, session: Line, part: tuple[str, str, str], *, now_ms: int
) -> Iterator[Line]:
    """Yields the line of a part of a session, if anything limits it.

    Only sessions keep wall time.
    """
    _, kind, name = part
    limits = replace(budget.limits, wall_time_ms=None)
    if not limits.is_empty:
        yield Line(
            account=part_key(session.account, kind, name),
            scope=f"{session.scope},{kind}={name}",
            limits=limits,
            thresholds=_thresholds(replace(budget, limits=limits)),
            part=part,
            expires_at_ms=now_ms + PART_RETENTION_MS,
            on_store_error=budget.on_store_error,
        )


def shared_lines(
    budgets: tuple[Budget, ...], attribution: Attribution, *, now_ms: int
) -> tuple[Line, ...]:
    """Returns the lines of shared budgets, in their order.

    One per budget; two where a name that the budget does not know is limited, and all
    such names together.
    """
    return tuple(
        line
        for budget in budgets
        for line in _shared_lines(budget, attribution, now_ms)
    )


def _shared_lines(budget: Budget, who: Attribution, now_ms: int) -> Iterator[Line]:
    key = account_key(who, per=budget.per, every=budget.every, now_ms=now_ms)
    known = budget.known_as(who.value(budget.per[0])) if budget.per else None
    line = Line(
        account=key,
        scope=_scope(budget, who),
        limits=(known or budget).limits,
        thresholds=_thresholds(known or budget),
        is_binding=budget.action is BudgetAction.STOP,
        expires_at_ms=window_end_ms(budget.every, now_ms=now_ms),
        on_store_error=budget.on_store_error,
    )
    yield line
    if budget.unknown is not None and known is None:
        # No name contains a "~" there: it would follow a "=".
        everybody = account_key(
            Attribution(project_id=who.project_id),
            per=(),
            every=budget.every,
            now_ms=now_ms,
        )
        yield replace(
            line,
            account=f"{everybody}/{budget.per[0]}~unknown",
            scope=f"unknown {budget.per[0]}",
            limits=budget.unknown.limits,
            thresholds=_thresholds(budget.unknown),
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
                    value=threshold_at(limit, ratio),
                    ratio=ratio,
                    label=f"{measure.value}:{ratio}",
                )
                for ratio in alerts.ratios
            ]
    return tuple(points)
