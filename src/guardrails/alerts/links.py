"""Links: pages of the user's own that an alert leads to, such as a dashboard's.

A template is a URL with names in braces, `https://traces.example.com/s/{session_id}`.
An alert offers those of which it knows all names. These come from outside: they are
escaped, and stand only behind the host.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from guardrails.alerts.addresses import checked_url
from guardrails.core.alerting.alerts import Alert
from guardrails.core.attribution import DIMENSIONS

__all__ = [
    "LINKS_MAX",
    "TEXT_CHARACTERS_MAX",
    "Link",
    "checked_template",
    "links_of",
]

LINKS_MAX = 5
"""What Slack shows in one row."""

TEXT_CHARACTERS_MAX = 75
"""What Slack takes on a button."""

URL_CHARACTERS_MAX = 3_000
"""What Slack takes behind a button."""

_NAME = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A page, and what leads there."""

    text: str
    """On the button."""
    template: str


def checked_template(text: str) -> str:
    """Returns the template of a URL.

    Raises:
        ValueError: If it is none, or has a name that alerts do not have.
    """
    for name in _NAME.findall(text):
        if name not in DIMENSIONS:
            raise ValueError(
                f"there is no {{{name}}}. Use one of {', '.join(DIMENSIONS)}."
            )
    # No host has this in it: so no name stands there.
    example = _NAME.sub("%20", text).replace("#", "", 1)
    checked_url(example, allow_http=True, allow_private=True)
    return text


def links_of(alert: Alert, links: Sequence[Link]) -> tuple[tuple[str, str], ...]:
    """Returns the links that an alert offers, each as its text and its URL."""
    return tuple(_filled(alert, links))


def _filled(alert: Alert, links: Sequence[Link]) -> Iterator[tuple[str, str]]:
    who = alert.attribution
    names = {name: who and who.value(name) for name in DIMENSIONS}
    names["project_id"] = alert.project_id
    for link in links:
        values = [names[name] for name in _NAME.findall(link.template)]
        # A name of dots would lead to another page of the host.
        if any(value is None or not value.strip(".") for value in values):
            continue
        url = _NAME.sub(
            lambda found: quote(names[found[1]] or "", safe=""), link.template
        )
        if len(url) <= URL_CHARACTERS_MAX:
            yield link.text, url
