"""Ends an agent with an answer instead of an exception when its budget is used up."""

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from guardrails import Guard
from guardrails.testing import ScriptedChatModel
from guardrails_langchain import GuardMiddleware


@tool
def search(query: str) -> str:
    """Searches the web."""
    return f"something about {query}"


def researcher(turn, messages):
    if "budget" in messages[-1].content:  # What the closing call says.
        found = sum(message.type == "tool" for message in messages)
        return AIMessage(content=f"After {found} searches: it is probably geese.")
    call = {"name": "search", "args": {"query": f"geese {turn}"}, "id": f"c{turn}"}
    return AIMessage(content="", tool_calls=[call])


# A model that plays a script. For a real one: model = "openai:gpt-4o"
model = ScriptedChatModel(script=researcher, input_tokens=1_500, output_tokens=60)

guard = Guard(
    store="memory://",
    max_cost_usd="0.05",
    on_limit="finish",
    closing_reserve_usd="0.01",  # Of the five cents; work stops at four.
)
agent = create_agent(
    model, [search], middleware=[GuardMiddleware(guard, agent="researcher")]
)
answer = agent.invoke(
    {"messages": [("user", "What makes that noise?")]},
    {"configurable": {"thread_id": "ticket-4711"}},
)["messages"][-1]

print(answer.content)
about = answer.response_metadata.get("guardrails", {})
if about.get("cut_short"):
    print(f"cut short by {about['limit']}: {about['allowed']}")

session = guard.session(session_id="ticket-4711")
print(f"spent ${session.spent} in {session.steps} steps, {session.status}")
