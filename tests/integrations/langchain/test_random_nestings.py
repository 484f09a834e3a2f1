"""Agents, chains and graphs inside one another at random: each call counts once.

Each level is given its callbacks in some way of its own, and swallows errors or not.
Whatever it is, all that runs below is charged to the session at the top.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import END, START, StateGraph

from guardrails import BudgetExceeded
from guardrails_langchain import GuardCallbackHandler, GuardMiddleware
from tests.integrations.langchain.constructs import ASK, Messages
from tests.integrations.langchain.rig import Rig, says

Target = Runnable[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Level:
    """One runnable, and what it calls."""

    kind: str
    callbacks: str
    """How it is given its callbacks."""
    swallows: bool
    """Whether it hides the errors of what it calls."""
    below: tuple["Level", ...] = ()


def _levels(below: st.SearchStrategy[Level]) -> st.SearchStrategy[Level]:
    return st.builds(
        Level,
        kind=st.sampled_from(sorted(KINDS)),
        callbacks=st.sampled_from(sorted(CALLBACKS)),
        swallows=st.booleans(),
        below=st.lists(below, min_size=1, max_size=2).map(tuple),
    )


def _agent(rig: Rig, work: Callable[[str], str]) -> Target:
    return create_agent(rig.model(rig.calls_once()), [rig.tool(work=work)])


def _chain(rig: Rig, work: Callable[[str], str]) -> Target:
    return RunnableLambda(lambda state: work("q")) | rig.model(says())


def _graph(rig: Rig, work: Callable[[str], str]) -> Target:
    graph = StateGraph(Messages)
    graph.add_node("work", lambda state: {"messages": [("ai", work("q"))]})
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    return graph.compile()


KINDS = {"agent": _agent, "chain": _chain, "graph": _graph}

CALLBACKS: dict[str, Callable[[Rig, Target], Target]] = {
    "inherited": lambda rig, target: target,
    "tracer": lambda rig, target: target.with_config(callbacks=[BaseCallbackHandler()]),
    "none": lambda rig, target: target.with_config(callbacks=[]),
    "handler": lambda rig, target: target.with_config(
        callbacks=[GuardCallbackHandler(rig.guard, agent="helper")]
    ),
    "wrap": lambda rig, target: rig.guard.wrap(target, agent="helper"),
}

LEAVES = st.builds(
    Level,
    kind=st.just("model"),
    callbacks=st.sampled_from(sorted(CALLBACKS)),
    swallows=st.just(False),
)
TREES = _levels(st.recursive(LEAVES, _levels, max_leaves=5))


def build(rig: Rig, level: Level) -> Target:
    if level.kind == "model":
        return CALLBACKS[level.callbacks](rig, rig.model(says()))
    below = [
        (build(rig, one), "q" if one.kind == "model" else ASK) for one in level.below
    ]
    hidden = (Exception,) if level.swallows else ()

    def work(q: str) -> str:
        for target, value in below:
            with contextlib.suppress(*hidden):
                target.invoke(value)
        return "done"

    return CALLBACKS[level.callbacks](rig, KINDS[level.kind](rig, work))


@pytest.mark.parametrize("top", ["session", "middleware", "wrap", "handler"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(tree=TREES, steps=st.integers(1, 12))
def test_all_that_is_nested_is_charged_to_the_top(
    top: str, tree: Level, steps: int
) -> None:
    """Up to the limit, which nothing passes, and then the stop reaches the caller."""
    rig = Rig(max_steps=steps)
    names = {"agent": "main", "session_id": "s-1"}
    guards = [GuardMiddleware(rig.guard, **names)] if top == "middleware" else []
    work = rig.tool(work=lambda q: str(below.invoke(ASK)))
    agent: Target = create_agent(rig.model(rig.calls_once()), [work], middleware=guards)
    below = build(rig, tree)
    if top == "wrap":
        agent = rig.guard.wrap(agent, **names)
    elif top == "handler":
        agent = agent.with_config(callbacks=[GuardCallbackHandler(rig.guard, **names)])
    around = rig.guard.session("main", session_id="s-1") if top == "session" else None
    raised = None
    try:
        with around or contextlib.nullcontext():
            agent.invoke(ASK)
    except BudgetExceeded as stop:
        raised = stop

    account = rig.guard.account("s-1")
    assert account is not None
    assert account.steps == rig.record.runs <= steps
    assert (account.held_nano_usd, account.held_tokens) == (0, 0)
    assert (raised is not None) == rig.record.has_stopped
    assert not rig.record.started_after_stop()
