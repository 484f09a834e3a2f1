"""Webhook: JSON that a receiver can trust, and read in years."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from guardrails.alerts.causes import Insight
from guardrails.alerts.digest import Tally
from guardrails.alerts.webhook import (
    checked_secret,
    signed,
    webhook_digest,
    webhook_message,
)
from guardrails.core.accounts import StopReason
from guardrails.core.attribution import Attribution
from guardrails.core.policy import Measure
from guardrails.core.reporting.rollups import Spend
from guardrails.core.telling import AlertKind
from tests.alerts.conftest import NOW_MS, OLD_SECRET, SECRET, an_alert

GOLDEN = Path(__file__).parent / "golden_webhook"
"""As those of Slack: see `test_slack.py`."""

CAUSES = (Spend(name="gpt-4o", model_nano_usd=580_000_000, model_calls=9),)


def test_the_body_is_the_documented_one() -> None:
    content = webhook_message(an_alert(), Insight(causes=CAUSES, steps=128))

    assert json.loads(json.dumps(content)) == {
        "id": "soft-1",
        "type": "budget.soft_limit_reached",
        "schema_version": 1,
        "created_at": "2025-11-24T16:00:00.000Z",
        "project_id": "shop",
        "sample": False,
        "links": [],
        "data": {
            "customer_id": "acme",
            "user_id": "u-7",
            "feature": "triage",
            "agent": "support-agent",
            "agent_path": ["support-agent"],
            "session_id": "ticket-7",
            "agent_run_id": None,
            "prompt_version": "v12",
            "tags": {"env": "prod"},
            "scope": "session",
            "limit": "max_cost_usd",
            "threshold": "max_cost_usd:0.8",
            "used": "0.8",
            "allowed": "1",
            "needed": None,
            "reason": None,
            "steps": 128,
            "loop": None,
            "by": None,
            "until": None,
            "raised": None,
            "outage_s": None,
            "top": [{"name": "gpt-4o", "cost_usd": "0.58", "calls": 9}],
            "anomaly": None,
            "pace": None,
            "daily": None,
            "unpriced": None,
        },
    }


BODIES = {
    **{kind.value: an_alert(kind) for kind in AlertKind},
    "stop_customer": an_alert(
        AlertKind.STOP,
        attribution=Attribution(project_id="shop", customer_id="acme"),
        scope="customer acme",
        is_session=False,
        reason=StopReason.KILLED,
        by="ann",
        until_ms=NOW_MS + 3_600_000,
        measure=None,
        used=None,
        limit=None,
        needed=None,
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_what_it_was(name: str) -> None:
    content = webhook_message(BODIES[name], Insight(causes=CAUSES, steps=128))
    path = GOLDEN / f"{name}.json"
    if os.environ.get("REWRITE_GOLDEN"):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8")
    assert content == json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", AlertKind)
def test_every_kind_has_the_same_keys(kind: AlertKind) -> None:
    content: Any = webhook_message(an_alert(kind), Insight())
    other: Any = webhook_message(an_alert(), Insight())
    assert content.keys() == other.keys()
    assert content["data"].keys() == other["data"].keys()


def test_a_loop_has_no_digest_of_arguments() -> None:
    content: Any = webhook_message(an_alert(AlertKind.LOOP), Insight())
    assert content["type"] == "loop.detected"
    assert content["data"]["loop"] == {
        "tool": "maps/geocode",
        "kind": "identical",
        "count": 3,
        "round": [],
        "cost_usd": "0.015",
    }


def test_amounts_are_in_the_unit_of_their_limit() -> None:
    def used(measure: Measure) -> object:
        alert = an_alert(AlertKind.STOP, measure=measure, used=1_500, limit=1_000)
        content: Any = webhook_message(alert, Insight())
        return content["data"]["used"]

    assert used(Measure.COST) == "0.0000015"
    assert used(Measure.WALL_TIME) == "1.500"
    assert used(Measure.STEPS) == 1_500


def test_a_digest_has_exact_counts() -> None:
    tally = Tally()
    for index in range(1_200):
        tally.add(an_alert(time_ms=NOW_MS + index))
    content = webhook_digest(tally.digest(lost=2, now_ms=0), project_id="shop")
    assert content["type"] == "alerts.digest"
    assert content["data"] == {
        "counts": {"soft": 1_200},
        "lost": 2,
        "since": "2025-11-24T16:00:00.000Z",
        "until": "2025-11-24T16:00:01.199Z",
    }


# --- signatures -------------------------------------------------------------


def sent(*secrets: str) -> tuple[bytes, dict[str, str]]:
    content = webhook_message(an_alert(), Insight())
    return signed(content, secrets, now_ms=int(time.strftime("%s")) * 1000)


@pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
def test_a_receiver_may_know_the_old_or_the_new_secret(secret: str) -> None:
    body, headers = sent(SECRET, OLD_SECRET)
    assert Webhook(secret).verify(body, headers)["id"] == headers["webhook-id"]


def test_somebody_else_s_secret_verifies_nothing() -> None:
    body, headers = sent(SECRET)
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD_SECRET).verify(body, headers)


def test_no_byte_can_be_changed() -> None:
    body, headers = sent(SECRET)
    for index in range(0, len(body), 7):
        changed = bytearray(body)
        changed[index] ^= 1
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(bytes(changed), headers, json_parse=False)
    for name, value in {"webhook-id": "other", "webhook-timestamp": "1"}.items():
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body, headers | {name: value})


@pytest.mark.parametrize(
    "text",
    ["hunter2", "whsec_", "whsec_aHVudGVyMg==", "whsec_" + "A" * 200, "whsec_*" * 10],
)
def test_what_is_no_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="base64") as caught:
        checked_secret(text)
    assert "hunter2" not in str(caught.value)
    assert text not in str(caught.value) or text == "whsec_"
