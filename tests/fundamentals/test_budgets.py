"""Budgets: what a session, a customer or a feature may cost, and for how long."""

from decimal import Decimal

import pytest

from guardrails import BudgetExceeded, Guard, TokenUsage
from guardrails.testing import FakeClock


def ask_model(guard: Guard, *, output_tokens: int = 0) -> None:
    """Stands for any call of a model: 4,000 tokens in are $0.01."""
    with guard.call(
        model="gpt-4o",
        provider="openai",
        input_tokens=4_000,
        max_output_tokens=output_tokens,
    ) as call:
        call.settle(TokenUsage(input_tokens=4_000, output_tokens=output_tokens))


def test_the_call_that_would_pass_the_limit_is_not_made() -> None:
    """A hard limit is never passed: the fourth cent is refused before it is spent."""
    guard = Guard(store="memory://", max_cost_usd="0.03")

    with guard.session("support-agent") as session:
        for _ in range(3):
            ask_model(guard)
        with pytest.raises(BudgetExceeded):
            ask_model(guard)

    assert session.spent == Decimal("0.03")
    assert session.status == "budget_exceeded"


def test_the_exception_says_what_was_spent_on_what() -> None:
    """`BudgetExceeded` carries the limit, the figures, and the largest causes."""
    guard = Guard(store="memory://", max_cost_usd="0.02")

    with guard.session("support-agent"):
        ask_model(guard)
        ask_model(guard)
        with pytest.raises(BudgetExceeded) as stopped:
            ask_model(guard)

    assert stopped.value.limit == "max_cost_usd"
    assert stopped.value.spent == Decimal("0.02")
    assert stopped.value.allowed == Decimal("0.02")
    assert stopped.value.needed == Decimal("0.01")
    assert stopped.value.top_costs == (("gpt-4o", Decimal("0.02"), 2),)
    assert "support-agent stopped: $0.02 of $0.02" in str(stopped.value)


def test_a_session_knows_what_remains() -> None:
    """`remaining` is what new calls may still cost."""
    guard = Guard(store="memory://", max_cost_usd="0.05")

    with guard.session("support-agent") as session:
        assert session.remaining == Decimal("0.05")
        ask_model(guard)
        assert session.remaining == Decimal("0.04")


def test_a_soft_alert_tells_people_and_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the soft threshold a warning is logged, once; the agent goes on."""
    guard = Guard(store="memory://", max_cost_usd="0.05", soft_alert_usd="0.02")

    with guard.session("support-agent") as session:
        for _ in range(4):
            ask_model(guard)

    (alert,) = caplog.messages
    assert "support-agent has used $0.02 of $0.05" in alert
    assert session.status == "completed"


def test_steps_are_limited() -> None:
    """`max_steps` limits the calls of models and tools together."""
    guard = Guard(store="memory://", max_steps=2)

    with guard.session("support-agent"):
        ask_model(guard)
        with guard.call(tool="geocode"):
            pass
        with pytest.raises(BudgetExceeded, match="2 of 2"):
            ask_model(guard)


def test_tokens_are_limited() -> None:
    """`max_tokens` limits the tokens of input and output together."""
    guard = Guard(store="memory://", max_tokens=10_000)

    with guard.session("support-agent"):
        ask_model(guard, output_tokens=1_000)
        ask_model(guard, output_tokens=1_000)
        with guard.call(tool="search"):
            pass  # A tool takes none.
        with pytest.raises(BudgetExceeded, match="max_tokens"):
            ask_model(guard, output_tokens=1_000)


def test_wall_time_is_limited() -> None:
    """`max_wall_time_s` ends a session that has been active for too long."""
    clock = FakeClock()
    guard = Guard(store="memory://", max_wall_time_s=60, clock=clock)

    with guard.session("support-agent") as session:
        clock.advance(seconds=59)
        ask_model(guard)
        clock.advance(seconds=1)
        with pytest.raises(BudgetExceeded, match="max_wall_time_s"):
            ask_model(guard)

    assert session.wall_time_s == 60


def test_waiting_for_a_person_takes_no_wall_time() -> None:
    """Time counts while a session is open, and not between its visits."""
    clock = FakeClock()
    guard = Guard(store="memory://", max_wall_time_s=60, clock=clock)

    for _ in range(5):
        with guard.session("support-agent", session_id="ticket-4711") as session:
            clock.advance(seconds=10)
            ask_model(guard)
        clock.advance(seconds=3_600)  # The customer thinks about the answer.

    assert session.wall_time_s == 50


def test_a_shared_budget_holds_for_all_sessions_of_a_customer() -> None:
    """A budget per customer is charged together with the session's own."""
    guard = Guard(
        {
            "budgets": [
                {
                    "name": "customer-month",
                    "per": ["customer_id"],
                    "every": "month",
                    "max_cost_usd": "0.03",
                }
            ]
        },
        store="memory://",
    )

    for _ in range(3):
        with guard.session("support-agent", customer_id="acme"):
            ask_model(guard)

    with (
        guard.session("support-agent", customer_id="acme"),
        pytest.raises(BudgetExceeded, match="customer_id=acme"),
    ):
        ask_model(guard)
    with guard.session("support-agent", customer_id="globex") as other:
        ask_model(guard)
    assert other.spent == Decimal("0.01")


