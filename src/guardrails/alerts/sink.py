"""Sink: makes alerts of what a guard tells, and hands them to the dispatcher."""

import json
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from guardrails.alerts.addresses import masked
from guardrails.alerts.causes import Insight, insight_of
from guardrails.alerts.channel import Channel, Send
from guardrails.alerts.digest import Digest
from guardrails.alerts.dispatcher import Dispatcher
from guardrails.alerts.outages import alert_of_outage
from guardrails.alerts.outlet import Asking, Outlet
from guardrails.alerts.services import service_name
from guardrails.alerts.settings import AlertSettings, WebhookSettings
from guardrails.core.accounts import Stop
from guardrails.core.alerting.alerts import Alert, alert_of_unpriced
from guardrails.core.alerting.deliveries import TellAlerts
from guardrails.core.alerting.unpriced import Unpriced
from guardrails.core.attribution import Attribution
from guardrails.core.events import Event
from guardrails.core.loops import LoopFinding
from guardrails.core.operations import Crossing
from guardrails.core.telling import AlertKind
from guardrails.errors import StoreUnavailable
from guardrails.ports import Clock, History

if TYPE_CHECKING:
    from guardrails.alerts.delivery import Answer, Delivery, Post

__all__ = ["AlertSink", "senders"]

INSIGHTS_MAX = 16
"""Remembered: of the few messages that are in flight."""

_JSON = {"content-type": "application/json"}


class AlertSink:
    """Has people told: it wakes the dispatcher, and nothing more.

    Args:
        settings: Where to, and about what.
        project_id: The project, for alerts about its store.
        ask: Applies operations to the store; called in the dispatcher's thread.
        history: Lends what the ledger knows; called there, too.
        clock: The time.
        is_shared: Whether other processes share the store.
        release: Closes the store again, if it was used after `close`.
        delivery: For tests: what posts, instead of the network.
    """

    def __init__(
        self,
        settings: AlertSettings,
        *,
        project_id: str,
        ask: Asking,
        history: Callable[[], History],
        clock: Clock,
        is_shared: bool,
        release: Callable[[], None] | None = None,
        delivery: "Delivery | None" = None,
    ) -> None:
        self._settings = settings
        self._project_id = project_id
        self._ask = ask
        self._clock = clock
        self._is_shared = is_shared
        self._history = history
        self._delivery = delivery
        self._channels: dict[str, Channel] = {}
        for place, name, send in self._senders(project_id):
            self._channels[place] = Channel(name=name, send=send, clock=clock)
        self.dispatcher: Dispatcher = Dispatcher(
            list(self._channels.values()),
            clock=clock,
            cooldown_ms=settings.cooldown_ms,
            outlets_of=self._outlets_of,
            keep=self._kept,
            polls=is_shared,
            release=release,
        )

    def settled(self, event: Event) -> None:
        """With the first call, begins to look for what other processes have left."""
        if self._is_shared and not self.dispatcher.is_running:
            self.dispatcher.wake(event.attribution.project_id)

    def crossed(self, crossing: Crossing, attribution: Attribution) -> None:  # noqa: ARG002
        """Has people told of a soft threshold; the ledger knows what."""
        self.dispatcher.wake(attribution.project_id)

    def stopped(self, stop: Stop, attribution: Attribution) -> None:  # noqa: ARG002
        """Has people told of a session that was stopped; the ledger knows what."""
        self.dispatcher.wake(attribution.project_id)

    def looped(self, finding: LoopFinding, attribution: Attribution) -> None:  # noqa: ARG002
        """Has people told of an agent that repeats itself; the ledger knows what."""
        self.dispatcher.wake(attribution.project_id)

    def observed(self, refused_by: str, attribution: Attribution) -> None:
        """Says nothing: nobody has to act, and reports say it."""

    def unpriced(self, unpriced: Unpriced, attribution: Attribution) -> None:
        """Has people told that the price of a model is not known."""
        if self._settings.includes(AlertKind.UNPRICED):
            now_ms = self._clock.now_ms()
            alert = alert_of_unpriced(unpriced, attribution, now_ms=now_ms)
            self.dispatcher.wake(alert.project_id)
            self.dispatcher.tell(alert)

    # The reason may name hosts and paths: it stays in the log, and in `doctor`.
    def degraded(self, reason: str, *, seconds: float | None) -> None:  # noqa: ARG002
        """Tells of a store that is away, or back; the ledger cannot."""
        if self._settings.includes(AlertKind.DEGRADED):
            now_ms = self._clock.now_ms()
            alert = alert_of_outage(self._project_id, seconds=seconds, now_ms=now_ms)
            self.dispatcher.tell(alert)

    def close(self) -> None:
        """Sends what waits, as far as two seconds allow."""
        self.dispatcher.close()

    def _kept(self, alert: Alert) -> bool:
        """Has the store keep an alert, unless it is about the store or that is away."""
        if alert.kind in (AlertKind.DEGRADED, AlertKind.RECOVERED):
            return False
        try:
            self._ask(
                TellAlerts(
                    project_id=alert.project_id,
                    alerts=(alert,),
                    places=tuple(self._settings.places),
                )
            )
        except StoreUnavailable:
            return False
        return True

    def _outlets_of(self, project_id: str) -> list[Outlet]:
        return [
            Outlet(
                place=place,
                channel=self._channels[place],
                send=send,
                ask=self._ask,
                project_id=project_id,
                owner=lambda: self.dispatcher.owner,
                clock=self._clock,
                cooldown_ms=self._settings.cooldown_ms,
            )
            for place, _, send in self._senders(project_id)
        ]

    def _senders(self, project_id: str) -> list[tuple[str, str, Send]]:
        """Returns the destinations: their names in the ledger, and masked."""
        found = senders(
            self._settings,
            project_id=project_id,
            history=self._history,
            clock=self._clock,
            delivery=self._delivery,
        )
        names = self._settings.places
        return [
            (place, name, send)
            for place, (name, send) in zip(names, found, strict=True)
        ]


