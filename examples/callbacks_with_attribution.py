"""Charges any LangChain runnable to a customer, a feature and a prompt version."""

from pathlib import Path

from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate

from guardrails import Guard
from guardrails.testing import ScriptedChatModel
from guardrails_langchain import GuardCallbackHandler

# A model that plays a script. For a real one: model = ChatOpenAI(model="gpt-4o")
model = ScriptedChatModel(
    script=lambda *_: AIMessage(content="The customer wants a refund."),
    input_tokens=3_000,
    output_tokens=100,
)
chain = ChatPromptTemplate.from_template("Summarize this ticket: {ticket}") | model

config = Path(__file__).with_name("guardrails.yaml")
guard = Guard(config, store="memory://")

# All that runs inside is guarded and charged; nothing is passed to the chain.
with guard.session(
    "summarizer",
    customer_id="acme",
    user_id="u-7",
    feature="ticket-summary",
    prompt_version="v12",
    tags={"env": "prod"},
) as session:
    chain.invoke({"ticket": "It arrived broken."})
    chain.invoke({"ticket": "It did not arrive."})

print(f"spent ${session.spent} in {session.steps} steps, {session.status}")
print(f"remaining ${session.remaining}")
for event in session.events():
    who = event.attribution
    print(f"{event.model} for {who.customer_id}/{who.feature}/{who.prompt_version}")

# Where a session cannot be opened around the run, a callback does the same.
handler = GuardCallbackHandler(guard, agent="summarizer", customer_id="globex")
chain.invoke(
    {"ticket": "Thank you!"},
    {"callbacks": [handler], "metadata": {"session_id": "s-2"}},
)
print(f"globex ${guard.session(session_id='s-2').spent}")
