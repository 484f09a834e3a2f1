"""A store that cannot be reached: refuse, go on from what is known, or let pass.

It is never a stop of the session, and what was spent meanwhile is booked once the
store is back.
"""

import contextlib
import logging
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeVar

import pytest

from guardrails import (
    BudgetExceeded,
    CallRefused,
    Guard,
    GuardedCall,
    LoopDetected,
    SessionStopped,
    StoreUnavailable,
)
from guardrails.core.operations import Operation
from guardrails.ports import History
from guardrails.stores.memory import MemoryStore
from guardrails.testing import FakeClock
from tests.servers.waiting import until

R = TypeVar("R")

PROBE_SECONDS = 1
"""How long a store that failed is left alone."""


class FailingStore:
    """A memory store that can be switched off."""

    def __init__(self) -> None:
        self._inner = MemoryStore()
        self.is_down = False
        self.may_return = False
        self.asked = 0
        self.applies_before_it_fails = False

    @property
    def history(self) -> History:
        self._answer()
        return self._inner.history

    def execute(self, operation: Operation[R]) -> R:
        if self.applies_before_it_fails:
            self._inner.execute(operation)
        self._answer()
        return self._inner.execute(operation)

    async def aexecute(self, operation: Operation[R]) -> R:
        return self.execute(operation)

    def secret(self) -> bytes:
        self._answer()
        return self._inner.secret()

    def close(self) -> None:
        self._inner.close()

    def _answer(self) -> None:
        self.asked += 1
        if self.is_down:
            error = StoreUnavailable("store: the disk is full.")
            error.may_return = self.may_return
            raise error


class Setting:
    """A guard with a limit of $0.20, whose store fails and comes back."""

    def __init__(self, policy: str) -> None:
        self.store = FailingStore()
        self.clock = FakeClock()
        self.guard = self.another(policy)

    def another(self, policy: str) -> Guard:
        return Guard(
            {},
            store=self.store,
            clock=self.clock,
            max_cost_usd="0.20",
            on_store_error=policy,
        )

    def fail(self) -> None:
        self.store.is_down = True

    def come_back(self) -> None:
        self.store.is_down = False
        self.clock.advance(seconds=PROBE_SECONDS)

    def one_cent(self) -> GuardedCall:
        return self.guard.call(tool="t", cost_usd="0.01")

    def calls(self, count: int) -> int:
        """Tries so many calls and returns how many of them were made."""
        made = 0
        for _ in range(count):
            try:
                with self.one_cent():
                    made += 1
            except (SessionStopped, CallRefused):
                pass
        return made


Make = Callable[[str], Setting]


@pytest.fixture
def setting() -> Make:
    return Setting


# --- while the store is away ------------------------------------------------


def test_closed_refuses_the_call_and_not_the_session(setting: Make) -> None:
    it = setting("closed")
    with it.guard.session() as session:
        assert it.calls(2) == 2
        it.fail()
        with pytest.raises(CallRefused, match="the disk is full") as refused:
            it.one_cent().__enter__()
        assert not isinstance(refused.value, SessionStopped)
        it.come_back()
        assert it.calls(2) == 2

    assert session.spent == Decimal("0.04")


@pytest.mark.parametrize("policy", ["closed", "local", "open"])
def test_a_guard_that_only_observes_refuses_nothing_without_its_store(
    policy: str,
) -> None:
    """Neither by a limit nor because of what is not known of a shared one."""
    store = FailingStore()
    day = {"name": "all", "per": [], "every": "day", "max_cost_usd": "0.01"}
    config = {"mode": "observe", "budgets": [day]}
    guard = Guard(config, store=store, max_cost_usd="0.01", on_store_error=policy)
    store.is_down = True

    with guard.session() as session:
        for _ in range(3):
            with guard.call(tool="t", cost_usd="0.01"):
                pass
    store.is_down = False
    guard.close()

    assert session.spent == Decimal("0.03")


def test_local_goes_on_to_the_limit_from_what_is_known(setting: Make) -> None:
    it = setting("local")
    with it.guard.session():
        assert it.calls(5) == 5
        it.fail()

        assert it.calls(50) == 15
        with pytest.raises(BudgetExceeded):
            it.one_cent().__enter__()


@pytest.mark.parametrize(
    "limit", [{"max_cost_usd": "0.20"}, {"max_steps": 20}], ids=str
)
def test_local_counts_the_first_calls_of_a_session_that_are_in_flight(
    setting: Make, limit: dict[str, Any]
) -> None:
    """Nothing was settled there yet, so all that is known is what they hold."""
    it = setting("local")
    it.guard = Guard({}, store=it.store, clock=it.clock, **limit)
    with it.guard.session() as session:
        with contextlib.ExitStack() as calls:
            for _ in range(5):
                calls.enter_context(it.one_cent())
            it.fail()
            assert it.calls(2) == 2
        assert it.calls(50) == 13
        it.come_back()
        assert it.calls(1) == 0

    assert (session.spent, session.steps) == (Decimal("0.20"), 20)


