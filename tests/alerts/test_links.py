"""Links: they lead to the host that was written, with the names of the alert."""

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails import ConfigurationError, Guard
from guardrails.alerts.causes import Insight
from guardrails.alerts.links import Link, checked_template, links_of
from guardrails.alerts.services import message_text
from guardrails.alerts.slack import slack_message
from guardrails.alerts.webhook import webhook_message
from guardrails.config import load_configuration
from guardrails.config.problems import shown
from guardrails.core.attribution import DIMENSIONS, Attribution
from guardrails.core.telling import AlertKind
from tests.alerts.conftest import WHO, an_alert

SESSION = Link(
    text="Open session", template="https://traces.example.com/s/{session_id}#cost"
)
CUSTOMER = Link(
    text="Customer",
    template="https://board.example.com:8443/d?var-customer={customer_id}&p={project_id}",
)
LINKS = (SESSION, CUSTOMER)

LONG = "x" * 76

ALL_NAMES = f"{', '.join(DIMENSIONS)}."


def test_an_alert_has_the_links_whose_names_it_knows() -> None:
    both = links_of(an_alert(), LINKS)
    of_store = links_of(an_alert(AlertKind.DEGRADED), LINKS)

    assert both == (
        ("Open session", "https://traces.example.com/s/ticket-7#cost"),
        ("Customer", "https://board.example.com:8443/d?var-customer=acme&p=shop"),
    )
    assert of_store == ()


@given(name=st.text(min_size=1, max_size=200).filter(lambda text: text.strip(".")))
def test_a_name_stays_where_its_template_has_it(name: str) -> None:
    who = Attribution(project_id="shop", session_id=name, customer_id=name)
    filled = links_of(an_alert(attribution=who), LINKS)

    for (_, url), link in zip(filled, LINKS, strict=False):
        parts, template = urlsplit(url), urlsplit(link.template)
        assert parts.netloc == template.netloc
        assert parts.fragment == template.fragment
        assert parts.path.count("/") == template.path.count("/")
    if len(filled) == len(LINKS):
        (_, session), (_, customer) = filled
        assert unquote(urlsplit(session).path) == f"/s/{name}"
        query = parse_qs(urlsplit(customer).query, keep_blank_values=True)
        assert query == {"var-customer": [name], "p": ["shop"]}


@pytest.mark.parametrize("name", [".", "..", "x" * 3_000])
def test_a_name_that_leads_elsewhere_has_no_link(name: str) -> None:
    who = Attribution(project_id="shop", session_id=name)
    assert links_of(an_alert(attribution=who), (SESSION,)) == ()


def test_slack_shows_buttons() -> None:
    blocks: Any = slack_message(an_alert(), Insight(), LINKS)["blocks"]
    [actions] = [block for block in blocks if block["type"] == "actions"]
    assert [
        (button["text"]["text"], button["text"]["type"], button["url"])
        for button in actions["elements"]
    ] == [(text, "plain_text", url) for text, url in links_of(an_alert(), LINKS)]
    without: Any = slack_message(an_alert(AlertKind.DEGRADED), Insight(), LINKS)
    assert "actions" not in {block["type"] for block in without["blocks"]}


def test_other_receivers_get_them_too() -> None:
    content = webhook_message(an_alert(), Insight(), (SESSION,))
    _, text = message_text(an_alert(), Insight(), (SESSION,))

    url = "https://traces.example.com/s/ticket-7#cost"
    assert content["links"] == [{"text": "Open session", "url": url}]
    assert f"\nOpen session: {url}\n" in text


@pytest.mark.parametrize(
    "template",
    [
        "https://{customer_id}.example.com/",
        "https://example.com:{session_id}/",
        "https://{session_id}",
        "{session_id}",
        "javascript:alert({session_id})",
        "ftp://example.com/{session_id}",
        "https://example.com/{tool}",
        "https://example.com/{session_id",
        "https://example.com/{{session_id}}",
        "https://example.com/{session_id!r}",
        "https://example.com/{}",
        "https://user@example.com/{session_id}",
        "https://example.com/ {session_id}",
        "/s/{session_id}",
    ],
)
def test_what_is_no_template_is_refused(template: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each for a reason of its own
        checked_template(template)


def test_they_are_configured_by_their_texts() -> None:
    links = {link.text: link.template for link in LINKS}
    found = load_configuration(
        {"alerts": {"links": links}}, environ={}, cwd=None, overrides={}
    ).alerts
    assert found.links == LINKS


@pytest.mark.parametrize(
    ("links", "message"),
    [
        (
            {"Session": "https://example.com/{session}"},
            "alerts.links.Session: there is no {session}. Use one of " + ALL_NAMES,
        ),
        (
            {LONG: "https://example.com"},
            f"alerts.links.{shown(LONG)}: longer than 75 signs. Shorten it.",
        ),
        (
            {f"{number}": "https://example.com" for number in range(6)},
            "alerts.links: 6 links. Write at most 5.",
        ),
        (
            {"Session": 7},
            "alerts.links.Session: a value of type int is not a text. Quote it.",
        ),
    ],
)
def test_bad_links_are_refused(links: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Guard({"alerts": {"links": links}})
    assert str(caught.value) == message


def test_samples_have_them() -> None:
    """So `guardrails alerts test` shows whether they lead anywhere."""
    assert WHO.session_id
    assert links_of(an_alert(is_sample=True), LINKS)
