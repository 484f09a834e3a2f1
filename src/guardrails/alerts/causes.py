"""Causes: what a session spent its money on, read where no call waits for it."""

from dataclasses import dataclass

from guardrails.core.alerting.alerts import Alert
from guardrails.core.money import usd_digits
from guardrails.core.reporting.rollups import Spend, ranked
from guardrails.ports import History

__all__ = ["Insight", "insight_of"]

CAUSES_MAX = 3
"""More are for a report."""

EVENTS_MAX = 1_000
"""Calls that are looked at for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Insight:
    """What the ledger knows beside an alert."""

    causes: tuple[Spend, ...] = ()
    """What the session spent most on, by model and tool, most expensive first."""
    steps: int | None = None
    """Steps of the session so far."""

    def texts(self) -> list[dict[str, object]]:
        """Returns the causes as a program reads them."""
        return [
            {
                "name": spend.name,
                "cost_usd": usd_digits(spend.total_nano_usd),
                "calls": spend.steps,
            }
            for spend in self.causes
        ]


def insight_of(alert: Alert, history: History) -> Insight:
    """Reads what the ledger knows about the session of an alert.

    Raises:
        StoreUnavailable: If the store cannot be read.
    """
    who = alert.attribution
    if who is None or who.session_id is None or alert.is_sample:
        return Insight(steps=alert.steps)
    project_id, session_id = who.project_id, who.session_id
    accounts = history.session_accounts(
        project_id=project_id, session_ids=(session_id,)
    )
    events = history.events(
        project_id=project_id, session_id=session_id, limit=EVENTS_MAX
    )
    costly = (spend for spend in ranked(events) if spend.total_nano_usd)
    steps = accounts[0].steps if accounts else alert.steps
    return Insight(
        causes=tuple(
            spend for spend, _ in zip(costly, range(CAUSES_MAX), strict=False)
        ),
        steps=steps,
    )
