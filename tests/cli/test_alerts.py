"""`guardrails alerts test`: samples that arrive, and answers that are shown."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guardrails.alerts import AlertKind, AlertSettings, WebhookSettings
from guardrails.cli.alerts import tries
from guardrails.testing import FakeClock
from tests.alerts.conftest import (
    SECRET,
    Receiver,
    answering,
    content_of,
    receive,
)
from tests.cli.conftest import Run

__all__ = ["receive"]

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
