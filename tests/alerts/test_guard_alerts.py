"""A guard's alerts: they arrive, and no agent ever waits for them."""

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

import guardrails.alerts.delivery
import guardrails.alerts.slack
from guardrails import CallRefused, Guard, SessionStopped
from guardrails.alerts import Alert
from guardrails.alerts.channel import INTERVAL_MS
from guardrails.alerts.delivery import Answer, Post
from guardrails.stores.sqlite import SQLiteStore
from tests.alerts.conftest import (
    OLD_SECRET,
    SECRET,
    SLACK,
    Receiver,
    answering,
    content_of,
)
from tests.servers.waiting import until
from tests.stores.flaky import FlakyStore

pytestmark = pytest.mark.usefixtures("pace_ms")

Start = Callable[..., Receiver]
Open = Callable[..., Guard]


def webhook_of(receiver: Receiver) -> dict[str, Any]:
    return {
        "url": receiver.url(),
        "secret": SECRET,
        "allow_http": True,
        "allow_private": True,
    }


@pytest.fixture
def opened() -> Iterator[Open]:
    guards: list[Guard] = []

    def open_guard(receiver: Receiver, **config: Any) -> Guard:
        webhook = webhook_of(receiver) | {"secret": f"{SECRET},{OLD_SECRET}"}
        alerts = {"webhook": webhook, **config.pop("alerts", {})}
        session = {"max_cost_usd": "0.10", "soft_alert_ratio": [0.5]}
        content = {"defaults": {"session": session}, "alerts": alerts, **config}
        guards.append(Guard(content, store="memory://"))
        return guards[-1]

    yield open_guard
    for guard in guards:
        guard.close()


def spend(guard: Guard, *, calls: int = 10, session_id: str = "ticket-7") -> None:
    with guard.session("support-agent", session_id=session_id, customer_id="acme"):
        for index in range(calls):
            with guard.call(tool="refund", cost_usd="0.02", arguments={"n": index}):
                pass


def run_away(guard: Guard, session_id: str = "ticket-7") -> None:
    with pytest.raises(SessionStopped):
        spend(guard, session_id=session_id)


def received(receiver: Receiver) -> list[dict[str, Any]]:
    return [content_of(body) for _, body in receiver.requests]


def types(receiver: Receiver) -> list[str]:
    return [content["type"] for content in received(receiver)]


def test_people_are_told_of_a_threshold_and_a_stop(
    receive: Start, opened: Open
) -> None:
    receiver = receive()
    guard = opened(receiver)

    run_away(guard)

    until(lambda: len(receiver.requests) == 2, "two alerts")
    # Both may be of one millisecond, and then they come in any order.
    soft, stop = sorted(received(receiver), key=lambda content: content["type"])
    assert soft["type"] == "budget.soft_limit_reached"
    assert soft["data"]["session_id"] == "ticket-7"
    assert soft["data"]["threshold"] == "max_cost_usd:0.5"
    assert (soft["data"]["used"], soft["data"]["allowed"]) == ("0.06", "0.1")
    assert soft["data"]["top"][0]["name"] == "refund"
    assert stop["type"] == "session.stopped"
    assert stop["data"]["reason"] == "budget_exceeded"
    for headers, body in receiver.requests:
        for secret in (SECRET, OLD_SECRET):
            Webhook(secret).verify(body, headers)


def test_each_is_told_once_whatever_comes_after(receive: Start, opened: Open) -> None:
    receiver = receive()
    guard = opened(receiver)
    for _ in range(5):
        run_away(guard)
    guard.close()
    assert sorted(types(receiver)) == ["budget.soft_limit_reached", "session.stopped"]


def test_only_what_is_asked_for_is_told(receive: Start, opened: Open) -> None:
    receiver = receive()
    guard = opened(receiver, alerts={"on": ["stop"]})
    run_away(guard)
    guard.close()
    assert types(receiver) == ["session.stopped"]


def test_a_loop_that_is_stopped_is_one_alert(receive: Start, opened: Open) -> None:
    receiver = receive()
    guard = opened(receiver)
    with pytest.raises(SessionStopped), guard.session("a"):
        for _ in range(5):
            with guard.call(tool="t", arguments={}) as call:
                call.settle(result="same")
    guard.close()
    [stop] = received(receiver)
    assert stop["type"] == "session.stopped"
    assert stop["data"]["loop"]["count"] == 3


def test_a_loop_that_goes_on_is_told(receive: Start, opened: Open) -> None:
    receiver = receive()
    loop = {"loop": {"action": "warn"}}
    guard = opened(receiver, defaults=loop)
    with guard.session("a"):
        for _ in range(5):
            with guard.call(tool="t", arguments={}) as call:
                call.settle(result="same")
    guard.close()
    assert types(receiver) == ["loop.detected"]


