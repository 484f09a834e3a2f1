"""Webhook: an alert as signed JSON, by the rules of Standard Webhooks.

The body of an alert, version 1 of the schema. Keys may be added within a version;
none changes its meaning. What is not known is null, money is a decimal string:

    {"id": "…", "type": "budget.soft_limit_reached", "schema_version": 1,
     "created_at": "2026-11-22T14:03:20.000Z", "project_id": "shop", "sample": false,
     "links": [{"text": "Session", "url": "https://…/s-1"}],
     "data": {"customer_id": "acme", "user_id": "u-7", "feature": "triage",
       "agent": "support-agent", "agent_path": ["support-agent"],
       "session_id": "s-1", "agent_run_id": null, "prompt_version": "v12",
       "tags": {"env": "prod"}, "scope": "session", "limit": "max_cost_usd",
       "threshold": "max_cost_usd:0.8", "used": "0.80", "allowed": "1.00",
       "needed": null, "reason": null, "steps": 128,
       "loop": {"tool": "maps/geocode", "kind": "identical", "count": 3,
         "round": [], "cost_usd": "0.015"},
       "by": null, "until": null, "raised": null,
       "outage_s": null, "top": [{"name": "gpt-4o", "cost_usd": "0.58", "calls": 9}]}}

A stop by a person and a raised limit have `by`, a stop for a time has `until`, and a
raised limit has `raised`: the limits by name, as people have raised them so far.

What a watch tells has one of `anomaly`, `pace` and `daily`. A missing price has
`unpriced`: the model, its provider, and what becomes of its `calls`: `refuse`,
`worst_case` or `allow`.

`limit` is the configuration's name of a limit, and `used`, `allowed` and `needed` are
in its unit: USD and seconds as decimal strings, all else as numbers. Types are
`budget.soft_limit_reached`, `budget.exceeded` (a shared one; its calls are refused),
`session.stopped`, `scope.stopped` (a customer, an agent or everything, by a person),
`loop.detected`, `limit.raised`, `anomaly.detected`, `budget.pace`, `costs.daily`,
`price.missing`, `store.degraded`, `store.recovered`, `alert.test` and
`alerts.digest`; a digest's data has `counts` by kind, `lost`, `since` and `until`.

Headers: `webhook-id` is the id in the body and stays the same when a message is sent
again, `webhook-timestamp` is the time of that attempt, and `webhook-signature` has a
signature for each secret. See https://www.standardwebhooks.com.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal

from guardrails.alerts.causes import Insight
from guardrails.alerts.digest import Digest
from guardrails.alerts.links import Link, links_of
from guardrails.alerts.watch_content import time_text, watch_content
from guardrails.core.alerting.alerts import Alert
from guardrails.core.attribution import DIMENSIONS
from guardrails.core.decisions import amount
from guardrails.core.money import usd_digits
from guardrails.core.policy import Measure
from guardrails.core.telling import AlertKind

__all__ = ["checked_secret", "signed", "webhook_digest", "webhook_message"]

SCHEMA_VERSION = 1

SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64
"""Of a key: what Standard Webhooks asks for, in "Signature scheme"."""

_TYPES: Mapping[AlertKind, str] = {
    AlertKind.SOFT: "budget.soft_limit_reached",
    AlertKind.STOP: "session.stopped",
    AlertKind.LIMIT: "budget.exceeded",
    AlertKind.LOOP: "loop.detected",
    AlertKind.RAISED: "limit.raised",
    AlertKind.DEGRADED: "store.degraded",
    AlertKind.RECOVERED: "store.recovered",
    AlertKind.ANOMALY: "anomaly.detected",
    AlertKind.PACE: "budget.pace",
    AlertKind.DAILY: "costs.daily",
    AlertKind.UNPRICED: "price.missing",
    AlertKind.TEST: "alert.test",
}

_DIGEST_TYPE = "alerts.digest"


def checked_secret(text: str) -> str:
    """Returns a secret.

    Raises:
        ValueError: If it is none. The message does not repeat it.
    """
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ValueError(
            f"a secret is whsec_ and {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in "
            "base64. Make one: echo whsec_$(openssl rand -base64 32)"
        )
    return text


def webhook_message(
    alert: Alert, insight: Insight, links: Sequence[Link] = ()
) -> dict[str, object]:
    """Writes an alert as the content of its JSON."""
    return {
        "id": alert.alert_id,
        "type": _type(alert),
        "schema_version": SCHEMA_VERSION,
        "created_at": time_text(alert.time_ms),
        "project_id": alert.project_id,
        "sample": alert.is_sample,
        "links": [{"text": text, "url": url} for text, url in links_of(alert, links)],
        "data": _who(alert) | _what(alert, insight),
    }


def webhook_digest(digest: Digest, *, project_id: str) -> dict[str, object]:
    """Writes many alerts as the content of one JSON."""
    return {
        "id": digest.digest_id,
        "type": _DIGEST_TYPE,
        "schema_version": SCHEMA_VERSION,
        "created_at": time_text(digest.until_ms),
        "project_id": project_id,
        "sample": False,
        "data": {
            "counts": {kind.value: number for kind, number in digest.counts.items()},
            "lost": digest.lost,
            "since": time_text(digest.since_ms),
            "until": time_text(digest.until_ms),
        },
    }


def signed(
    content: Mapping[str, object], secrets: Sequence[str], *, now_ms: int
) -> tuple[bytes, dict[str, str]]:
    """Returns the body of a message and its headers.

    Args:
        content: Of the body; its id becomes that of the message.
        secrets: Each makes a signature.
        now_ms: The time of this attempt.
    """
    from standardwebhooks import Webhook

    body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    message_id, at = str(content["id"]), datetime.fromtimestamp(now_ms // 1000, tz=UTC)
    signatures = [Webhook(secret).sign(message_id, at, body) for secret in secrets]
    return body.encode(), {
        "webhook-id": message_id,
        "webhook-timestamp": str(now_ms // 1000),
        "webhook-signature": " ".join(signatures),
    }


def _type(alert: Alert) -> str:
    if alert.kind is AlertKind.STOP and not alert.is_session:
        return "scope.stopped"
    return _TYPES[alert.kind]


def _who(alert: Alert) -> dict[str, object]:
    who = alert.attribution
    names: dict[str, object] = {
        key: who.value(key) if who else None
        for key in DIMENSIONS
        if key != "project_id"
    }
    names["agent_path"] = list(who.agent_path) if who else []
    names["tags"] = dict(who.tags) if who else {}
    return names


def _what(alert: Alert, insight: Insight) -> dict[str, object]:
    finding = alert.finding
    loop = finding and {
        "tool": finding.tool,
        "kind": finding.kind.value,
        "count": finding.count,
        "round": list(finding.tools),
        "cost_usd": usd_digits(finding.cost_nano_usd),
    }
    return {
        "scope": alert.scope,
        "limit": alert.measure and alert.measure.value,
        "threshold": alert.threshold,
        "used": _amount(alert.measure, alert.used),
        "allowed": _amount(alert.measure, alert.limit),
        "needed": _amount(alert.measure, alert.needed),
        "reason": alert.reason and alert.reason.value,
        "steps": alert.steps if insight.steps is None else insight.steps,
        "loop": loop,
        "by": alert.by,
        "until": None if alert.until_ms is None else time_text(alert.until_ms),
        "raised": _raised(alert),
        "outage_s": None
        if alert.outage_ms is None
        else f"{alert.outage_ms / 1000:.3f}",
        "top": insight.texts(),
        **watch_content(alert),
        "unpriced": alert.unpriced and asdict(alert.unpriced),
    }


def _raised(alert: Alert) -> dict[str, object] | None:
    limits = alert.raised
    if limits is None:
        return None
    return {
        measure.value: _amount(measure, limits.of(measure))
        for measure in Measure
        if limits.of(measure) is not None
    }


def _amount(measure: Measure | None, value: int | None) -> str | int | None:
    if measure is None or value is None:
        return None
    if measure is Measure.COST:
        return usd_digits(value)
    converted = amount(measure, value)
    return f"{converted:f}" if isinstance(converted, Decimal) else converted
