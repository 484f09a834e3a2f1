"""Reading: makes reports of what a history has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from guardrails.core.accounts import Account
from guardrails.core.alerting.anomaly_rules import AnomalyRules
from guardrails.core.calls import CallKind
from guardrails.core.limits import effective_limits
from guardrails.core.lines import session_line
from guardrails.core.policy import Policy
from guardrails.core.reporting.groups import OF_KINDS, Every
from guardrails.core.reporting.rollups import LAYER, Spend
from guardrails.ports import History
from guardrails.reports import (
    LOSSES_BY,
    SESSION_ORDERS,
    SESSION_STATES,
    Anomalies,
    CostReport,
    Losses,
    Series,
    SessionList,
    Span,
    Top,
    UnitReport,
    losses,
    midnight_ms,
    report_by,
    report_sessions,
    report_top,
    report_units,
    series_of,
    sessions,
    unpriced_names,
)
from guardrails.spend.asking import check_layers_alone, check_one_of
from guardrails.spend.unusual import read_anomalies

__all__ = [
    "Asked",
    "read_costs",
    "read_series",
    "read_sessions",
    "read_spend",
    "read_top",
    "read_units",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a report is asked for.

    Raises:
        ConfigurationError: If it is by layer and something else.
    """

    project_id: str
    by: tuple[str, ...] = ()
    span: Span
    limit: int = 0
    """Rows to show; 0 shows all."""
    where: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """Patterns by dimension: in each, one has to match."""
    every: Every | None = None

    def __post_init__(self) -> None:
        check_layers_alone(self.by, self.where, self.every)

    @property
    def joined(self) -> str:
        """The dimensions, as reports have them."""
        return ",".join(self.by)

    def spend(
        self, history: History, *by: str, span: Span | None = None
    ) -> Sequence[Spend]:
        """Reads what was spent, without steps."""
        span = span or self.span
        return history.spend(
            project_id=self.project_id,
            by=by,
            since_ms=span.since_ms,
            until_ms=span.until_ms,
            where=self.where,
        )

    def steps(self, history: History, *by: str) -> Sequence[Spend]:
        """Reads what was spent, step by step."""
        return history.spend(
            project_id=self.project_id,
            by=by,
            since_ms=self.span.since_ms,
            until_ms=self.span.until_ms,
            where=self.where,
            every=self.every,
        )

    def anomalies(self, history: History, rules: AnomalyRules) -> Anomalies:
        """Reads what is unusual."""
        return read_anomalies(
            history,
            project_id=self.project_id,
            span=self.span,
            rules=rules,
            where=self.where,
        )

    def losses(self, history: History) -> Losses:
        """Reads which part of what the report is of was spent in vain."""
        of_calls = {*self.by} & {*OF_KINDS, LAYER}
        by = sorted("model" if name == LAYER else name for name in of_calls)
        return losses(self.spend(history, *LOSSES_BY, *by))

    def unpriced(self, history: History, total: Spend) -> list[str]:
        """Names the models and tools of the report that had no price."""
        if not total.unpriced_calls and LAYER not in self.by:
            return []
        kinds = {OF_KINDS.get(name) for name in self.by} - {None}
        if LAYER in self.by:
            kinds = {CallKind.MODEL}
        names = [
            self.spend(history, kind.value)
            for kind in (CallKind.MODEL, CallKind.TOOL)
            if not kinds or kind in kinds
        ]
        return unpriced_names(*names)


def read_costs(history: History, asked: Asked, *, compares: bool = False) -> CostReport:
    """Reads where the money went.

    Args:
        history: What a store knows.
        asked: By at least one dimension.
        compares: Whether the span before is read as well.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    if asked.by == ("session_id",) and not compares:
        spends = asked.spend(history, *asked.by)
        report = report_sessions(
            spends,
            _accounts(history, asked, spends),
            project_id=asked.project_id,
            span=asked.span,
            limit=asked.limit,
        )
    else:
        report = read_spend(history, asked, compares=compares)
    return replace(
        report,
        losses=asked.losses(history),
        unpriced=asked.unpriced(history, report.total),
        where=asked.where,
    )


def read_spend(history: History, asked: Asked, *, compares: bool = False) -> CostReport:
    """Reads what was spent, without looking for causes and missing prices.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    before = None
    if compares:
        before = asked.spend(history, *asked.by, span=asked.span.before)
    return report_by(
        asked.spend(history, *asked.by),
        project_id=asked.project_id,
        by=asked.joined,
        span=asked.span,
        limit=asked.limit,
        before=before,
    )


def read_series(history: History, asked: Asked) -> Series:
    """Reads what was spent step by step.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    assert asked.every is not None
    series = series_of(
        asked.steps(history, *asked.by),
        project_id=asked.project_id,
        by=asked.joined or None,
        every=asked.every,
        span=asked.span,
        limit=asked.limit,
    )
    unpriced = asked.unpriced(history, series.total)
    return replace(series, unpriced=unpriced, where=asked.where)


def read_units(history: History, asked: Asked) -> UnitReport:
    """Reads what a session costs, by at least one dimension.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    report = report_units(
        asked.steps(history, *asked.by, "session_id"),
        project_id=asked.project_id,
        by=asked.joined,
        every=asked.every,
        span=asked.span,
        limit=asked.limit,
    )
    unpriced = asked.unpriced(history, report.total.spend)
    return replace(report, unpriced=unpriced, where=asked.where)


def read_sessions(
    history: History,
    asked: Asked,
    policy: Policy,
    *,
    sort: str = "cost",
    state: str | None = None,
) -> SessionList:
    """Reads the sessions that made a call.

    Args:
        history: What a store knows.
        asked: Its dimensions have no meaning here.
        policy: Says what each may spend, if nobody raised that.
        sort: One of `SESSION_ORDERS`.
        state: One of `SESSION_STATES`; `None` reads all.

    Raises:
        ConfigurationError: If there is no such order or state.
        StoreUnavailable: If the store cannot be read.
    """
    check_one_of(sort, SESSION_ORDERS, key="sort")
    if state is not None:
        check_one_of(state, SESSION_STATES, key="status")

    def limit_of(account: Account) -> int | None:
        if account.session is None:
            return None
        who = account.session.attribution
        line = session_line(policy.session_budget(who.agent), who)
        return effective_limits(line.limits, account.raised).cost_nano_usd

    spends = asked.spend(history, "session_id")
    found = sessions(
        spends,
        _accounts(history, asked, spends),
        project_id=asked.project_id,
        span=asked.span,
        limit=asked.limit,
        limit_of=limit_of,
        sort=sort,
        state=state,
    )
    return replace(found, where=asked.where)


def read_top(
    history: History,
    policy: Policy,
    *,
    project_id: str,
    where: Mapping[str, Sequence[str]],
    now_ms: int,
) -> Top:
    """Reads what is being spent now.

    A session is known from its first call that has ended; one whose only call of the
    last hour still runs is not seen.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    hours = history.spend(
        project_id=project_id,
        by=(),
        since_ms=midnight_ms(now_ms),
        until_ms=now_ms,
        where=where,
        every="hour",
    )
    last_hour = Span(hours=1, until_ms=now_ms)
    asked = Asked(project_id=project_id, span=last_hour, where=where)
    running = read_sessions(history, asked, policy, state="active")
    return report_top(hours, running, now_ms=now_ms)


def _accounts(
    history: History, asked: Asked, spends: Sequence[Spend]
) -> Sequence[Account]:
    names = [spend.name for spend in spends if spend.name]
    return history.session_accounts(project_id=asked.project_id, session_ids=names)
