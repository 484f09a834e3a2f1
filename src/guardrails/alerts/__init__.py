"""Alerts: tell people in Slack or by webhook what an agent is about to cost.

Read the package from the agent's side: the ledger keeps what people are to be told;
`sink` hears of it and wakes the `dispatcher`, whose thread has an `outlet` per
destination ask the store what is next; that has it written (`slack`, `webhook`, in the
words of `words`) and posted (`delivery`, to what `addresses` allows). What the store
cannot keep, that it is away or back, goes through a `channel` of this process instead.
Nothing here ever blocks or fails a call.

An alert exists once in the fleet, and is sent at least once, always under the same id:
what a process that is killed has not sent, or what a receiver does not take while a
guard is closed, is sent by another process that shares the store, or by the next one.

Anomalies, budgets that will not last and reports of days are told by `guardrails watch`
alone: while none runs, nobody hears of them.
"""

from guardrails.alerts.settings import AlertSettings, WebhookSettings
from guardrails.core.alerting.alerts import Alert
from guardrails.core.telling import AlertKind

__all__ = ["Alert", "AlertKind", "AlertSettings", "WebhookSettings"]
