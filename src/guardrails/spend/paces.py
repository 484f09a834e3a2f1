"""Paces: reads which shared budgets will be gone before their windows end."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from guardrails.core.accounts import Account, Line
from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.watch_alerts import alert_of_pace
from guardrails.core.attribution import Attribution
from guardrails.core.limits import effective_limits
from guardrails.core.lines import shared_lines
from guardrails.core.operations import ReadAccount
from guardrails.core.policy import Budget, Measure, Policy
from guardrails.core.reporting.groups import SPEND_DIMENSIONS
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.ports import Store
from guardrails.reports.pace import PACE_HOURS, nano_usd_per_hour, pace_of

__all__ = ["read_paces"]


@dataclass(slots=True)
class _Kept:
    """A budget of one scope, and what was charged to it."""

    line: Line
    who: Attribution
    costs: dict[int, int] = field(default_factory=lambda: defaultdict[int, int](int))


def read_paces(
    store: Store, policy: Policy, *, project_id: str, excess_min: int, now_ms: int
) -> Iterator[Alert]:
    """Yields the alerts of budgets of a day or a month that will not last.

    Args:
        store: The ledger.
        policy: Its shared budgets with a limit of cost.
        project_id: The project.
        excess_min: Nano-USD that have to be above the limit by then.
        now_ms: The instant.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    for budget in policy.budgets:
        # What is kept per run has no sums of its own.
        if budget.every in PACE_HOURS and set(budget.per) <= set(SPEND_DIMENSIONS):
            for kept in _kept(store, budget, project_id, now_ms).values():
                alert = _alert(store, budget, kept, excess_min, now_ms)
                if alert is not None:
                    yield alert


def _kept(
    store: Store, budget: Budget, project_id: str, now_ms: int
) -> dict[str, _Kept]:
    """Returns the scopes of a budget to which anything was charged lately."""
    found: dict[str, _Kept] = {}
    spends = store.history.spend(
        project_id=project_id,
        by=budget.per,
        since_ms=now_ms - max(PACE_HOURS[budget.every]) * HOUR_MS,
        until_ms=now_ms,
        every="hour",
    )
    for spend in spends:
        names = dict(zip(budget.per, spend.names, strict=False))
        who = _who(names, project_id)
        for line in shared_lines((budget,), who, now_ms=now_ms):
            kept = found.setdefault(line.account, _Kept(line, who))
            kept.costs[(spend.since_ms or 0) // HOUR_MS] += spend.total_nano_usd
    return found


def _alert(
    store: Store, budget: Budget, kept: _Kept, excess_min: int, now_ms: int
) -> Alert | None:
    line, ends_at_ms = kept.line, kept.line.expires_at_ms
    assert ends_at_ms is not None
    rate = nano_usd_per_hour(kept.costs, window=budget.every, now_ms=now_ms)
    is_slow = rate * (ends_at_ms - now_ms) // HOUR_MS <= excess_min
    if line.limits.cost_nano_usd is None or is_slow:
        return None  # Most scopes of a large fleet are not read.
    account = store.execute(ReadAccount(account=line.account)) or Account(
        key=line.account
    )
    limit = effective_limits(line.limits, account.raised).cost_nano_usd
    if limit is None:
        return None
    used = account.used(Measure.COST)
    pace = pace_of(
        kept.costs,
        budget=budget.name,
        window=budget.every,
        used=used,
        limit=limit,
        excess_min=excess_min,
        now_ms=now_ms,
        ends_at_ms=ends_at_ms,
    )
    if pace is None:
        return None
    # Of all unknown names together the first one is not to blame.
    is_of_all = line.scope.startswith("unknown ")
    who = Attribution(project_id=kept.who.project_id) if is_of_all else kept.who
    return alert_of_pace(pace, line, who, used=used, limit=limit, now_ms=now_ms)


def _who(names: dict[str, str | None], project_id: str) -> Attribution:
    who = Attribution(
        project_id=project_id,
        customer_id=names.get("customer_id"),
        user_id=names.get("user_id"),
        feature=names.get("feature"),
        agent=names.get("agent"),
        session_id=names.get("session_id"),
        prompt_version=names.get("prompt_version"),
    )
    return who if who.agent is None else replace(who, agent_path=(who.agent,))
