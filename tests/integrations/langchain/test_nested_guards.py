"""Sessions of two guards, one inside the other: neither hides the other."""

import pytest
from langchain_core.messages import AIMessage

from guardrails import BudgetExceeded, Guard
from guardrails_langchain.testing import ScriptedChatModel


@pytest.mark.parametrize(("outer_steps", "inner_steps"), [(3, 100), (100, 3)])
def test_both_limits_hold(outer_steps: int, inner_steps: int) -> None:
    """Whichever guard is the stricter one stops the calls."""
    outer = Guard({}, store="memory://", max_steps=outer_steps)
    inner = Guard({}, store="memory://", max_steps=inner_steps)
    model = ScriptedChatModel(script=lambda number, messages: AIMessage(content="x"))
    with outer.session("outer") as around, inner.session("inner") as within:
        for _ in range(3):
            model.invoke("hi")
        with pytest.raises(BudgetExceeded):
            model.invoke("hi")

    assert model.calls == 3
    assert around.steps == 3
    assert within.steps == 3
