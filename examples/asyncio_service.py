"""Serves many customers at once; each has a monthly budget that all its runs share."""

import asyncio

from langchain.agents import create_agent
from langchain_core.messages import AIMessage

from guardrails import CallRefused, Guard, SessionStopped
from guardrails.testing import ScriptedChatModel

guard = Guard(
    {
        "defaults": {"session": {"max_cost_usd": "0.05", "max_steps": 20}},
        "budgets": [
            {
                "name": "customer-month",
                "per": ["customer_id"],
                "every": "month",
                "max_cost_usd": "0.03",
                "soft_alert_ratio": [0.8],
            }
        ],
    },
    store="memory://",
)

# A model that plays a script. For a real one: model = "openai:gpt-4o"
model = ScriptedChatModel(
    script=lambda *_: AIMessage(content="Done."),
    input_tokens=1_600,
    output_tokens=100,
)
agent = create_agent(model, [])


question = "Where is my order? " * 100  # 1,900 bytes: never more than 1,900 tokens.


async def handle(customer_id: str) -> str:
    try:
        async with guard.session("service", customer_id=customer_id):
            await agent.ainvoke({"messages": [("user", question)]})
    except SessionStopped:
        return "the budget is used up"
    except CallRefused:
        return "what is left of the budget is held by calls in flight"
    return "answered"


async def main() -> None:
    customers = ["acme"] * 8 + ["globex"] * 2
    replies = await asyncio.gather(*[handle(name) for name in customers])
    for name, reply in zip(customers, replies, strict=True):
        print(f"{name}: {reply}")


asyncio.run(main())
