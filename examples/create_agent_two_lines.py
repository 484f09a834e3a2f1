"""Guard an agent of `create_agent` where it is made: two lines.

The model plays a script, so that this runs offline. For a real one pass, for
example, `"openai:gpt-4o"` instead.
"""

from langchain.agents import create_agent
from langchain_core.messages import AIMessage

from guardrails import BudgetExceeded, Guard
from guardrails.testing import ScriptedChatModel
from guardrails_langchain import GuardMiddleware


def search(query: str) -> str:
    """Search the web."""
    return f"nothing found for {query!r}"


def never_satisfied(number, messages):
    """Ask again, in other words, for ever."""
    call = {"name": "search", "args": {"query": f"try {number}"}, "id": f"c{number}"}
    return AIMessage(content="", tool_calls=[call])


guard = Guard({}, store="memory://", max_cost_usd="0.05")  # line one
model = ScriptedChatModel(script=never_satisfied)
agent = create_agent(
    model,
    [search],
    middleware=[GuardMiddleware(guard, agent="support-agent")],  # line two
)

try:
    agent.invoke({"messages": [("user", "Where is 1 Main Street?")]})
except BudgetExceeded as stop:
    print(f"Stopped by {stop.limit}: ${stop.spent} of ${stop.allowed} used")
    print(f"The model was called {model.calls} times")
