"""The kill switch from code: what a guard stops, what is audited, and outages."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from guardrails import BudgetExceeded, ConfigurationError, Guard, SessionStopped
from guardrails.core.stops import StopKind, StopTarget
from guardrails.testing import FakeClock
from tests.stores.flaky import FlakyStore


def ask(guard: Guard) -> None:
    with guard.call(model="gpt-4o", provider="openai", input_tokens=10):
        pass


def test_a_stop_reaches_agents_below_the_one_that_is_named() -> None:
    guard = Guard(store="memory://")
    guard.stop(agent="router", reason="misroutes", by="ops")
    with guard.session("router"):
        with guard.session("worker"):
            with pytest.raises(SessionStopped, match="agent router killed by ops"):
                ask(guard)
    with guard.session("worker"):
        ask(guard)


def test_a_session_goes_on_once_the_stop_is_lifted() -> None:
    guard = Guard(store="memory://")
    with guard.session("a", customer_id="acme") as session:
        guard.stop(customer_id="acme")
        with pytest.raises(SessionStopped) as stopped:
            ask(guard)
        guard.resume(customer_id="acme")
        ask(guard)

    assert stopped.value.reason == "killed"
    assert stopped.value.session_id == session.session_id
    assert "guard.resume(customer_id='acme')" in str(stopped.value)
    assert session.status == "completed"


def test_a_stop_says_which_session_around_has_to_be_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Raising that of the call would let nothing go on."""
    guard = Guard(store="memory://", max_steps=2)
    with guard.session("router", session_id="outer"):
        ask(guard)
        with guard.session("worker", session_id="inner"):
            ask(guard)
            for _ in range(2):  # The call that ends the session, and the one after it.
                with pytest.raises(BudgetExceeded, match="after 1 steps") as stopped:
                    ask(guard)
                way_on = "guard.raise_limit('outer', max_steps=...)"
                assert str(stopped.value).endswith(
                    f"session inner inside of session outer. To go on: {way_on}"
                )
                assert (stopped.value.session_id, stopped.value.steps) == ("inner", 1)
            guard.raise_limit("outer", max_steps=3)
            ask(guard)
    assert "budget_exceeded (max_steps of session outer). session inner" in caplog.text


def test_a_killed_session_around_is_the_one_to_be_resumed() -> None:
    guard = Guard(store="memory://")
    with guard.session("router", session_id="outer"):
        with guard.session("worker", session_id="inner"):
            guard.stop("outer")
            with pytest.raises(SessionStopped, match=r"guard\.resume\('outer'\)"):
                ask(guard)
            guard.resume("outer")
            ask(guard)


def test_a_stop_ends_by_itself() -> None:
    clock = FakeClock()
    guard = Guard(store="memory://", clock=clock)
    with guard.session("a") as session:
        guard.stop(session.session_id, for_s=60, by="ops")
        until = datetime.fromtimestamp(clock.now_ms() / 1000 + 60, tz=UTC)
        with pytest.raises(SessionStopped, match=f"until {until:%Y-%m-%d %H:%M} UTC"):
            ask(guard)
        [order] = guard.stops()
        clock.advance(seconds=60)
        ask(guard)

    assert order.target == StopTarget(kind=StopKind.SESSION, name=session.session_id)
    assert guard.stops() == ()


def test_observing_refuses_nothing() -> None:
    guard = Guard(store="memory://", mode="observe")
    guard.stop(everything=True, reason="drill")
    with guard.session("a") as session:
        ask(guard)

    assert session.steps == 1


def test_raising_is_audited_with_the_limits_before_and_after(tmp_path: Path) -> None:
    guard = Guard(
        {"version": 1, "agents": {"a": {"session": {"max_steps": 5}}}},
        store=tmp_path / "ledger.sqlite3",
    )
    with guard.session("a", session_id="s"):
        ask(guard)
    for steps in (7, 9, 8):
        guard.raise_limit("s", max_steps=steps, by="ops", reason="big one")
    last, first = guard.audit()
    guard.close()

    assert (last.by, last.note, last.subject) == ("ops", "big one", "session s")
    assert first.policy is not None
    assert (first.policy.steps, first.raised_before) == (5, None)
    assert first.raised_after == last.raised_before
    assert last.raised_after is not None
    assert last.raised_after.steps == 9


