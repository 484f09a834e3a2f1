"""Stops: a session that is over stays over, until a person says otherwise."""

import pickle
from decimal import Decimal

import pytest

from guardrails import BudgetExceeded, Guard, LoopDetected, SessionStopped, TokenUsage


def ask_model(guard: Guard) -> None:
    """Stands for any call of a model: 4,000 tokens in are $0.01."""
    with guard.call(
        model="gpt-4o", provider="openai", input_tokens=4_000, max_output_tokens=0
    ) as call:
        call.settle(TokenUsage(input_tokens=4_000))


def test_a_stop_is_sticky() -> None:
    """After a stop nothing paid starts, however often it is tried."""
    guard = Guard(store="memory://", max_cost_usd="0.01")

    with guard.session("support-agent") as session:
        ask_model(guard)
        for _ in range(10):
            with pytest.raises(BudgetExceeded):
                ask_model(guard)

    assert session.spent == Decimal("0.01")


def test_a_stop_holds_when_the_session_is_taken_up_again() -> None:
    """The stop belongs to the session, not to the block in which it happened."""
    guard = Guard(store="memory://", max_cost_usd="0.01")
    with guard.session("support-agent", session_id="ticket-4711"):
        ask_model(guard)
        with pytest.raises(BudgetExceeded):
            ask_model(guard)

    with (
        guard.session("support-agent", session_id="ticket-4711"),
        pytest.raises(BudgetExceeded),
    ):
        ask_model(guard)


def test_a_stop_holds_for_another_guard_on_the_same_file() -> None:
    """All guards that share a store see the same stop, in any process."""
    guard = Guard(store="sqlite:///ledger.sqlite3", max_cost_usd="0.01")
    other = Guard(store="sqlite:///ledger.sqlite3", max_cost_usd="0.01")
    with guard.session("support-agent", session_id="ticket-4711"):
        ask_model(guard)
        with pytest.raises(BudgetExceeded):
            ask_model(guard)

    with (
        other.session("support-agent", session_id="ticket-4711"),
        pytest.raises(BudgetExceeded),
    ):
        ask_model(other)

    guard.close()
    other.close()


def test_other_sessions_go_on() -> None:
    """A stop ends one session."""
    guard = Guard(store="memory://", max_cost_usd="0.01")
    with guard.session("support-agent"):
        ask_model(guard)
        with pytest.raises(BudgetExceeded):
            ask_model(guard)

    with guard.session("support-agent") as another:
        ask_model(guard)

    assert another.status == "completed"


def test_raising_the_limit_lets_a_session_go_on() -> None:
    """`raise_limit` gives one session more, and lifts the stop of its budget."""
    guard = Guard(store="memory://", max_cost_usd="0.01")

    with guard.session("support-agent") as session:
        ask_model(guard)
        with pytest.raises(BudgetExceeded):
            ask_model(guard)

        guard.raise_limit(session.session_id, max_cost_usd="0.02")
        ask_model(guard)
        with pytest.raises(BudgetExceeded):
            ask_model(guard)

    assert session.spent == Decimal("0.02")


def test_resuming_lets_a_session_go_on_after_a_loop() -> None:
    """`resume` lifts a stop and forgets the repetitions that led to it."""
    guard = Guard(store="memory://", max_steps=40)

    @guard.tool()
    def geocode(address: str) -> str:
        return "not found"

    with guard.session("support-agent") as session:
        for _ in range(3):
            geocode("Atlantis")
        with pytest.raises(LoopDetected):
            geocode("Atlantis")

        guard.resume(session.session_id)
        geocode("Atlantis")

    assert session.status == "completed"


def test_a_person_can_stop_a_session() -> None:
    """`stop` ends a session from outside, at its next call."""
    guard = Guard(store="memory://")

    with guard.session("support-agent", session_id="ticket-4711") as session:
        ask_model(guard)
        guard.stop("ticket-4711", by="ops", reason="wrong customer")
        with pytest.raises(SessionStopped, match="killed by ops: wrong customer"):
            ask_model(guard)

    assert session.status == "killed"


def test_all_stops_are_one_kind_of_exception() -> None:
    """`except SessionStopped` catches every reason why a session ended."""
    assert issubclass(BudgetExceeded, SessionStopped)
    assert issubclass(LoopDetected, SessionStopped)


def test_a_stop_travels_between_processes() -> None:
    """The exception pickles, with all that it carries."""
    guard = Guard(store="memory://", max_steps=0)
    with (
        guard.session("support-agent", customer_id="acme"),
        pytest.raises(BudgetExceeded) as stopped,
    ):
        ask_model(guard)

    arrived = pickle.loads(pickle.dumps(stopped.value))

    assert str(arrived) == str(stopped.value)
    assert arrived.attribution.customer_id == "acme"
    assert arrived.limit == "max_steps"
