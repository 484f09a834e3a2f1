"""Services: sends alerts as plain text through apprise, which knows a hundred of them.

Apprise opens connections of its own: none of what is checked for Slack and webhooks
applies to it. Whoever writes its addresses down decides whom to trust.
"""

import contextlib
import logging
from collections.abc import Generator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from guardrails.alerts.causes import Insight
from guardrails.alerts.digest import Digest
from guardrails.alerts.links import Link, links_of
from guardrails.alerts.words import commands, counted, headline, meaning, subject
from guardrails.core.alerting.alerts import Alert
from guardrails.core.decisions import format_count, format_time
from guardrails.core.money import format_usd

if TYPE_CHECKING:
    from apprise import Apprise

    from guardrails.alerts.delivery import Answer

__all__ = ["checked_service", "digest_text", "message_text", "notify", "service_name"]

NAME_CHARACTERS_MAX = 60
"""Of a title: a longer one hides what it says."""


def checked_service(address: str) -> str:
    """Returns an address of apprise.

    Raises:
        ValueError: If it is none, or apprise is not installed. The message does not
            repeat it: it holds secrets.
    """
    if not _opened(address):
        raise ValueError(
            "apprise knows no such address. Write one such as msteams://..., "
            "discord://..., pagerduty://... or mailto://..."
        )
    return address


def service_name(address: str) -> str:
    """Shows which service an address leads to, and nothing else of it."""
    return f"{address.partition('://')[0]}://***"


def message_text(
    alert: Alert, insight: Insight, links: Sequence[Link] = ()
) -> tuple[str, str]:
    """Returns the title and the body of an alert."""
    sample = "Sample: " if alert.is_sample else ""
    title = f"{sample}{headline(alert, who=subject(alert)[:NAME_CHARACTERS_MAX])}"
    finding = alert.finding
    tools = () if finding is None else finding.tools or (finding.tool,)
    lines = [meaning(alert, tool=" > ".join(tools)), ""]
    who = alert.attribution
    names = ("customer_id", "user_id", "feature", "session_id")
    lines += [f"{name}: {who.value(name)}" for name in names if who and who.value(name)]
    lines += [
        f"{spend.name}: {format_usd(spend.total_nano_usd)}, "
        f"{format_count(spend.steps, 'call')}"
        for spend in insight.causes
    ]
    lines += ["", *commands(alert), ""]
    lines += [f"{text}: {url}" for text, url in links_of(alert, links)]
    lines.append(f"project {alert.project_id}, {format_time(alert.time_ms)}")
    return title, "\n".join(lines)


def digest_text(digest: Digest) -> tuple[str, str]:
    """Returns the title and the body of many alerts."""
    title = f"{format_count(digest.total, 'alert')} of guardrails"
    lines = [f"{counted(digest.counts)}."] if digest.total else []
    lines += [f"{name}: {counted(counts)}" for name, counts in digest.agents]
    if digest.lost:
        lost = format_count(digest.lost, "earlier alert")
        lines.append(f"{lost} could not be delivered.")
    lines += ["", *digest.commands, "", f"since {format_time(digest.since_ms)}"]
    return title, "\n".join(lines)


def notify(address: str, text: tuple[str, str]) -> "Answer":
    """Sends a text to one address, in whatever time apprise gives it."""
    # Imported late: it brings httpcore2, and this file is read with a configuration.
    from guardrails.alerts.delivery import Answer

    title, body = text
    service = _opened(address)
    with _quiet():
        sent = service.notify(  # pyright: ignore[reportUnknownMemberType]
            body,
            title,
            body_format="text",  # Names are no markup, wherever they go.
        )
    if sent:
        return Answer(status=200)
    return Answer(text="apprise could not send it")


def _opened(address: str) -> "Apprise":
    """Returns apprise with an address; it counts as false if it knows none such."""
    try:
        # Imported late: only who has such an address has it installed.
        from apprise import Apprise, AppriseAsset
    except ImportError:
        raise ValueError(
            "apprise is not installed. Run: pip install 'guardrails-runtime[apprise]'"
        ) from None
    asset = AppriseAsset(app_id="guardrails", async_mode=False, secure_logging=True)
    service = Apprise(asset=asset)
    with _quiet():
        service.add(address)  # pyright: ignore[reportUnknownMemberType]
    return service


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keeps what apprise logs of our addresses to itself: it may repeat them."""
    log = logging.getLogger("apprise")
    if _unless_quiet not in log.filters:
        log.addFilter(_unless_quiet)
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)


_is_quiet: ContextVar[bool] = ContextVar("guardrails_quiet", default=False)


def _unless_quiet(record: logging.LogRecord) -> bool:  # noqa: ARG001
    return not _is_quiet.get()