def test_a_shared_budget_opens_again_with_its_window() -> None:
    """A budget per day refuses until midnight (UTC), and then starts at zero."""
    clock = FakeClock()
    guard = Guard(
        {
            "budgets": [
                {"name": "day", "per": [], "every": "day", "max_cost_usd": "0.01"}
            ]
        },
        store="memory://",
        clock=clock,
    )

    with guard.session("support-agent"):
        ask_model(guard)
        with pytest.raises(BudgetExceeded):
            ask_model(guard)
        clock.advance(seconds=24 * 3_600)
        ask_model(guard)


def test_each_agent_has_limits_of_its_own() -> None:
    """`agents` gives limits by the agent's name; the most specific pattern wins."""
    guard = Guard(
        {
            "defaults": {"session": {"max_cost_usd": "1.00"}},
            "agents": {"onboarding_*": {"session": {"max_cost_usd": "0.05"}}},
        },
        store="memory://",
    )

    assert guard.session("support-agent").remaining == Decimal("1.00")
    assert guard.session("onboarding_mail").remaining == Decimal("0.05")


def test_observe_mode_records_and_blocks_nothing() -> None:
    """`mode="observe"` shows what limits would do, before they do it."""
    guard = Guard(store="memory://", max_cost_usd="0.01", mode="observe")

    with guard.session("support-agent") as session:
        ask_model(guard)
        ask_model(guard)

    assert session.spent == Decimal("0.02")


def test_without_limits_everything_is_recorded() -> None:
    """No limit is set by default."""
    guard = Guard(store="memory://")

    with guard.session("support-agent") as session:
        for _ in range(100):
            ask_model(guard)

    assert session.remaining is None
    assert session.spent == Decimal("1.00")


def test_names_that_a_budget_does_not_know_share_a_limit() -> None:
    """However many are invented: each has the default, and all together theirs."""
    customers = {
        "name": "customer-month",
        "per": ["customer_id"],
        "every": "month",
        "max_cost_usd": "0.02",
        "known": {"acme": {"max_cost_usd": "0.05"}},
        "unknown": {"max_cost_usd": "0.03"},
    }
    guard = Guard({"budgets": [customers]}, store="memory://")
    made: dict[str | None, int] = {}
    scopes: list[str] = []

    for customer in ("acme", "new-1", "new-2", None, "new-3"):
        with guard.session("support-agent", customer_id=customer):
            made[customer] = 0
            with pytest.raises(BudgetExceeded) as stopped:
                for _ in range(100):
                    ask_model(guard)
                    made[customer] += 1
            scopes.append(stopped.value.scope)

    assert made == {"acme": 5, "new-1": 2, "new-2": 1, None: 0, "new-3": 0}
    assert scopes == [
        "customer_id=acme",
        "customer_id=new-1",
        *["unknown customer_id"] * 3,
    ]


def test_a_known_name_keeps_the_limits_that_are_not_written_anew() -> None:
    """So that a larger amount of money is no way around the number of steps."""
    users = {
        "name": "user-day",
        "per": ["user_id"],
        "every": "day",
        "max_cost_usd": "0.01",
        "max_steps": 2,
        "known": {"u-1": {"max_cost_usd": "1.00"}},
    }
    guard = Guard({"budgets": [users]}, store="memory://")

    with guard.session("support-agent", user_id="u-1"):
        ask_model(guard)
        ask_model(guard)
        with pytest.raises(BudgetExceeded) as stopped:
            ask_model(guard)

    assert stopped.value.limit == "max_steps"
