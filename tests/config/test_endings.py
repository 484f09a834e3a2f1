"""How sessions end is configured: by default, per agent, and in code."""

from typing import Any

import pytest

from guardrails.config import load_configuration
from guardrails.core.policy import Budget, Limits, OnLimit, Policy
from guardrails.core.windows import Window

CENT = 10_000_000


def policy_of(config: Any, **overrides: Any) -> Policy:
    return load_configuration(config, environ={}, cwd=None, overrides=overrides).policy


def test_raising_is_the_default() -> None:
    assert policy_of({}).session.on_limit is OnLimit.RAISE


def test_an_agent_ends_in_its_own_way() -> None:
    """Whatever it does not say itself holds as by default."""
    session = {"max_cost_usd": 1, "closing_reserve_usd": 0.1}
    policy = policy_of(
        {
            "defaults": {"session": session, "on_limit": "finish"},
            "agents": {
                "asker": {"on_limit": "pause"},
                "small": {"session": {"max_cost_usd": 0.5}},
            },
        }
    )

    assert policy.session.on_limit is OnLimit.FINISH
    assert policy.session_budget("asker").on_limit is OnLimit.PAUSE
    assert policy.session_budget("asker").work_limits.cost_nano_usd == 100 * CENT
    assert policy.session_budget("small").on_limit is OnLimit.FINISH
    assert policy.session_budget("small").work_limits.cost_nano_usd == 40 * CENT


def test_code_wins() -> None:
    policy = policy_of(
        {"defaults": {"on_limit": "pause"}, "agents": {"asker": {"on_limit": "pause"}}},
        on_limit="finish",
        max_cost_usd="1",
        closing_reserve_usd="0.02",
    )

    assert policy.session_budget("asker").on_limit is OnLimit.FINISH
    assert policy.session.work_limits.cost_nano_usd == 98 * CENT


@pytest.mark.parametrize("reserve", [None, 50 * CENT, 60 * CENT])
def test_a_tenth_is_kept_without_a_reserve_below_the_limit(reserve: int | None) -> None:
    """The limit may come from a stronger source than the reserve."""
    budget = Budget(
        name="session",
        per=("session_id",),
        every=Window.SESSION,
        limits=Limits(cost_nano_usd=50 * CENT, steps=10, model_calls=0, tool_calls=3),
        on_limit=OnLimit.FINISH,
        closing_reserve_nano_usd=reserve,
    )

    # The closing call is one of the steps and of the model calls.
    assert budget.work_limits == Limits(
        cost_nano_usd=45 * CENT, steps=9, model_calls=0, tool_calls=3
    )
