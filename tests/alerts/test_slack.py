"""Slack: one layout per kind, and names that are names whatever is in them.

`golden/` has the payload of each kind. To write them anew after looking at them, in
Slack's Block Kit Builder: REWRITE_GOLDEN=1 make test ARGS="tests/alerts".
"""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from slack_sdk.models.blocks import Block

from guardrails.alerts.causes import Insight
from guardrails.alerts.digest import Digest, Tally
from guardrails.alerts.slack import slack_digest, slack_message
from guardrails.core.accounts import StopReason
from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.unpriced import Unpriced
from guardrails.core.alerting.watch_alerts import alert_of_anomaly
from guardrails.core.attribution import Attribution
from guardrails.core.loops import LoopKind
from guardrails.core.policy import Measure, OnUnpriced
from guardrails.core.reporting.rollups import Spend
from guardrails.core.telling import AlertKind
from tests.alerts.conftest import FINDING, NOW_MS, an_alert
from tests.cli.reports import OUTLIER as AN_OUTLIER

GOLDEN = Path(__file__).parent / "golden"

INSIGHT = Insight(
    causes=(
        Spend(name="maps/geocode", tool_nano_usd=580_000_000, tool_calls=116),
        Spend(name="gpt-4o", model_nano_usd=190_000_000, model_calls=9),
        Spend(name="db/query", tool_nano_usd=30_000_000, tool_calls=1),
    ),
    steps=128,
)


CYCLE = replace(
    FINDING, kind=LoopKind.CYCLE, tools=("db/query", "maps/geocode"), count=4
)


def a_digest() -> Digest:
    tally = Tally()
    for index in range(1_200):
        tally.add(an_alert(alert_id=str(index), time_ms=NOW_MS + index))
    tally.add(an_alert(AlertKind.STOP))
    return tally.digest(lost=2, now_ms=NOW_MS)


def stop(reason: StopReason, **changes: Any) -> Alert:
    content: dict[str, Any] = {"measure": None, "used": None, "limit": None}
    return an_alert(AlertKind.STOP, reason=reason, needed=None, **(content | changes))


CUSTOMER = stop(
    StopReason.KILLED,
    attribution=Attribution(project_id="shop", customer_id="acme"),
    scope="customer acme",
    is_session=False,
    by="ann",
    until_ms=NOW_MS + 3_600_000,
)
EVERYTHING = replace(
    CUSTOMER,
    attribution=Attribution(project_id="shop"),
    scope="everything",
    until_ms=None,
)

OUTLIER = alert_of_anomaly(AN_OUTLIER, "shop", now_ms=NOW_MS)

