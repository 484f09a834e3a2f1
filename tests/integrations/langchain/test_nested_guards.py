"""Sessions of two guards, one inside the other: neither hides the other."""

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

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


def test_a_function_of_one_guard_is_counted_by_it_also_as_a_tool_of_the_other() -> None:
    """The call that LangChain opens for one guard is not the other's."""
    declaring = Guard({}, store="memory://")
    running = Guard({}, store="memory://")

    @tool
    @declaring.tool()
    def look(name: str) -> str:
        """Looks something up."""
        return name

    with running.session("runs") as session:
        look.invoke({"name": "x"})

    assert (declaring.current_session().steps, session.steps) == (1, 1)
