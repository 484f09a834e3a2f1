"""Guard plain functions and calls that no integration knows."""

from guardrails import Guard, LoopDetected, TokenUsage

guard = Guard({}, store="memory://", max_cost_usd="0.10")


@guard.tool(server="billing", cost_usd="0.002")
def refund(order_id: str) -> str:
    """Refund an order."""
    return f"{order_id}: no such order"


with guard.session("refund-bot", customer_id="acme") as session:
    # Any client: reserve the most it can cost, call it, book what it did cost.
    prompt = "Which orders are to be refunded?"
    with guard.call(
        model="gpt-4o",
        provider="openai",
        input_bytes=len(prompt.encode()),
        max_output_tokens=200,
    ) as call:
        call.settle(TokenUsage(input_tokens=9, output_tokens=12))

    try:
        while True:
            refund("A-1")
    except LoopDetected as stop:
        print(f"{stop.tool} was called {stop.count} times with the same result")

print(f"spent ${session.spent} in {session.steps} steps: {session.status}")
