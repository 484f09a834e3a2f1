"""Watching: looks for what people should know, and has the ledger tell it once.

A look reads sums and adds alerts to the outbox, under ids that follow from what they
are about. So it does not matter how many watch, or how often, or whether a clock is
set back: what is known is not told again while the outbox knows it, which is six days.
"""

from collections.abc import Iterator

from guardrails.alerts import Alert, AlertKind, AlertSettings
from guardrails.core.alerting.anomaly_rules import BASELINE_DAYS
from guardrails.core.alerting.daily import Daily, Shares
from guardrails.core.alerting.deliveries import TellAlerts
from guardrails.core.alerting.watch_alerts import alert_of_anomaly, alert_of_day
from guardrails.core.policy import Policy
from guardrails.core.reporting.rollups import HOUR_MS, Spend
from guardrails.core.windows import DAY_MS
from guardrails.ports import Store
from guardrails.reports import LOSSES_BY, Anomalies, Span, losses
from guardrails.spend.paces import read_paces
from guardrails.spend.unusual import read_anomalies

__all__ = ["Watch"]

OF_DAY_BEFORE_MS = HOUR_MS
"""How long the day before is looked at, too: what its last calls were is news."""

NAMES_MAX = 3
"""Of each dimension in a daily report; all are in `guardrails costs`."""

ANOMALIES_MAX = 20
"""Of one look, those about most money: more are one cause, or too low a floor."""


class Watch:
    """Looks at one project.

    Args:
        store: Its ledger.
        policy: Its shared budgets.
        settings: From when on something is unusual, who is told, and of what.
        project_id: The project.
    """

    def __init__(
        self, store: Store, *, policy: Policy, settings: AlertSettings, project_id: str
    ) -> None:
        self._store = store
        self._policy = policy
        self._settings = settings
        self._project_id = project_id
        self._told_day_ms: int | None = None

    def look(self, now_ms: int) -> list[Alert]:
        """Adds what is new to the outbox, and returns it.

        Raises:
            StoreUnavailable: If the store does not answer.
        """
        # What began yesterday and goes on is found on both days, under one id.
        found: dict[str, Alert] = {}
        for alert in self._found(now_ms):
            found.setdefault(alert.alert_id, alert)
        alerts = tuple(found.values())
        new = self._store.execute(
            TellAlerts(
                project_id=self._project_id,
                alerts=alerts,
                places=tuple(self._settings.places),
            )
        )
        self._told_day_ms = now_ms // DAY_MS * DAY_MS
        return [alert for alert in alerts if alert.alert_id in new]

    def _found(self, now_ms: int) -> Iterator[Alert]:
        midnight_ms = now_ms // DAY_MS * DAY_MS
        if self._settings.includes(AlertKind.ANOMALY):
            ends = [now_ms]
            if now_ms - midnight_ms < OF_DAY_BEFORE_MS:
                ends.insert(0, midnight_ms - 1)
            for end_ms in ends:
                for one in self._anomalies(end_ms).found[:ANOMALIES_MAX]:
                    yield alert_of_anomaly(one, self._project_id, now_ms=now_ms)
        if self._settings.includes(AlertKind.PACE):
            yield from read_paces(
                self._store,
                self._policy,
                project_id=self._project_id,
                excess_min=self._settings.anomaly.excess_nano_usd_min,
                now_ms=now_ms,
            )
        has_news = self._told_day_ms != midnight_ms
        if has_news and self._settings.includes(AlertKind.DAILY):
            daily = self._day(midnight_ms - DAY_MS)
            if daily.cost_nano_usd:
                yield alert_of_day(daily, self._project_id, now_ms=now_ms)

    def _anomalies(self, end_ms: int) -> Anomalies:
        """Looks at a day up to an instant."""
        return read_anomalies(
            self._store.history,
            project_id=self._project_id,
            span=Span(hours=end_ms % DAY_MS // HOUR_MS, until_ms=end_ms),
            rules=self._settings.anomaly,
            days_before=2 * BASELINE_DAYS,
        )

    def _day(self, day_ms: int) -> Daily:
        """Sums up a day that is over."""
        found = self._spend(day_ms, *LOSSES_BY)
        lost = losses(found)
        sessions = {spend.names[-1] for spend in found} - {None}
        return Daily(
            day_ms=day_ms,
            cost_nano_usd=_cost(found),
            before_nano_usd=_cost(self._spend(day_ms - DAY_MS, "project_id")),
            sessions=len(sessions),
            wasted_nano_usd=lost.wasted_nano_usd,
            anomalies=len(self._anomalies(day_ms + DAY_MS - 1).found),
            customers=_shares(self._spend(day_ms, "customer_id")),
            agents=_shares(self._spend(day_ms, "agent")),
            tools=_shares(self._spend(day_ms, "tool")),
        )

    def _spend(self, day_ms: int, *by: str) -> list[Spend]:
        found = self._store.history.spend(
            project_id=self._project_id,
            by=by,
            since_ms=day_ms,
            until_ms=day_ms + DAY_MS - 1,
        )
        return list(found)


def _cost(spends: list[Spend]) -> int:
    return sum(spend.total_nano_usd for spend in spends)


def _shares(spends: list[Spend]) -> Shares:
    costly = [spend for spend in spends if spend.total_nano_usd]
    return tuple((spend.name, spend.total_nano_usd) for spend in costly[:NAMES_MAX])