PAYLOADS = {
    "soft": slack_message(an_alert(), INSIGHT),
    "soft_shared": slack_message(
        an_alert(scope="customer_id=acme", is_session=False), Insight()
    ),
    "soft_without_limit": slack_message(an_alert(limit=None), Insight()),
    "stop": slack_message(an_alert(AlertKind.STOP), INSIGHT),
    "stop_time": slack_message(
        an_alert(
            AlertKind.STOP,
            measure=Measure.WALL_TIME,
            used=120_500,
            limit=120_000,
            needed=None,
        ),
        Insight(),
    ),
    "stop_loop": slack_message(
        stop(StopReason.LOOP_DETECTED, finding=FINDING), INSIGHT
    ),
    "stop_killed": slack_message(stop(StopReason.KILLED, by="ann"), Insight()),
    "stop_customer": slack_message(CUSTOMER, Insight()),
    "stop_everything": slack_message(EVERYTHING, Insight()),
    "limit": slack_message(an_alert(AlertKind.LIMIT), INSIGHT),
    "raised": slack_message(an_alert(AlertKind.RAISED), Insight(steps=128)),
    "loop": slack_message(an_alert(AlertKind.LOOP), INSIGHT),
    "loop_cycle": slack_message(an_alert(AlertKind.LOOP, finding=CYCLE), INSIGHT),
    "degraded": slack_message(an_alert(AlertKind.DEGRADED), Insight()),
    "recovered": slack_message(an_alert(AlertKind.RECOVERED), Insight()),
    "anomaly": slack_message(an_alert(AlertKind.ANOMALY), Insight()),
    "anomaly_session": slack_message(OUTLIER, INSIGHT),
    "pace": slack_message(an_alert(AlertKind.PACE), Insight()),
    "daily": slack_message(an_alert(AlertKind.DAILY), Insight()),
    "unpriced": slack_message(an_alert(AlertKind.UNPRICED), INSIGHT),
    "unpriced_made": slack_message(
        an_alert(
            AlertKind.UNPRICED,
            unpriced=Unpriced(
                model="*our* <model>", provider=None, calls=OnUnpriced.ALLOW
            ),
        ),
        Insight(),
    ),
    "test": slack_message(an_alert(AlertKind.TEST, is_sample=True), Insight()),
    "digest": slack_digest(a_digest()),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_it_looks_as_it_did(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    if os.environ.get("REWRITE_GOLDEN"):
        text = json.dumps(PAYLOADS[name], indent=1, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8")
    assert PAYLOADS[name] == json.loads(path.read_text(encoding="utf-8"))


def test_every_golden_file_is_of_a_payload() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(PAYLOADS)
    assert {kind.value for kind in AlertKind} <= set(PAYLOADS)


HOSTILE = [
    "<!channel>",
    "<!here|here>",
    "<@U012AB3CD>",
    "<https://evil.test|click>",
    "&lt;!channel&gt;",
    "https://evil.test/x",
    "evil.test",
    "@channel",
    "a`; rm -rf ~ #`",
    "a`b",
    "*bold* _it_ ~gone~",
    "line\nbreak\r\n\t",
    "\u202egnp.exe",
    "\u200b\u2066\ufeffhidden",
    "\x00\x1b[31m",
    "x" * 256,
    "&" * 256,
    "🙂" * 64,
    "$(reboot)",
    "'; DROP TABLE alerts; --",
    "--all",
    "\0",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize("kind", AlertKind)
def test_a_hostile_name_neither_mentions_nor_links_nor_breaks(
    kind: AlertKind, name: str
) -> None:
    who = Attribution(
        project_id=name,
        customer_id=name,
        user_id=name,
        feature=name,
        agent=name,
        agent_path=(name,),
        session_id=name,
        prompt_version=name,
    )
    alert = an_alert(
        kind,
        project_id=name,
        attribution=who,
        scope=f"customer_id={name}",
        threshold=name if kind is AlertKind.SOFT else None,
    )
    causes = (Spend(name=name, model_nano_usd=1, model_calls=1),) * 3
    payload = slack_message(alert, Insight(causes=causes))
    tally = Tally()
    tally.add(alert)
    for content in (payload, slack_digest(tally.digest(lost=0, now_ms=NOW_MS))):
        check_payload(content)


def check_payload(payload: dict[str, Any]) -> None:
    assert len(payload["blocks"]) <= 50
    for block in payload["blocks"]:
        # slack_sdk's own models take it back, within Slack's limits.
        Block.parse(block).validate_json()  # pyright: ignore[reportOptionalMemberAccess]
    json.dumps(payload).encode()
    texts = list(texts_of(payload["blocks"]))
    assert texts
    for kind, text in texts:
        assert len(text) <= (150 if kind == "plain_text" else 3_000)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u200b-\u200f\u202a-\u202e]", text)
        if kind == "mrkdwn":
            without_dates = re.sub(r"<!date\^\d+\^[^<>|]*\|[^<>|]*>", "", text)
            assert "<" not in without_dates
            assert ">" not in without_dates
            assert re.sub(r"&(amp|lt|gt);", "", without_dates).count("&") == 0
            for line in text.split("\n"):
                assert line.count("`") % 2 == 0, line
    assert not re.search(r"<|>|://|@\w|\.test", payload["text"])


def texts_of(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("text"), str):
            assert value["type"] == "plain_text" or value["verbatim"] is True
            yield value["type"], value["text"]
        for each in value.values():
            yield from texts_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts_of(each)


@pytest.mark.parametrize("name", PAYLOADS)
def test_every_layout_is_within_slack_s_limits(name: str) -> None:
    check_payload(PAYLOADS[name])


def test_a_command_names_the_session_so_that_a_shell_reads_it() -> None:
    who = Attribution.of(agent="a", session_id="x; rm -rf ~")
    text = json.dumps(slack_message(an_alert(attribution=who), Insight()))
    assert "guardrails budget raise --session='x; rm -rf ~' --reason=TEXT" in text


def test_a_loop_of_a_tool_without_a_price_does_not_cost_nothing() -> None:
    """What it costs is not known, which is not 0."""
    unpriced = an_alert(AlertKind.LOOP, finding=replace(FINDING, cost_nano_usd=0))
    message = json.dumps(slack_message(unpriced, Insight()))

    assert "with the same arguments and result. The agent" in message
    assert "for $0" not in message
