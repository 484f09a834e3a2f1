"""`guardrails watch`: people are told, from a scheduler or as long as it runs."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from guardrails.cli.watch import watch_ledger
from guardrails.config import load_configuration
from guardrails.core.alerting.deliveries import TellAlerts
from guardrails.core.operations import Operation
from guardrails.errors import StoreUnavailable
from guardrails.stores.memory import MemoryStore
from guardrails.stores.sqlite import SQLiteStore
from guardrails.system.clock import SystemClock
from guardrails.testing import FakeClock
from tests.alerts.conftest import Receiver, content_of, receive
from tests.cli.conftest import Run
from tests.cli.test_alerts import configure
from tests.test_unusual import NOON_MS, Calls
from tests.test_watching import a_spike

__all__ = ["receive"]

Start = Callable[..., Receiver]
R = TypeVar("R")


@pytest.fixture
def spiked(tmp_path: Path) -> str:
    """A ledger of two weeks and a day, as of today."""
    path = tmp_path / "spiked.sqlite3"
    now_ms = SystemClock().now_ms()
    calls = a_spike()
    moved = Calls(noon_ms=now_ms)
    for event in calls.events:
        who = event.attribution
        days = (calls.noon_ms - event.time_ms) // 86_400_000
        assert who.session_id is not None
        cents = (event.charge.cost_nano_usd or 0) // 10_000_000
        moved.call(who.session_id, cents, days_ago=days, model="mini", tokens=9_000)
    with closing(SQLiteStore(path)) as store:
        moved.book(store)
    return f"sqlite:///{path}"


def test_a_scheduler_has_people_told_once(
    command: Run, folder: Path, receive: Start, spiked: str
) -> None:
    """What is new is printed; a second look has nothing to print or send."""
    receiver = receive()
    configure(folder, receiver)

    first = command("watch", "--once", "--store", spiked)
    second = command("watch", "--once", "--store", spiked)

    assert (first.code, first.err) == (0, "")
    lines = [line.split("  ", 1)[1] for line in first.out.splitlines()]
    assert "anomaly  customer acme cost 10 times its usual day" in lines
    assert (second.code, second.out) == (0, "")
    contents = [content_of(body) for _, body in receiver.requests]
    kinds = sorted(content["type"] for content in contents)
    assert kinds == ["anomaly.detected", "costs.daily"]
    found = {content["type"]: content for content in contents}["anomaly.detected"]
    assert found["data"]["customer_id"] == "acme"
    assert found["data"]["anomaly"]["kind"] == "customer_spike"
    log = command("alerts", "log", "--store", spiked)
    assert log.out.count("sent") == 2


def test_without_a_place_nobody_would_be_told(command: Run, spiked: str) -> None:
    done = command("watch", "--once", "--store", spiked)
    assert done.code == 2
    assert "alerts: nothing says where they go" in done.err


def test_a_store_in_memory_cannot_be_watched(
    command: Run, folder: Path, receive: Start
) -> None:
    configure(folder, receive())
    done = command("watch", "--once", "--store", "memory://")
    assert done.code == 2
    assert "memory:// ends with the process" in done.err


def test_a_store_that_is_away_ends_a_single_look(
    command: Run, folder: Path, receive: Start
) -> None:
    configure(folder, receive())
    done = command("watch", "--once", "--store", "redis://127.0.0.1:1")
    assert done.code == 4


class Interrupted(FakeClock):
    """A clock that is interrupted in its third sleep."""

    slept: int = 0

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.slept += 1
        if self.slept == 3:
            raise KeyboardInterrupt


class Away(MemoryStore):
    """A store that does not answer the first look."""

    looks: int = 0

    def execute(self, operation: Operation[R]) -> R:
        if isinstance(operation, TellAlerts):
            self.looks += 1
            if self.looks == 1:
                raise StoreUnavailable("store: away.")
        return super().execute(operation)


def test_it_looks_again_until_it_is_interrupted(
    receive: Start, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store that is away for a while ends nothing."""
    configure(folder, receive())
    configuration = load_configuration(None, environ={}, cwd=folder, overrides={})
    store = Away()
    a_spike().book(store)
    with pytest.raises(KeyboardInterrupt):
        watch_ledger(
            store, configuration, every_s=300, clock=Interrupted(now_ms=NOON_MS)
        )

    said = capsys.readouterr()
    assert store.looks == 3
    assert said.err == "guardrails: store: away. It is looked at again later.\n"
    assert [line.split()[1] for line in said.out.splitlines()] == ["anomaly", "daily"]
