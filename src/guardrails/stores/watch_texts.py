"""Texts of what the scripts never tell, as JSON: a part of the text of an alert."""

import json
from dataclasses import asdict
from typing import Any, TypedDict

from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.anomalies import Anomaly, AnomalyKind, Severity, Unit
from guardrails.core.alerting.daily import Daily
from guardrails.core.alerting.pace import Pace
from guardrails.core.alerting.unpriced import Unpriced
from guardrails.core.policy import OnUnpriced
from guardrails.core.windows import Window

__all__ = ["WatchedFields", "watched_from", "watched_text"]


class WatchedFields(TypedDict, total=False):
    """The fields of an alert that are read from the text."""

    anomaly: Anomaly
    pace: Pace
    daily: Daily
    unpriced: Unpriced


def watched_text(alert: Alert) -> str:
    """Writes the one record that an alert has; empty if it has none."""
    for name in ("anomaly", "pace", "daily", "unpriced"):
        record: Anomaly | Pace | Daily | Unpriced | None = getattr(alert, name)
        if record is not None:
            content = {name: asdict(record)}
            # Without control characters: these part an alert's text.
            return json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return ""


def watched_from(text: str) -> WatchedFields:
    """Reads it as a field of an alert."""
    [(name, values)] = json.loads(text).items()
    if name == "anomaly":
        return {"anomaly": _anomaly(values)}
    if name == "pace":
        values["window"] = Window(values["window"])
        return {"pace": Pace(**values)}
    if name == "unpriced":
        values["calls"] = OnUnpriced(values["calls"])
        return {"unpriced": Unpriced(**values)}
    return {"daily": _daily(values)}


def _anomaly(values: dict[str, Any]) -> Anomaly:
    kinds: dict[str, Any] = {
        "kind": AnomalyKind(values["kind"]),
        "unit": Unit(values["unit"]),
        "severity": Severity(values["severity"]),
    }
    return Anomaly(**(values | kinds))


def _daily(values: dict[str, Any]) -> Daily:
    shares: dict[str, Any] = {
        key: tuple((name, cost) for name, cost in values[key])
        for key in ("customers", "agents", "tools")
    }
    return Daily(**(values | shares))
