"""Sink: makes alerts of what a guard tells, and hands them to the dispatcher."""

import json
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from guardrails.alerts.addresses import masked
from guardrails.alerts.alert import (
    Alert,
    AlertKind,
    alert_of_crossing,
    alert_of_loop,
    alert_of_outage,
    alert_of_stop,
)
from guardrails.alerts.causes import Insight, insight_of
from guardrails.alerts.channel import Channel, Send
from guardrails.alerts.digest import Digest
from guardrails.alerts.dispatcher import Dispatcher
from guardrails.alerts.settings import AlertSettings, WebhookSettings
from guardrails.core.accounts import Stop
from guardrails.core.attribution import Attribution
from guardrails.core.events import Event
from guardrails.core.loops import LoopFinding
from guardrails.core.operations import Crossing
from guardrails.ports import Clock, History

if TYPE_CHECKING:
    from guardrails.alerts.delivery import Answer, Delivery, Post

__all__ = ["AlertSink", "senders"]

INSIGHTS_MAX = 16
"""Remembered: of the few messages that are in flight."""

_JSON = {"content-type": "application/json"}


class AlertSink:
    """Tells people. What it is told, it queues, and nothing more.

    Args:
        settings: Where to, and about what.
        project_id: The project, for alerts about its store.
        history: Lends what the ledger knows; called in the dispatcher's thread.
        clock: The time.
        loops_stop: Whether a loop ends its session: the stop says so then.
        delivery: For tests: what posts, instead of the network.
    """

    def __init__(
        self,
        settings: AlertSettings,
        *,
        project_id: str,
        history: Callable[[], History],
        clock: Clock,
        loops_stop: bool,
        delivery: "Delivery | None" = None,
    ) -> None:
        self._settings = settings
        self._project_id = project_id
        self._clock = clock
        self._loops_are_stops = loops_stop and settings.includes(AlertKind.STOP)
        found = senders(
            settings,
            project_id=project_id,
            history=history,
            clock=clock,
            delivery=delivery,
        )
        self.dispatcher: Dispatcher = Dispatcher(
            [Channel(name=name, send=send, clock=clock) for name, send in found],
            clock=clock,
            cooldown_ms=settings.cooldown_ms,
        )

    def settled(self, event: Event) -> None:
        """Says nothing: a settled call is in the store."""

    def crossed(self, crossing: Crossing, attribution: Attribution) -> None:
        """Tells of a soft threshold that was crossed."""
        if self._settings.includes(AlertKind.SOFT):
            now_ms = self._clock.now_ms()
            alert = alert_of_crossing(crossing, attribution, now_ms=now_ms)
            self.dispatcher.tell(alert)

    def stopped(self, stop: Stop, attribution: Attribution) -> None:
        """Tells of a session that was stopped."""
        if self._settings.includes(AlertKind.STOP):
            self.dispatcher.tell(alert_of_stop(stop, attribution))

    def looped(self, finding: LoopFinding, attribution: Attribution) -> None:
        """Tells of an agent that repeats itself."""
        if self._settings.includes(AlertKind.LOOP) and not self._loops_are_stops:
            now_ms = self._clock.now_ms()
            alert = alert_of_loop(finding, attribution, now_ms=now_ms)
            self.dispatcher.tell(alert)

    # The reason may name hosts and paths: it stays in the log, and in `doctor`.
    def observed(self, refused_by: str, attribution: Attribution) -> None:
        """Says nothing: nobody has to act, and reports say it."""

    def degraded(self, reason: str, *, seconds: float | None) -> None:  # noqa: ARG002
        """Tells of a store that is away, or back."""
        if self._settings.includes(AlertKind.DEGRADED):
            now_ms = self._clock.now_ms()
            alert = alert_of_outage(self._project_id, seconds=seconds, now_ms=now_ms)
            self.dispatcher.tell(alert)

    def close(self) -> None:
        """Sends what waits, as far as two seconds allow."""
        self.dispatcher.close()


def senders(
    settings: AlertSettings,
    *,
    project_id: str,
    history: Callable[[], History],
    clock: Clock,
    delivery: "Delivery | None" = None,
) -> list[tuple[str, Send]]:
    """Returns what sends to each destination, with its name, masked."""
    writing = _Writing(project_id, history, clock, delivery)
    found: list[tuple[str, Send]] = []
    if settings.slack is not None:
        send = partial(writing.slack, settings.slack)
        found.append((masked(settings.slack), send))
    if settings.webhook is not None:
        send = partial(writing.webhook, settings.webhook)
        found.append((masked(settings.webhook.url), send))
    return found


class _Writing:
    """Writes messages and posts them. What that takes is loaded with the first."""

    def __init__(
        self,
        project_id: str,
        history: Callable[[], History],
        clock: Clock,
        delivery: "Delivery | None",
    ) -> None:
        self._project_id = project_id
        self._history = history
        self._clock = clock
        self._delivery = delivery
        # A message that is sent again says the same.
        self._insight = lru_cache(maxsize=INSIGHTS_MAX)(self._read)

    def slack(self, url: str, content: Alert | Digest, within_ms: int) -> "Answer":
        """Sends a message to an incoming webhook of Slack."""
        from guardrails.alerts.delivery import Post
        from guardrails.alerts.slack import slack_digest, slack_message

        if isinstance(content, Digest):
            payload = slack_digest(content)
        else:
            payload = slack_message(content, self._insight(content))
        body = json.dumps(payload, ensure_ascii=False).encode()
        post = Post(url=url, headers=_JSON, body=body)
        return self._post(post, within_ms)

    def webhook(
        self, to: WebhookSettings, content: Alert | Digest, within_ms: int
    ) -> "Answer":
        """Sends signed JSON."""
        from guardrails.alerts.delivery import Post
        from guardrails.alerts.webhook import signed, webhook_digest, webhook_message

        if isinstance(content, Digest):
            payload = webhook_digest(content, project_id=self._project_id)
        else:
            payload = webhook_message(content, self._insight(content))
        body, headers = signed(payload, to.secrets, now_ms=self._clock.now_ms())
        post = Post(
            url=to.url,
            headers={**_JSON, **headers},
            body=body,
            allow_private=to.allow_private,
        )
        return self._post(post, within_ms)

    def _post(self, post: "Post", within_ms: int) -> "Answer":
        if self._delivery is None:
            from guardrails.alerts.delivery import Delivery

            self._delivery = Delivery(clock=self._clock)
        return self._delivery.post(post, within_ms=within_ms)

    def _read(self, alert: Alert) -> Insight:
        try:
            return insight_of(alert, self._history())
        except Exception:  # Without a store the alert goes out all the same.
            return Insight(steps=alert.steps)
