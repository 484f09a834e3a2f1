"""Charge everything inside a session to a customer, a feature and a prompt.

No callbacks are passed: inside `guard.session` every LangChain run is guarded,
nested ones too. The model plays a script, so that this runs offline.
"""

from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate

from guardrails import Guard
from guardrails.testing import ScriptedChatModel
from guardrails_langchain import GuardCallbackHandler

guard = Guard({}, store="memory://", max_cost_usd="1.00", soft_alert_usd="0.50")
model = ScriptedChatModel(script=lambda number, messages: AIMessage(content="Short."))
chain = ChatPromptTemplate.from_template("Summarise: {ticket}") | model

with guard.session(
    "summarizer",
    customer_id="acme",
    user_id="u-7",
    feature="ticket-summary",
    prompt_version="v12",
    tags={"env": "prod"},
) as session:
    chain.invoke({"ticket": "The printer is on fire."})
    chain.invoke({"ticket": "It is out now."})

print(f"spent ${session.spent}, ${session.remaining} left, {session.steps} steps")
for event in session.events():
    who = event.attribution
    print(who.customer_id, who.feature, who.prompt_version, event.model, event.status)

# The same for one call, without a session around it:
handler = GuardCallbackHandler(guard, agent="summarizer", customer_id="globex")
chain.invoke({"ticket": "Thanks!"}, {"callbacks": [handler]})
print("globex is guarded too")