def test_a_guard_that_only_observes_tells_of_thresholds(
    receive: Start, opened: Open
) -> None:
    receiver = receive()
    guard = opened(receiver, mode="observe")
    spend(guard)
    guard.close()
    assert types(receiver) == ["budget.soft_limit_reached"]


def test_a_guard_that_is_off_tells_nothing(receive: Start, opened: Open) -> None:
    receiver = receive()
    guard = opened(receiver, mode="off")
    spend(guard)
    guard.close()
    assert not receiver.requests


def test_slack_gets_blocks(
    receive: Start, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the way but the network, which Slack is behind."""
    posts: list[Post] = []

    def post(self: object, post: Post, *, within_ms: int) -> Answer:
        posts.append(post)
        return Answer(status=200)

    monkeypatch.setattr(guardrails.alerts.delivery.Delivery, "post", post)
    guard = opened(receive(), alerts={"slack": SLACK, "webhook": {}, "on": "stop"})
    run_away(guard)
    guard.close()
    [sent] = posts
    assert sent.url == SLACK
    assert not sent.allow_private
    content = content_of(sent.body)
    assert content["blocks"][0]["text"]["text"].startswith("⛔ support-agent was stop")
    assert "$0.10" in content["text"]


def test_a_shared_budget_that_refuses_is_told_once(
    receive: Start, opened: Open
) -> None:
    """Whoever is refused by it: its limit ends no session."""
    receiver = receive()
    budgets = [{"name": "c", "per": ["customer_id"], "max_cost_usd": "0.05"}]
    guard = opened(receiver, budgets=[{**budgets[0], "every": "month"}])
    for number in range(4):
        with guard.session("support-agent", session_id=f"{number}", customer_id="acme"):
            with contextlib.suppress(CallRefused, SessionStopped):
                with guard.call(tool="refund", cost_usd="0.03"):
                    pass
    guard.close()
    assert types(receiver) == ["budget.exceeded"]
    [told] = received(receiver)
    assert told["data"]["scope"] == "customer_id=acme"
    assert (told["data"]["used"], told["data"]["allowed"]) == ("0.03", "0.05")


def test_what_people_do_is_told(receive: Start, opened: Open) -> None:
    """With who did it, and without the reason that they wrote down."""
    receiver = receive()
    guard = opened(receiver)
    spend(guard, calls=1)
    guard.stop("ticket-7", by="ann", reason="hunter2")
    guard.stop(customer_id="acme", by="ann", for_s=60, reason="hunter2")
    guard.raise_limit("ticket-7", max_cost_usd="0.20", by="ann", reason="hunter2")
    until(lambda: len(receiver.requests) == 3, "three alerts")
    assert sorted(types(receiver)) == [
        "limit.raised",
        "scope.stopped",
        "session.stopped",
    ]
    for content in received(receiver):
        assert content["data"]["by"] == "ann"
        assert content["data"]["customer_id"] == "acme"
        assert "hunter2" not in str(content)


RATES = {"input_per_1m_usd": 1, "output_per_1m_usd": 1}


def ask_model(guard: Guard, *, times: int = 2) -> None:
    """Calls a model that no price book knows."""
    for _ in range(times):
        with guard.session("support-agent", customer_id="acme"):
            with contextlib.suppress(CallRefused):
                with guard.call(model="our-model", provider="us", input_tokens=9):
                    pass


@pytest.mark.parametrize("policy", ["refuse", "worst_case", "allow"])
def test_a_missing_price_is_told_once(
    receive: Start, opened: Open, policy: str
) -> None:
    """With the model's name, and whether its calls are refused or not counted."""
    receiver = receive()
    session = {"max_cost_usd": "5.00"}
    guard = opened(receiver, defaults={"session": session, "on_unpriced": policy})
    ask_model(guard, times=3)
    guard.close()
    assert types(receiver) == ["price.missing"]
    [told] = received(receiver)
    assert told["data"]["unpriced"] == {
        "model": "our-model",
        "provider": "us",
        "calls": policy,
    }
    assert told["data"]["customer_id"] == "acme"


def test_a_known_price_and_a_tool_without_one_are_no_alert(
    receive: Start, opened: Open
) -> None:
    """Most tools cost nothing; reports name those that have no price."""
    receiver = receive()
    guard = opened(receiver, models={"our-model": RATES})
    ask_model(guard)
    with guard.session("support-agent"), guard.call(tool="t"):
        pass
    guard.close()
    assert not receiver.requests


def test_processes_that_miss_the_same_price_tell_it_once(
    receive: Start, tmp_path: Path
) -> None:
    receiver = receive()
    webhook = webhook_of(receiver)
    config = {"alerts": {"webhook": webhook}, "defaults": {"on_unpriced": "allow"}}
    for _ in range(3):  # Each knows nothing of what the others have told.
        guard = Guard(config, store=f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
        ask_model(guard)
        guard.close()
    assert types(receiver) == ["price.missing"]


def test_a_missing_price_is_told_while_the_store_is_away(receive: Start) -> None:
    receiver = receive()
    alerts = {"webhook": webhook_of(receiver), "on": ["unpriced"]}
    session = {"max_cost_usd": "0.10"}
    store = FlakyStore()
    guard = Guard({"alerts": alerts, "defaults": {"session": session}}, store=store)
    store.is_away = True
    ask_model(guard)
    guard.close()
    assert types(receiver) == ["price.missing"]


def test_another_process_sends_what_one_has_left(
    receive: Start, tmp_path: Path
) -> None:
    """It dies before anything is sent; a guard takes it up."""
    receiver = receive()
    webhook = webhook_of(receiver)
    store = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    script = (
        "import os, signal\n"
        "from guardrails import Guard\n"
        f"guard = Guard({{'alerts': {{'webhook': {webhook!r}}}}}, store={store!r})\n"
        "guard._alerts.dispatcher._start = lambda: None\n"
        "guard.stop('ticket-7', by='ann', reason='r')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=50)
    assert done.returncode == -signal.SIGKILL
    assert not receiver.requests
    guard = Guard({"alerts": {"webhook": webhook}}, store=store)
    with guard.call(tool="t", cost_usd="0.01"):
        pass
    until(lambda: receiver.requests, "the alert of the other process")
    assert types(receiver) == ["session.stopped"]
    guard.close()


def test_a_guard_that_is_dropped_ends_its_thread(
    receive: Start, tmp_path: Path
) -> None:
    """Where processes share a store it would look for alerts for ever."""
    store = SQLiteStore(tmp_path / "ledger.sqlite3")
    guard = Guard(
        {"alerts": {"webhook": {"url": "https://a.example.org/x", "secret": SECRET}}},
        store=store,
    )
    with guard.call(tool="t", cost_usd="0.01"):
        pass
    [thread] = [t for t in threading.enumerate() if t.name == "guardrails-alerts"]
    del guard
    # Its thread may hold it for a moment, to ask whether the store is away.
    until(lambda: gc.collect() < 0 or not thread.is_alive(), "the end of the thread")
    store.close()


# --- never in the way -------------------------------------------------------


def test_an_agent_never_waits_for_a_receiver(receive: Start, opened: Open) -> None:
    """While the receiver holds on to the first alert, an agent runs to its end."""
    let_go = threading.Event()

    def hold(connection: Any) -> None:
        let_go.wait(10)
        answering("200 OK")(connection)

    receiver = receive(hold)
    guard = opened(receiver)
    run_away(guard)
    until(lambda: receiver.requests, "the first alert")

    for index in range(20):
        run_away(guard, session_id=f"other-{index}")

    assert len(receiver.requests) == 1, "the receiver has not answered yet"
    assert not let_go.is_set()
    let_go.set()
    until(lambda: len(receiver.requests) == 2, "the next message")
    guard.close()


def test_nothing_of_the_network_runs_in_the_agent_s_thread(
    receive: Start, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def post(self: object, post: Post, *, within_ms: int) -> Answer:
        threads.append(threading.current_thread().name)
        return Answer(status=200)

    monkeypatch.setattr(guardrails.alerts.delivery.Delivery, "post", post)
    guard = opened(receive())
    run_away(guard)
    until(lambda: len(threads) == 2, "two alerts")
    assert set(threads) == {"guardrails-alerts"}
    guard.close()


def test_there_is_no_thread_before_the_first_alert(
    receive: Start, opened: Open
) -> None:
    guard = opened(receive())
    spend(guard, calls=1)
    names = {thread.name for thread in threading.enumerate()}
    assert "guardrails-alerts" not in names
    assert threading.active_count()


def test_a_message_that_cannot_be_written_holds_up_no_other(
    receive: Start,
    opened: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*content: object) -> dict[str, object]:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(guardrails.alerts.slack, "slack_message", broken)
    receiver = receive()
    guard = opened(receiver, alerts={"on": ["stop"], "slack": SLACK})
    run_away(guard)
    until(lambda: receiver.requests, "the alert of the other destination")
    guard.close()
    assert "it could not be written (RuntimeError)" in caplog.text
    assert "hunter2" not in caplog.text


# --- closing ----------------------------------------------------------------


@pytest.mark.parametrize("pace_ms", [INTERVAL_MS], indirect=True)
def test_closing_sends_what_waits(receive: Start, opened: Open) -> None:
    receiver = receive()
    guard = opened(receiver)
    for index in range(20):
        run_away(guard, session_id=f"s-{index}")
    guard.close()
    total = sum(
        sum(content["data"].get("counts", {"one": 1}).values())
        for content in received(receiver)
    )
    assert total == 40
    assert len(receiver.requests) <= 4


def test_closing_does_not_wait_for_a_receiver_that_hangs(
    receive: Start, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = receive(lambda connection: receiver.ended.wait(10) and None)
    guard = opened(receiver)
    run_away(guard)
    until(lambda: receiver.requests, "the first alert")
    closed = threading.Thread(target=guard.close)
    closed.start()
    closed.join(4)
    assert not closed.is_alive()
    receiver.close()


def test_a_guard_that_was_closed_tells_again(receive: Start, opened: Open) -> None:
    receiver = receive()
    guard = opened(receiver, alerts={"on": ["stop"]})
    run_away(guard, "a")
    guard.close()
    run_away(guard, "b")
    guard.close()
    assert [c["data"]["session_id"] for c in received(receiver)] == ["a", "b"]


def test_a_process_that_ends_sends_what_waits(receive: Start) -> None:
    receiver = receive()
    webhook = webhook_of(receiver)
    script = (
        "from guardrails import Guard\n"
        f"guard = Guard({{'alerts': {{'webhook': {webhook!r}}}}}, store='memory://',\n"
        "    max_cost_usd='0.10', soft_alert_usd='0.05')\n"
        "for _ in range(3):\n"
        "    with guard.call(tool='t', cost_usd='0.02'): pass\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=50)
    assert types(receiver) == ["budget.soft_limit_reached"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_process_sends_its_own_alerts_and_not_its_parent_s(
    receive: Start, opened: Open
) -> None:
    let_go = threading.Event()

    def hold(connection: Any) -> None:
        let_go.wait(10)
        answering("200 OK")(connection)

    receiver = receive(hold)
    guard = opened(receiver, alerts={"on": ["stop"]})
    run_away(guard, "parent-1")
    until(lambda: receiver.requests, "the first alert")
    run_away(guard, "parent-2")  # It waits in the queue while the first is held.

    def child() -> None:
        run_away(guard, "child")
        guard.close()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    until(lambda: len(receiver.requests) == 2, "the child's alert")
    let_go.set()
    process.join(10)
    assert process.exitcode == 0
    guard.close()
    sessions = sorted(c["data"]["session_id"] for c in received(receiver))
    assert sessions == ["child", "parent-1", "parent-2"]


# --- secrets ----------------------------------------------------------------


def test_a_secret_is_nowhere_to_be_seen(
    receive: Start,
    opened: Open,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver = receive(answering("404 Not Found", body=b"no_service"))
    guard = opened(receiver)
    run_away(guard)
    until(lambda: receiver.requests, "an alert")
    guard.close()
    shown = caplog.text + "".join(capsys.readouterr())
    shown += repr(guard.configuration) + str(guard.configuration.alerts)
    assert "an alert could not be sent to" in shown
    assert "404 no_service" in shown
    for secret in ("hunter2", SECRET.removeprefix("whsec_"), OLD_SECRET):
        assert secret not in shown


def test_the_environment_says_where_to(
    receive: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARDRAILS_SLACK_WEBHOOK_URL", SLACK)
    monkeypatch.setenv("GUARDRAILS_WEBHOOK_URL", "https://alerts.example.org/hunter2")
    monkeypatch.setenv("GUARDRAILS_WEBHOOK_SECRET", f"{SECRET}, {OLD_SECRET}")
    guard = Guard({}, store="memory://")
    alerts = guard.configuration.alerts
    guard.close()
    assert alerts.slack == SLACK
    assert alerts.webhook is not None
    assert alerts.webhook.url == "https://alerts.example.org/hunter2"
    assert alerts.webhook.secrets == (SECRET, OLD_SECRET)


def test_an_alert_has_no_room_for_content() -> None:
    texts = {
        name
        for name, kind in Alert.__annotations__.items()
        if "str" in str(kind) and name != "kind"
    }
    assert texts == {*("alert_id", "project_id", "subject", "scope", "threshold", "by")}
