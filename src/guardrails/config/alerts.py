"""Alerts: where they go and about what, from a file and from the environment.

A URL is a secret, and so is a key that signs: no message repeats one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from guardrails.alerts import AlertKind, AlertSettings, WebhookSettings
from guardrails.alerts.addresses import checked_slack_url, checked_url
from guardrails.alerts.links import (
    LINKS_MAX,
    TEXT_CHARACTERS_MAX,
    Link,
    checked_template,
)
from guardrails.alerts.services import checked_service
from guardrails.alerts.settings import COOLDOWN_MS, KINDS
from guardrails.alerts.webhook import checked_secret
from guardrails.config.nodes import Entry, Keys, Scalar
from guardrails.config.problems import Problems
from guardrails.config.section import Context, Section
from guardrails.config.values import (
    Reader,
    amount_nano_usd,
    flag,
    one_of,
    seconds_ms,
    times,
)
from guardrails.core.alerting.anomaly_rules import AnomalyRules
from guardrails.core.windows import DAY_MS

__all__ = ["WrittenAlerts", "alert_settings", "read_alerts"]

SERVICES_MAX = 8
"""Addresses of apprise; more is a list for apprise's own server."""

SECRETS_MAX = 4
"""Each signs every message; during a rotation there are two."""

COOLDOWN_MS_MAX = DAY_MS
"""A day. Whoever wants to hear of something less often does not want to hear of it."""

_VARIABLES: Mapping[str, str] = {
    "slack": "GUARDRAILS_SLACK_WEBHOOK_URL",
    "webhook.url": "GUARDRAILS_WEBHOOK_URL",
    "webhook.secret": "GUARDRAILS_WEBHOOK_SECRET",
    "apprise": "GUARDRAILS_APPRISE_URLS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenAlerts:
    """What one source has written. `None` stands for "not written here"."""

    slack: str | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)
    secrets: tuple[str, ...] | None = field(default=(), repr=False)
    """`None` if what is written is no secret."""
    allow_http: bool = False
    allow_private: bool = False
    services: tuple[str, ...] | None = field(default=None, repr=False)
    links: tuple[Link, ...] = ()
    on: tuple[AlertKind, ...] | None = None
    cooldown_ms: int | None = None
    anomaly: AnomalyRules = field(default_factory=AnomalyRules)


def read_alerts(section: Section) -> WrittenAlerts:
    """Reads the section of a file."""
    webhook, anomaly = section.section("webhook"), section.section("anomaly")
    allow_http = webhook.read("allow_http", flag) or False
    allow_private = webhook.read("allow_private", flag) or False
    kinds = section.read_each("on", _kind)
    url = _url(allow_http=allow_http, allow_private=allow_private)
    secrets = webhook.read("secret", _secrets, is_secret=True)
    written = WrittenAlerts(
        slack=section.read("slack", _slack, is_secret=True),
        url=webhook.read("url", url, is_secret=True),
        secrets=secrets if webhook.has("secret") else (),
        allow_http=allow_http,
        allow_private=allow_private,
        services=section.read("apprise", _services, is_secret=True),
        links=_links(section.section("links")),
        on=None if kinds is None else tuple(dict.fromkeys(map(AlertKind, kinds))),
        cooldown_ms=section.read("cooldown_s", _cooldown_ms),
        anomaly=_anomaly_rules(anomaly),
    )
    webhook.close()
    anomaly.close()
    section.close()
    return written


