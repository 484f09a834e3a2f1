"""Services: alerts as plain text, through apprise, to a receiver on this machine."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from apprise.apprise import get_shared_executor

from guardrails import ConfigurationError, Guard, SessionStopped
from guardrails.alerts.causes import Insight
from guardrails.alerts.digest import Digest
from guardrails.alerts.services import (
    digest_text,
    message_text,
    notify,
    service_name,
)
from guardrails.config import load_configuration
from guardrails.core.reporting.rollups import Spend
from guardrails.core.telling import AlertKind
from tests.alerts.conftest import NOW_MS, Receiver, an_alert, answering, content_of
from tests.servers.waiting import until

Start = Callable[..., Receiver]

TEXTS = Path(__file__).parent / "texts"


@pytest.fixture(autouse=True, scope="module")
def thread_of_apprise() -> None:
    """Starts the one that it keeps, so that no test has left it running."""
    get_shared_executor().submit(int).result()


def address_of(receiver: Receiver) -> str:
    return f"json://127.0.0.1:{receiver.port}/hunter2"


def test_a_stop_arrives_as_text(receive: Start) -> None:
    """Through the ledger and the dispatcher, like everywhere else."""
    receiver = receive()
    guard = Guard(
        {
            "alerts": {"apprise": address_of(receiver), "on": ["stop"]},
            "defaults": {"session": {"max_cost_usd": "0.01"}},
        },
        store="memory://",
    )
    with (
        pytest.raises(SessionStopped),
        guard.session("support-agent", customer_id="acme", session_id="ticket-7"),
    ):
        for _ in range(3):
            with guard.call(tool="refund", cost_usd="0.01"):
                pass

    until(lambda: len(receiver.requests) == 1, "an alert")
    guard.close()
    content = content_of(receiver.requests[0][1])
    assert content["title"].startswith("support-agent was stopped")
    assert "customer_id: acme" in content["message"]
    assert "refund: $0.01, 1 call" in content["message"]
    assert "guardrails budget raise --session=ticket-7" in content["message"]


def test_a_receiver_that_fails_is_asked_again(receive: Start) -> None:
    """What apprise does not deliver is not delivered."""
    receiver = receive(answering("500 Internal Server Error"))

    answer = notify(address_of(receiver), ("title", "body"))

    assert not answer.is_delivered
    assert not answer.is_final
    assert answer.text == "apprise could not send it"


@pytest.mark.parametrize("kind", AlertKind)
def test_each_kind_has_a_text(kind: AlertKind) -> None:
    causes = (Spend(name="maps/geocode", tool_nano_usd=10**7, tool_calls=2),)
    title, body = message_text(an_alert(kind), Insight(causes=causes))

    text = f"{title}\n{body}\n"
    file = TEXTS / f"{kind.value}.txt"
    assert text == file.read_text("utf-8"), text


def test_many_alerts_are_one_text() -> None:
    digest = Digest(
        digest_id="d",
        since_ms=NOW_MS,
        until_ms=NOW_MS,
        counts={AlertKind.STOP: 12, AlertKind.LOOP: 1},
        agents=(("support-agent", {AlertKind.STOP: 12}),),
        lost=2,
    )

    title, body = digest_text(digest)
    assert title == "13 alerts of guardrails"
    assert body.splitlines() == [
        "12 stops, 1 loop.",
        "support-agent: 12 stops",
        "2 earlier alerts could not be delivered.",
        "",
        *("guardrails costs", "guardrails budget show"),
        "",
        "since 2025-11-24 16:00 UTC",
    ]


def test_an_address_is_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """It is not in what is shown, nor in any message about it."""
    config = load_configuration(
        {"alerts": {"apprise": "json://user:hunter2@127.0.0.1:9/x"}},
        environ={},
        cwd=None,
        overrides={},
    )
    assert "hunter2" not in repr(config.alerts)
    assert "hunter2" not in "".join(config.alerts.places)
    assert service_name(config.alerts.services[0]) == "json://***"
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(
            {"alerts": {"apprise": "nonsense://hunter2"}},
            environ={},
            cwd=None,
            overrides={},
        )
    assert "apprise knows no such address" in str(caught.value)
    assert "hunter2" not in str(caught.value) + caplog.text


def test_the_environment_names_addresses() -> None:
    config = load_configuration(
        {},
        environ={"GUARDRAILS_APPRISE_URLS": "json://127.0.0.1:9/a xml://127.0.0.1:9/b"},
        cwd=None,
        overrides={},
    )
    assert [service_name(one) for one in config.alerts.services] == [
        "json://***",
        "xml://***",
    ]
    assert config.alerts.is_on


def test_without_apprise_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigurationError, match=r"guardrails-runtime\[apprise\]"):
        load_configuration(
            {"alerts": {"apprise": json.dumps("json://x")}},
            environ={},
            cwd=None,
            overrides={},
        )
