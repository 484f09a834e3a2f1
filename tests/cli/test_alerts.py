"""`guardrails alerts`: samples that arrive, and what has become of alerts."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rich.cells import cell_len

from guardrails import Guard
from guardrails.alerts import AlertKind, AlertSettings, WebhookSettings
from guardrails.cli.alerts import tries
from guardrails.core.alerting.deliveries import (
    ClaimAlerts,
    DeliveryState,
    NoteAlerts,
    ReadAlerts,
)
from guardrails.core.operations import StopScope
from guardrails.core.stops import StopKind, StopTarget
from guardrails.stores.sqlite import SQLiteStore
from guardrails.testing import FakeClock
from guardrails.testing.conformance import NOW_MS, PLACES, TELLING
from tests.alerts.conftest import (
    SECRET,
    Receiver,
    answering,
    content_of,
    pace_ms,
    receive,
)
from tests.cli.conftest import Run

__all__ = ["pace_ms", "receive"]

pytestmark = pytest.mark.usefixtures("pace_ms")

Start = Callable[..., Receiver]


def configure(folder: Path, receiver: Receiver) -> None:
    webhook = {
        "url": receiver.url(),
        "secret": SECRET,
        "allow_http": True,
        "allow_private": True,
    }
    content = json.dumps({"alerts": {"webhook": webhook}})
    (folder / "guardrails.yaml").write_text(content, encoding="utf-8")


def test_a_sample_arrives_and_its_answer_is_shown(
    command: Run, folder: Path, receive: Start
) -> None:
    receiver = receive()
    configure(folder, receiver)

    done = command("alerts", "test", "--kind", "limit")

    assert (done.code, done.err) == (0, "")
    where = f"http://127.0.0.1:{receiver.port}/***"
    assert done.out == f"ok    limit      {where}  200 ok\n"
    [(_, body)] = receiver.requests
    content = content_of(body)
    assert (content["type"], content["sample"]) == ("budget.exceeded", True)
    assert content["data"]["agent"] == "sample-agent"
    assert [path.name for path in folder.iterdir()] == ["guardrails.yaml"]


def test_each_kind_is_tried_at_the_pace_that_slack_allows(receive: Start) -> None:
    receiver = receive()
    webhook = WebhookSettings(url=receiver.url(), secrets=(SECRET,), allow_private=True)
    clock = FakeClock()
    found = tries(
        AlertSettings(webhook=webhook), tuple(AlertKind), project_id="p", clock=clock
    )
    assert {tried.kind for tried in found if tried.is_delivered} == {*AlertKind}
    contents = [content_of(body) for _, body in receiver.requests]
    assert clock.monotonic_ms() == (len(contents) - 1) * 1_000
    assert all(content["sample"] for content in contents)
    assert len({content["id"] for content in contents}) == len(contents)
    assert "killed" in [content["data"]["reason"] for content in contents]


def test_what_does_not_arrive_fails(command: Run, folder: Path, receive: Start) -> None:
    receiver = receive(answering("404 Not Found", body=b"no_service"))
    configure(folder, receiver)

    done = command("alerts", "test", "--kind", "test", "--json")

    assert (done.code, done.err) == (1, "")
    assert json.loads(done.out) == {
        "schema_version": 1,
        "sent": [
            {
                "kind": "test",
                "to": f"http://127.0.0.1:{receiver.port}/***",
                "status": 404,
                "text": "no_service",
                "delivered": False,
            }
        ],
    }


@pytest.mark.parametrize("option", [(), ("--json",), ("--kind", "soft")])
def test_it_says_that_nothing_is_configured(
    command: Run, folder: Path, option: tuple[str, ...]
) -> None:
    done = command("alerts", "test", *option)
    assert (done.code, done.out) == (2, "")
    assert "GUARDRAILS_SLACK_WEBHOOK_URL" in done.err


def test_a_secret_is_not_shown(command: Run, folder: Path, receive: Start) -> None:
    receiver = receive()
    configure(folder, receiver)
    receiver.close()
    done = command("alerts", "test", "--kind", "soft")
    assert done.code == 1
    assert "no connection (ConnectError)" in done.out
    assert "hunter2" not in done.out + done.err


# --- log and retry ----------------------------------------------------------


@pytest.fixture
def ledger(folder: Path) -> Iterator[SQLiteStore]:
    """A ledger in which a person has stopped two agents; one alert was given up."""
    store = SQLiteStore(folder / "ledger.sqlite3")
    for number, name in enumerate(("résumé \u202eagent", "other")):
        target = StopTarget(kind=StopKind.AGENT, name=name)
        store.execute(
            StopScope(
                project_id="default",
                target=target,
                now_ms=NOW_MS + number,
                telling=TELLING,
            )
        )
    claim = ClaimAlerts(
        project_id="default",
        place=PLACES[0],
        owner="a",
        now_ms=NOW_MS + 1,
        until_ms=NOW_MS + 2,
        singles_max=5,
    )
    claimed = store.execute(claim)
    store.execute(
        NoteAlerts(
            project_id="default",
            place=PLACES[0],
            label="hooks.slack.com/services/***",
            owner="a",
            alert_ids=(claimed.alerts[0].alert_id,),
            now_ms=NOW_MS + 2,
            state=DeliveryState.DEAD,
            due_ms=NOW_MS + 60_000,
            cooldown_ms=0,
            status=404,
            text="no_service",
        )
    )
    yield store
    store.close()


URL = "sqlite:///ledger.sqlite3"


def test_the_log_shows_what_has_become_of_each_alert(
    command: Run, ledger: SQLiteStore
) -> None:
    done = command("alerts", "log", "--store", URL)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert len(lines) == 5, "a row per alert and place"
    assert "given up" in lines[3]
    assert "404 no_se" in lines[3]
    assert "\u202e" not in done.out


def test_the_log_is_json_too(command: Run, ledger: SQLiteStore) -> None:
    done = command("alerts", "log", "--json", "--store", URL)
    content = json.loads(done.out)
    assert (done.code, content["schema_version"]) == (0, 1)
    older = content["alerts"][1]
    assert older["headline"].endswith("was stopped: by a person")
    assert older["deliveries"][0] == {
        "place": "slack-1",
        "to": "hooks.slack.com/services/***",
        "state": "dead",
        "message_id": older["id"],
        "attempts": 1,
        "time": "2025-11-24T16:00:00+00:00",
        "status": 404,
        "text": "no_service",
        "next": None,
    }


def test_an_alert_is_retried_by_the_start_of_its_id(
    command: Run, ledger: SQLiteStore
) -> None:
    newer, older = ledger.execute(ReadAlerts(project_id="default", limit=9))
    done = command("alerts", "retry", older.alert.alert_id[:10], "--store", URL)
    assert (done.code, done.out) == (0, "Deliveries that are tried again: 2\n")
    _, again = ledger.execute(ReadAlerts(project_id="default", limit=9))
    assert again.deliveries[0].state is DeliveryState.WAITING
    done = command("alerts", "retry", "--all", "--store", URL)
    assert done.out == "Deliveries that are tried again: 4\n"
    assert newer.alert.alert_id != older.alert.alert_id


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "or pass --all"),
        (("abcdef", "--all"), "not both"),
        (("abc",), "'abc' is too short"),
        (("zzzzzz",), "'zzzzzz' is no alert"),
    ],
)
def test_a_retry_says_what_it_does_not_understand(
    command: Run, ledger: SQLiteStore, arguments: tuple[str, ...], text: str
) -> None:
    done = command("alerts", "retry", *arguments, "--store", URL)
    assert (done.code, done.out) == (2, "")
    assert text in done.err


def test_without_alerts_the_log_says_so(command: Run, folder: Path) -> None:
    done = command("alerts", "log", "--store", URL)
    assert (done.code, done.out) == (0, "No alerts in the last days.\n")


def test_what_a_command_orders_is_told_before_it_ends(
    command: Run, folder: Path, receive: Start
) -> None:
    """No other process is there to tell it."""
    receiver = receive()
    configure(folder, receiver)
    config = ("--store", URL)
    session = ("--session", "ticket-7", "--reason", "r", "--by", "ann")
    with (
        closing(Guard({}, store=URL)) as guard,
        guard.session("a", session_id="ticket-7"),
        guard.call(tool="t", cost_usd="0.01"),
    ):
        pass

    raised = command("budget", "raise", *session, "--max-cost-usd", "2", *config)
    stopped = command("stop", *session, *config)
    listed = command("stops", *config)

    assert [raised.code, stopped.code, listed.code] == [0, 0, 0]
    told = [content_of(body) for _, body in receiver.requests]
    assert [one["type"] for one in told] == ["limit.raised", "session.stopped"]
    assert {one["data"]["by"] for one in told} == {"ann"}


def test_a_receiver_that_hangs_holds_no_order_up(
    command: Run, folder: Path, receive: Start
) -> None:
    """It is in the ledger by then, and said; the alert is sent by whoever is next."""
    let_go = threading.Event()
    receiver = receive(lambda connection: let_go.wait(20))
    configure(folder, receiver)

    done = command("stop", "--all", "--reason", "r", "--store", URL)
    let_go.set()

    assert (done.code, done.out.startswith("everything is stopped")) == (0, True)
    log = json.loads(command("alerts", "log", "--json", "--store", URL).out)
    [alert] = log["alerts"]
    assert alert["deliveries"][0]["state"] in ("waiting", "sending")


def test_a_retry_sends_from_here(command: Run, folder: Path, receive: Start) -> None:
    answers = iter(["404 Not Found"])
    receiver = receive(
        lambda connection: answering(next(answers, "200 OK"))(connection)
    )
    configure(folder, receiver)
    assert command("stop", "--all", "--reason", "r", "--store", URL).code == 0
    assert len(receiver.requests) == 1

    done = command("alerts", "retry", "--all", "--store", URL)

    assert done.out == "Deliveries that are tried again: 1\n"
    assert len(receiver.requests) == 2
    log = json.loads(command("alerts", "log", "--json", "--store", URL).out)
    assert log["alerts"][0]["deliveries"][0]["state"] == "delivered"
