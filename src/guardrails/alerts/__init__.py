"""Alerts: tell people in Slack or by webhook what an agent is about to cost.

Read the package from the agent's side: `sink` takes what happens and appends it to
the queue of the `dispatcher`, whose thread hands it to a `channel` per destination;
that has it written (`slack`, `webhook`, in the words of `words`) and posted
(`delivery`, to what `addresses` allows). Nothing here ever blocks or fails a call.

An alert is sent at most once: the ledger tells exactly one process of each crossing
and stop, and that process keeps it in memory until it is delivered. What a process
that is killed has not sent is lost, and so is what cannot be sent within two seconds
when a guard is closed; the ledger and the log have it all the same.
"""

from guardrails.alerts.alert import Alert, AlertKind
from guardrails.alerts.settings import AlertSettings, WebhookSettings

__all__ = ["Alert", "AlertKind", "AlertSettings", "WebhookSettings"]
