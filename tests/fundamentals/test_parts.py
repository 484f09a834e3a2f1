"""Parts: inside a session, an agent and a tool may have limits of their own."""

from collections.abc import Callable
from decimal import Decimal

import pytest

from guardrails import BudgetExceeded, ConfigurationError, Guard, TokenUsage
from guardrails.core.calls import ModelCall, Outcome, ToolCall

MAPS = {"tools": {"maps/*": {"cost_per_call_usd": "0.01", "max_calls": 3}}}

TEAM = {
    "defaults": {"session": {"max_cost_usd": "0.10"}},
    "agents": {
        "router": {"session": {"max_cost_usd": "0.06"}},
        "researcher": {"session": {"max_cost_usd": "0.02"}},
    },
}

CENT = ModelCall(
    model="gpt-4o", provider="openai", input_tokens_max=4_000, output_tokens_max=0
)


def call_tool(guard: Guard, name: str, *, server: str = "maps") -> None:
    with guard.call(tool=name, server=server):
        pass


def ask_model(guard: Guard) -> None:
    """Stands for any call of a model: 4,000 tokens in are $0.01."""
    with guard.call(
        model="gpt-4o", provider="openai", input_tokens=4_000, max_output_tokens=0
    ) as call:
        call.settle(TokenUsage(input_tokens=4_000, output_tokens=0))


def until_stopped(call: Callable[[], object]) -> tuple[int, BudgetExceeded]:
    """Returns how many calls were made, and what stopped them."""
    made = 0
    while True:
        try:
            call()
        except BudgetExceeded as stop:
            return made, stop
        made += 1
        assert made < 100


def test_a_tool_is_called_as_often_as_its_rule_says() -> None:
    """The tools that one pattern stands for are counted together, per session."""
    guard = Guard(MAPS, store="memory://")

    with guard.session("support-agent", session_id="ticket-7") as session:
        call_tool(guard, "geocode")
        call_tool(guard, "route")
        call_tool(guard, "geocode")
        with pytest.raises(BudgetExceeded) as stopped:
            call_tool(guard, "geocode")
        call_tool(guard, "send", server="email")  # Nothing limits that one.
    with guard.session("support-agent"):
        call_tool(guard, "geocode")  # Another session, another count.

    assert session.status == "completed"
    assert (stopped.value.limit, stopped.value.allowed) == ("max_tool_calls", 3)
    assert stopped.value.scope == "session,tool=maps/*"
    assert "guard.raise_limit('ticket-7', tool='maps/*', max_tool_calls=...)" in str(
        stopped.value
    )


def test_the_most_specific_rule_that_limits_a_tool_wins() -> None:
    """A rule that only gives a price takes no limit away."""
    guard = Guard(
        {
            "tools": {
                "*": {"max_calls": 9},
                "maps/*": {"max_calls": 2},
                "maps/geocode": {"cost_per_call_usd": "0.01"},
            }
        },
        store="memory://",
    )

    with guard.session("support-agent"):
        assert until_stopped(lambda: call_tool(guard, "geocode"))[0] == 2
        assert until_stopped(lambda: call_tool(guard, "send", server="mail"))[0] == 9


def test_the_limit_of_a_tool_can_be_raised() -> None:
    """For one session, by the tool's name or the pattern of its rule."""
    guard = Guard(MAPS, store="memory://")

    with guard.session("support-agent", session_id="ticket-7"):
        until_stopped(lambda: call_tool(guard, "geocode"))
        guard.raise_limit("ticket-7", tool="maps/geocode", max_tool_calls=5, by="ops")
        made, stop = until_stopped(lambda: call_tool(guard, "route"))

    assert (made, stop.allowed) == (2, 5)
    (entry,) = guard.audit()
    assert entry.subject == "session ticket-7, tool maps/*"
    assert entry.policy is not None
    assert entry.policy.tool_calls == 3


def test_a_tool_in_a_nested_session_counts_in_both() -> None:
    """A new session inside is no way around the limit of the one around it."""
    guard = Guard(MAPS, store="memory://")

    with guard.session("router"):
        call_tool(guard, "geocode")
        call_tool(guard, "geocode")
        with guard.session("helper"):
            assert until_stopped(lambda: call_tool(guard, "geocode"))[0] == 1


def test_an_agent_inside_a_session_has_its_own_part_of_it() -> None:
    """It may use what its own budget says, as far as the session has that left."""
    guard = Guard(TEAM, store="memory://")

    with guard.session("router") as session:
        who = session.attribution.under("researcher")

        def research() -> None:
            session.begin(CENT, attribution=who).finish(Outcome(cost_nano_usd=10**7))

        made, stop = until_stopped(research)
        assert (made, stop.scope) == (2, "session,agent=researcher")
        made, stop = until_stopped(lambda: ask_model(guard))
        assert (made, stop.scope) == (4, "session")

    assert session.spent == Decimal("0.06")


def test_an_agent_without_a_budget_takes_what_its_session_has_left() -> None:
    """So does one of the session's own name: it is the session's agent."""
    guard = Guard(TEAM, store="memory://")

    with guard.session("router") as session:
        for agent in ("writer", "router"):
            who = session.attribution.under(agent)
            session.begin(CENT, attribution=who).finish(Outcome(cost_nano_usd=10**7))
        made, stop = until_stopped(lambda: ask_model(guard))

    assert (made, stop.scope) == (4, "session")


def test_nested_sessions_of_an_agent_have_a_budget_each() -> None:
    """And all of them together the budget of the session around them."""
    guard = Guard(TEAM, store="memory://")

    with guard.session("router"):
        for _ in range(3):
            with guard.session("researcher"):
                made, stop = until_stopped(lambda: ask_model(guard))
                assert (made, stop.scope) == (2, "session")
        with guard.session("researcher"):
            made, stop = until_stopped(lambda: ask_model(guard))

    assert made == 0
    assert stop.scope.startswith("session s")


def test_an_agent_between_two_sessions_is_limited_by_both() -> None:
    """What a session inside spends counts for the agent that opened it."""
    guard = Guard(
        {"agents": {"researcher": {"session": {"max_model_calls": 2}}}},
        store="memory://",
    )

    with guard.session("router") as outer:
        call = outer.begin(
            ToolCall(tool="look"), attribution=outer.attribution.under("researcher")
        )
        call.enter_scope()
        with guard.session("reader") as inner:
            assert inner.attribution.agent_path == ("router", "researcher", "reader")
            made, stop = until_stopped(lambda: ask_model(guard))
        call.leave_scope()
        call.release()

    assert made == 2
    assert stop.scope == f"session {outer.session_id},agent=researcher"


def test_the_limit_of_a_part_can_be_raised_only_where_there_is_one() -> None:
    """Anything else would be a raise without effect."""
    guard = Guard(TEAM, store="memory://")

    guard.raise_limit("ticket-7", agent="researcher", max_cost_usd="1")
    with pytest.raises(ConfigurationError, match="'writer' has no budget under agents"):
        guard.raise_limit("ticket-7", agent="writer", max_cost_usd="1")
    with pytest.raises(ConfigurationError, match="'maps/x' has no max_calls"):
        guard.raise_limit("ticket-7", tool="maps/x", max_tool_calls=1)
    with pytest.raises(ConfigurationError, match="are two things"):
        guard.raise_limit("t", tool="x", agent="researcher", max_steps=1)
