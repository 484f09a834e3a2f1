"""Guards what no framework knows: functions as tools, and calls of any client."""

from guardrails import Guard, LoopDetected, TokenUsage

guard = Guard(store="memory://", max_cost_usd="0.10")


@guard.tool(server="billing", cost_usd="0.002")
def refund(order_id: str) -> str:
    return f"{order_id}: try again later"


def ask(question: str) -> str:
    """Calls a model, and books what its provider says that it used."""
    with guard.call(
        model="gpt-4o",
        provider="openai",
        input_bytes=len(question.encode()),
        max_output_tokens=500,
    ) as call:
        # For a real one: reply = OpenAI().responses.create(...), and its usage.
        reply, tokens_in, tokens_out = "Refund order A-17.", 40, 8
        call.settle(TokenUsage(input_tokens=tokens_in, output_tokens=tokens_out))
    return reply


with guard.session("refund-agent", customer_id="acme") as session:
    print(ask("What should be done about order A-17?"))
    try:
        for _ in range(100):
            print(refund("A-17"))
    except LoopDetected as stop:
        print(f"{stop.tool} made the same call {stop.count} times for ${stop.cost}")

print(f"spent ${session.spent}, {session.status}")