def test_open_lets_every_call_pass(setting: Make) -> None:
    it = setting("open")
    with it.guard.session():
        assert it.calls(5) == 5
        it.fail()

        assert it.calls(50) == 50


def test_processes_agree_on_loops_although_the_store_was_away_at_the_first_call(
    setting: Make,
) -> None:
    """Digests have a key, which comes from the store: it is read before any call."""
    place = setting("local")
    other = place.another("local")

    def look_up(guard: Guard, session_id: str) -> None:
        with (
            guard.session("agent", session_id=session_id),
            guard.call(tool="look_up", arguments={"q": 1}) as call,
        ):
            call.settle(result="nothing")

    place.fail()
    look_up(place.guard, "earlier")
    place.come_back()

    for guard in (place.guard, other, other):
        look_up(guard, "s-1")

    with pytest.raises(LoopDetected):
        look_up(other, "s-1")


async def test_local_goes_on_in_asyncio_too(setting: Make) -> None:
    it = setting("local")
    made = 0
    async with it.guard.session():
        it.fail()
        for _ in range(50):
            try:
                async with it.one_cent():
                    made += 1
            except BudgetExceeded:
                break

    assert made == 20


def test_what_a_person_asks_or_orders_says_that_the_store_is_away(
    setting: Make,
) -> None:
    it = setting("local")
    it.fail()

    for order in (it.guard.resume, it.guard.stop, it.guard.account):
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            order("s")


def test_the_trouble_is_logged_once_and_not_for_every_call(
    setting: Make, caplog: pytest.LogCaptureFixture
) -> None:
    it = setting("local")
    with it.guard.session():
        it.fail()
        it.calls(10)

    messages = [m for m in caplog.messages if "store does not answer" in m]
    assert len(messages) == 1
    assert "local" in messages[0]


# --- once the store is back -------------------------------------------------


@pytest.mark.parametrize("policy", ["local", "open"])
def test_what_was_spent_meanwhile_is_booked(setting: Make, policy: str) -> None:
    it = setting(policy)
    with it.guard.session() as session:
        it.calls(5)
        it.fail()
        it.calls(10)
        it.come_back()
        it.calls(1)

        assert session.spent == Decimal("0.16")
        assert session.steps == len(session.events()) == 16
        assert session.remaining == Decimal("0.04")


@pytest.mark.parametrize("policy", ["local", "open"])
def test_closing_the_guard_books_what_is_left(setting: Make, policy: str) -> None:
    it = setting(policy)
    with it.guard.session(session_id="s"):
        it.fail()
        it.calls(3)
    it.store.is_down = False
    it.guard.close()

    assert it.another(policy).session(session_id="s").spent == Decimal("0.03")


@pytest.mark.parametrize("policy", ["local", "open"])
def test_a_call_that_runs_while_the_store_fails_is_booked_once(
    setting: Make, policy: str
) -> None:
    it = setting(policy)
    with it.guard.session() as session:
        with it.one_cent():
            it.fail()
        it.come_back()

        assert session.spent == Decimal("0.01")
        assert session.steps == len(session.events()) == 1
        assert session.remaining == Decimal("0.19")


@pytest.mark.parametrize("policy", ["local", "open"])
def test_an_operation_whose_answer_was_lost_is_booked_once(
    setting: Make, policy: str
) -> None:
    it = setting(policy)
    it.store.applies_before_it_fails = True
    with it.guard.session() as session:
        it.fail()
        it.calls(3)
        it.come_back()
        it.store.applies_before_it_fails = False

        assert session.spent == Decimal("0.03")
        assert session.steps == len(session.events()) == 3


def test_closed_books_a_call_whose_settling_failed(setting: Make) -> None:
    """Until then what was held is never given back."""
    it = setting("closed")
    with it.guard.session() as session:
        with it.one_cent():
            it.fail()
        it.come_back()

        assert session.spent == Decimal("0.01")
        assert session.remaining == Decimal("0.19")


def test_a_stop_that_was_set_before_holds_while_the_store_is_away_and_after(
    setting: Make,
) -> None:
    it = setting("local")
    with it.guard.session() as session:
        assert it.calls(30) == 20
        it.fail()
        assert it.calls(5) == 0
        it.come_back()
        assert it.calls(5) == 0

    assert session.status == "budget_exceeded"


def test_the_first_call_of_a_tool_waits_once_for_a_store_that_is_away(
    setting: Make,
) -> None:
    """Its arguments are digested with the key that was read at the start: all
    processes have the same one, so that they see the same loops."""
    it = setting("local")
    tool = it.guard.tool(cost_usd="0.01")(lambda x: x)
    it.fail()
    asked = it.store.asked
    with it.guard.session():
        tool(1)
    asked_since = it.store.asked - asked
    it.come_back()

    assert asked_since == 1
    assert it.guard.engine.fingerprint_key == it.another("local").engine.fingerprint_key