def senders(
    settings: AlertSettings,
    *,
    project_id: str,
    history: Callable[[], History],
    clock: Clock,
    delivery: "Delivery | None" = None,
) -> list[tuple[str, Send]]:
    """Returns what sends to each destination, with its name, masked."""
    writing = _Writing(settings, project_id, history, clock, delivery)
    found: list[tuple[str, Send]] = []
    if settings.slack is not None:
        send = partial(writing.slack, settings.slack)
        found.append((masked(settings.slack), send))
    if settings.webhook is not None:
        send = partial(writing.webhook, settings.webhook)
        found.append((masked(settings.webhook.url), send))
    found += [
        (service_name(address), partial(writing.service, address))
        for address in settings.services
    ]
    return found


class _Writing:
    """Writes messages and posts them. What that takes is loaded with the first."""

    def __init__(
        self,
        settings: AlertSettings,
        project_id: str,
        history: Callable[[], History],
        clock: Clock,
        delivery: "Delivery | None",
    ) -> None:
        self._links = settings.links
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
            payload = slack_message(content, self._insight(content), self._links)
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
            payload = webhook_message(content, self._insight(content), self._links)
        body, headers = signed(payload, to.secrets, now_ms=self._clock.now_ms())
        post = Post(
            url=to.url,
            headers={**_JSON, **headers},
            body=body,
            allow_private=to.allow_private,
        )
        return self._post(post, within_ms)

    def service(
        self,
        address: str,
        content: Alert | Digest,
        within_ms: int,  # noqa: ARG002
    ) -> "Answer":
        """Sends plain text through apprise, which has deadlines of its own."""
        from guardrails.alerts.services import digest_text, message_text, notify

        if isinstance(content, Digest):
            return notify(address, digest_text(content))
        return notify(
            address, message_text(content, self._insight(content), self._links)
        )

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