def test_only_one_thing_is_stopped_at_a_time() -> None:
    guard = Guard(store="memory://")
    for names in ({}, {"agent": "a", "customer_id": "c"}):
        with pytest.raises(ConfigurationError, match="about one thing"):
            guard.stop(**names)
        with pytest.raises(ConfigurationError, match="about one thing"):
            guard.resume(**names)
    with pytest.raises(ConfigurationError, match="is a pattern"):
        guard.stop(agent="onboarding_*")


@pytest.mark.parametrize("for_s", [0, -1, float("inf"), float("nan"), True, "1h", 1e12])
def test_a_time_to_stop_for_is_checked(for_s: object) -> None:
    guard = Guard(store="memory://")
    with pytest.raises(ConfigurationError, match=r"for_s: .* no time to stop for"):
        guard.stop(everything=True, for_s=for_s)  # type: ignore[arg-type]

    assert guard.stops() == ()


# --- While the store is away ------------------------------------------------


class Fleet:
    """Two processes on one store."""

    def __init__(self, on_store_error: str = "local") -> None:
        self.store = FlakyStore()
        self.clock = FakeClock()
        self.here, self.there = (
            Guard({}, store=self.store, clock=self.clock, on_store_error=on_store_error)
            for _ in range(2)
        )

    def is_stopped(self, guard: Guard) -> bool:
        with guard.session("a", session_id="s"):
            try:
                ask(guard)
            except SessionStopped:
                return True
            return False

    def come_back(self) -> None:
        self.store.is_away = False
        self.clock.advance(seconds=1)


@pytest.mark.parametrize("on_store_error", ["local", "open"])
def test_a_stop_that_is_known_holds_while_the_store_is_away(
    on_store_error: str,
) -> None:
    """Whoever ordered it, ran into it or read it knows it."""
    it = Fleet(on_store_error)
    it.here.stop(agent="a", for_s=3_600)
    assert it.is_stopped(it.there)
    it.store.is_away = True
    meanwhile = [it.is_stopped(guard) for guard in (it.here, it.there)]
    it.clock.advance(seconds=3_600)
    over = it.is_stopped(it.here)

    assert meanwhile == [True, True]
    assert not over


def test_reading_the_stops_makes_them_known() -> None:
    it = Fleet()
    it.here.stop(everything=True)
    it.there.stops()
    it.store.is_away = True

    assert it.is_stopped(it.there)


def test_a_stop_that_was_lifted_does_not_come_back() -> None:
    """Neither where it was lifted, nor where a call was admitted since."""
    it = Fleet()
    it.here.stop(agent="a")
    it.there.stop(agent="a")
    it.here.resume(agent="a")
    admitted = it.is_stopped(it.there)
    it.store.is_away = True
    meanwhile = [it.is_stopped(guard) for guard in (it.here, it.there)]

    assert not admitted
    assert meanwhile == [False, False]


def test_a_stop_that_was_lifted_for_all_to_read_is_forgotten() -> None:
    it = Fleet()
    it.there.stop(agent="a")
    it.here.resume(agent="a")
    it.there.stops()
    it.store.is_away = True

    assert not it.is_stopped(it.there)


def test_stopping_and_lifting_need_the_store() -> None:
    """Nobody else would hear of it. Once it is back, it is asked again."""
    it = Fleet()
    it.here.stop(everything=True)
    it.store.is_away = True
    for order in (it.here.stop, it.here.resume):
        with pytest.raises(Exception, match="store: away"):
            order(everything=True)
    assert it.is_stopped(it.here)
    it.come_back()
    it.there.resume(everything=True)

    assert not it.is_stopped(it.here)
