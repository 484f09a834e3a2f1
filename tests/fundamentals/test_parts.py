"""Parts: inside a session, an agent and a tool may have limits of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

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
    maps = Guard(MAPS, store="memory://")
    with pytest.raises(ConfigurationError, match="max_cost_usd: '1' cannot be raised"):
        maps.raise_limit("ticket-7", tool="maps/geocode", max_cost_usd="1")


CHILD = """
import sys
from guardrails import BudgetExceeded, Guard
guard = Guard()
with guard.session(*sys.argv[1:]) as session:
    made = 0
    try:
        for _ in range(50):
            with guard.call(tool="look", cost_usd="0.01"):
                made += 1
    except BudgetExceeded as stop:
        print(made, stop.scope, session.attribution.agent_path)
"""


def test_a_child_process_works_within_all_that_is_around_it(
    empty_directory: Path,
) -> None:
    """The sessions, and the agents in them: each has what the others leave."""
    config = {
        "agents": {
            "router": {"session": {"max_cost_usd": "0.09"}},
            "researcher": {"session": {"max_cost_usd": "0.05"}},
            "reader": {"session": {"max_cost_usd": "0.02"}},
        }
    }
    (empty_directory / "guardrails.yaml").write_text(json.dumps(config))
    guard = Guard(store=f"sqlite:///{empty_directory / 'ledger.sqlite3'}")
    done: list[str] = []

    def child(*agent: str) -> None:
        env = {**os.environ, **guard.child_env()}
        command = [sys.executable, "-c", CHILD, *agent]
        done.append(subprocess.check_output(command, env=env, text=True).strip())

    with guard.session("router") as outer:
        with guard.session("researcher") as inner:
            child("reader")  # An agent inside the session has its part of it,
            child()  # the session's own agent what is left there.
        with guard.session("researcher"):
            child()  # Another session, in what is left around it.
    spent = [inner.spent, outer.spent]
    guard.close()

    path = ("router", "researcher")
    assert done == [
        f"2 session,agent=reader {(*path, 'reader')}",
        f"3 session {path}",
        f"4 session {outer.session_id} {path}",
    ]
    assert spent == [Decimal("0.05"), Decimal("0.09")]


CHILD_WITH_OWN_SESSIONS = """
from guardrails import BudgetExceeded, Guard
guard, made = Guard(), 0
try:
    for number in range(20):
        with guard.session("reader", session_id=f"own-{number}") as session:
            with guard.call(tool="look", cost_usd="0.01"):
                made += 1
except BudgetExceeded:
    print(made, session.spent)
"""


def test_a_session_that_a_child_process_names_is_within_its_parents(
    empty_directory: Path,
) -> None:
    """As a session in a session of one process is: it is charged to both."""
    store = f"sqlite:///{empty_directory / 'ledger.sqlite3'}"
    guard = Guard({}, store=store, max_cost_usd="0.03")
    with guard.session("router") as outer:
        done = subprocess.check_output(
            [sys.executable, "-c", CHILD_WITH_OWN_SESSIONS],
            env={**os.environ, **guard.child_env()},
            text=True,
        )
    spent = outer.spent
    guard.close()

    assert done.split() == ["3", "0"]
    assert spent == Decimal("0.03")


def test_a_child_process_works_within_sessions_that_have_no_agent(
    empty_directory: Path,
) -> None:
    """An agent of its own is one inside them, and has no budget beside theirs."""
    config = {
        "defaults": {"session": {"max_cost_usd": "0.03"}},
        "agents": {"reader": {"session": {"max_cost_usd": "0.09"}}},
    }
    (empty_directory / "guardrails.yaml").write_text(json.dumps(config))
    guard = Guard(store=f"sqlite:///{empty_directory / 'ledger.sqlite3'}")
    with guard.session() as outer, guard.session(session_id="inner") as inner:
        env = {**os.environ, **guard.child_env()}
        command = [sys.executable, "-c", CHILD, "reader"]
        done = subprocess.check_output(command, env=env, text=True).strip()
        spent = [inner.spent, outer.spent]
    guard.close()

    assert done == "3 session ('reader',)"
    assert spent == [Decimal("0.03"), Decimal("0.03")]
