"""Guards an agent of create_agent: one line makes the guard, one attaches it."""

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from guardrails import BudgetExceeded, Guard
from guardrails.testing import ScriptedChatModel
from guardrails_langchain import GuardMiddleware


@tool
def geocode(address: str) -> str:
    """Finds the coordinates of an address."""
    return f"no match for {address}"


def never_content(turn, _):
    call = {"name": "geocode", "args": {"address": f"{turn} Main St"}, "id": f"c{turn}"}
    return AIMessage(content="", tool_calls=[call])


# A model that plays a script. For a real one: model = "openai:gpt-4o"
model = ScriptedChatModel(script=never_content, input_tokens=1_500, output_tokens=60)

guard = Guard(store="memory://", max_cost_usd="0.05")
agent = create_agent(
    model, [geocode], middleware=[GuardMiddleware(guard, agent="support-agent")]
)

try:
    agent.invoke(
        {"messages": [("user", "Where is 12 Main St?")]},
        {"configurable": {"thread_id": "ticket-4711"}},  # Also names the session.
    )
except BudgetExceeded as stop:
    print(f"{stop.agent} spent ${stop.spent} of ${stop.allowed} in {stop.steps} steps")
    name, cost_usd, calls = stop.top_costs[0]
    print(f"most of it on {name}: ${cost_usd} in {calls} calls")

print("status:", guard.session(session_id="ticket-4711").status)