# --- a guard that is built meanwhile ---------------------------------------


@pytest.mark.parametrize(
    ("policy", "may_return"), [("closed", True), ("local", False), ("open", False)]
)
def test_a_guard_says_at_its_start_what_somebody_must_mend(
    setting: Make, policy: str, *, may_return: bool
) -> None:
    it = setting("local")
    it.store.may_return = may_return
    it.fail()

    with pytest.raises(StoreUnavailable, match="the disk is full"):
        it.another(policy)
    it.come_back()


@pytest.mark.parametrize(("policy", "made"), [("local", 20), ("open", 30)])
def test_a_guard_that_starts_while_the_store_is_away_goes_on_by_the_policy(
    setting: Make, policy: str, made: int
) -> None:
    it = setting(policy)
    it.store.may_return = True
    it.fail()
    it.guard = it.another(policy)
    with it.guard.session(session_id="s") as session:
        assert it.calls(30) == made
        asked = it.store.asked
        assert it.calls(1) == (policy == "open")
        assert it.store.asked == asked
        it.come_back()
        until(lambda: not it.guard.store.is_degraded, "the recovery")

        assert session.steps == made + (policy == "open")
        assert it.guard.engine.fingerprint_key == it.store.secret()


def test_a_shared_budget_is_closed_to_who_starts_while_the_store_is_away(
    setting: Make,
) -> None:
    """What others have spent of it is not known here."""
    it = setting("local")
    it.store.may_return = True
    it.fail()
    shared = {"name": "all", "per": [], "every": "total", "max_cost_usd": 5}
    it.guard = Guard({"budgets": [shared]}, store=it.store, clock=it.clock)
    with it.guard.session():
        assert it.calls(3) == 0
        with pytest.raises(CallRefused, match="is not known here"):
            it.one_cent().reserve()
        it.come_back()
        until(lambda: not it.guard.store.is_degraded, "the recovery")

        assert it.calls(3) == 3


# --- stops ------------------------------------------------------------------


def test_a_call_that_is_stopped_while_the_store_is_away_asks_it_nothing(
    setting: Make,
) -> None:
    """What the session spent most on is read once somebody looks, and if it can be."""
    it = setting("local")
    it.calls(20)
    it.fail()
    it.calls(1)
    asked = it.store.asked
    with pytest.raises(BudgetExceeded) as stop:
        it.one_cent().reserve()
    asked_since = it.store.asked - asked
    looked = pickle.loads(pickle.dumps(stop.value))
    it.come_back()

    assert asked_since == 0
    assert looked.top_costs == ()
    assert stop.value.top_costs == ()  # What was looked at stays.


def test_a_stop_by_a_person_holds_while_the_store_is_away(setting: Make) -> None:
    it = setting("local")
    with it.guard.session() as session:
        assert it.calls(1) == 1
        it.guard.stop(session.session_id)
        assert it.calls(1) == 0
        it.fail()
        assert it.calls(5) == 0


def test_a_shared_budget_that_only_alerts_refuses_nothing_without_the_store() -> None:
    """Although nothing is known of it by a process that has just started."""
    store = FailingStore()
    day = {"name": "all", "per": [], "every": "day", "max_cost_usd": "0.01"}
    guard = Guard({"budgets": [{**day, "action": "alert"}]}, store=store)
    store.is_down = True
    with guard.session() as session:
        for _ in range(3):
            with guard.call(tool="t", cost_usd="0.01"):
                pass
    store.is_down = False
    guard.close()

    assert session.spent == Decimal("0.03")


def test_a_loop_is_found_by_who_could_never_ask_the_store_for_its_key() -> None:
    store = FailingStore()
    store.is_down = store.may_return = True
    guard = Guard({"defaults": {"loop": {"action": "stop"}}}, store=store)
    with guard.session() as session, pytest.raises(LoopDetected):
        for _ in range(4):
            with guard.call(tool="t", arguments={"a": 1}) as call:
                call.settle(result="the same")
    store.is_down = False
    guard.close()

    assert (session.steps, session.status) == (3, "loop_detected")


@pytest.mark.parametrize("before", [0, 1])
def test_what_a_person_resumed_goes_on_while_the_store_is_away(
    setting: Make, before: int
) -> None:
    """Whether it was stopped for a time before its first call, or after."""
    it = setting("local")
    with it.guard.session() as session:
        assert it.calls(before) == before
        it.guard.stop(session.session_id, for_s=600)
        assert it.calls(1) == 0
        it.guard.resume(session.session_id)
        it.fail()
        assert it.calls(2) == 2


def test_nothing_of_ours_reaches_the_agent_when_the_store_fails_in_a_call(
    setting: Make, caplog: pytest.LogCaptureFixture
) -> None:
    it = setting("closed")
    with caplog.at_level(logging.DEBUG), it.guard.session(), it.one_cent():
        it.fail()

    assert "the disk is full" in caplog.text