def alert_settings(
    file: WrittenAlerts, *, environ: Mapping[str, str], problems: Problems
) -> tuple[AlertSettings, dict[str, str]]:
    """Lays the environment over a file.

    Returns:
        The settings, and the variable that each comes from, by the path of its key.
    """
    set_here = {key: name for key, name in _VARIABLES.items() if environ.get(name, "")}
    entries = {
        key: Entry(node=Scalar(value=environ[name]), label=name)
        for key, name in set_here.items()
    }
    section = Section(Keys(entries=entries), Context(problems=problems, variables=None))
    url = _url(allow_http=file.allow_http, allow_private=file.allow_private)
    slack = section.read("slack", _slack, is_secret=True) or file.slack
    to = section.read("webhook.url", url, is_secret=True) or file.url
    secrets = section.read("webhook.secret", _secrets, is_secret=True) or file.secrets
    if to and secrets == () and "webhook.secret" not in set_here:
        problems.add(
            "alerts.webhook.secret: missing, so that receivers could not tell our "
            "messages from others. Make one: echo whsec_$(openssl rand -base64 32)"
        )
    settings = AlertSettings(
        slack=slack or None,
        webhook=WebhookSettings(
            url=to, secrets=secrets, allow_private=file.allow_private
        )
        if to and secrets
        else None,
        services=section.read("apprise", _services, is_secret=True)
        or file.services
        or (),
        links=file.links,
        on=KINDS if file.on is None else file.on,
        cooldown_ms=COOLDOWN_MS if file.cooldown_ms is None else file.cooldown_ms,
        anomaly=file.anomaly,
    )
    return settings, {f"alerts.{key}": name for key, name in set_here.items()}


def _anomaly_rules(section: Section) -> AnomalyRules:
    rules = AnomalyRules()
    customer = section.read("customer_vs_14d_median", times)
    session = section.read("session_vs_median", times)
    least = section.read("min_usd", amount_nano_usd)
    return replace(
        rules,
        customer_times=rules.customer_times if customer is None else customer,
        session_times=rules.session_times if session is None else session,
        excess_nano_usd_min=rules.excess_nano_usd_min if least is None else least,
    )


def _links(section: Section) -> tuple[Link, ...]:
    links: list[Link] = []
    for key, name in section.names():
        template = section.read(key, _template)
        if len(name) > TEXT_CHARACTERS_MAX:
            section.report(f"longer than {TEXT_CHARACTERS_MAX} signs. Shorten it.", key)
        elif template:
            links.append(Link(text=name, template=template))
    if len(links) > LINKS_MAX:
        section.report(f"{len(links)} links. Write at most {LINKS_MAX}.")
    section.close()
    return tuple(links)


def _template(value: object, /, *, name: str) -> str:
    return _checked(value, name=name, check=checked_template)


def _kind(value: object, /, *, name: str) -> str:
    return one_of(*(kind.value for kind in KINDS))(value, name=name)


def _slack(value: object, /, *, name: str) -> str:
    return _checked(value, name=name, check=checked_slack_url)


def _url(*, allow_http: bool, allow_private: bool) -> Reader[str]:
    def check(text: str) -> str:
        return checked_url(text, allow_http=allow_http, allow_private=allow_private)

    def read(value: object, /, *, name: str) -> str:
        return _checked(value, name=name, check=check)

    return read


def _secrets(value: object, /, *, name: str) -> tuple[str, ...]:
    """Reads secrets parted by commas; an empty text has none."""
    text = _checked(value, name=name, check=str)
    secrets = tuple(part.strip() for part in text.split(",")) if text else ()
    if len(secrets) > SECRETS_MAX:
        raise ValueError(
            f"{name}: {len(secrets)} secrets. Write at most {SECRETS_MAX}."
        )
    try:
        return tuple(map(checked_secret, secrets))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _services(value: object, /, *, name: str) -> tuple[str, ...]:
    """Reads addresses parted by spaces."""
    addresses = tuple(_checked(value, name=name, check=str).split())
    if len(addresses) > SERVICES_MAX:
        raise ValueError(
            f"{name}: {len(addresses)} addresses. Write at most {SERVICES_MAX}."
        )
    try:
        return tuple(map(checked_service, addresses))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _checked(value: object, *, name: str, check: Callable[[str], str]) -> str:
    """Reads a secret text. An empty one counts as not written, as from `${NAME:-}`."""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise ValueError(f"{name}: a value of type {kind} is not a text. Quote it.")
    text = value.strip()
    try:
        return check(text) if text else ""
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _cooldown_ms(value: object, /, *, name: str) -> int:
    cooldown_ms = seconds_ms(value, name=name)
    if cooldown_ms > COOLDOWN_MS_MAX:
        raise ValueError(
            f"{name}: more than {COOLDOWN_MS_MAX // 1000} seconds, a day. Write less, "
            "or leave the kind out of alerts.on."
        )
    return cooldown_ms
