"""An asyncio service: many sessions at once, one budget per customer and month.

All sessions of a customer draw on the same budget. Calls are reserved before
they are made, so however many run at once, none passes the limit.
"""

import asyncio

from guardrails import BudgetExceeded, CallRefused, Guard

guard = Guard(
    {
        "defaults": {"session": {"max_steps": 20}},
        "budgets": [
            {
                "name": "customer-month",
                "per": ["customer_id"],
                "every": "month",
                "max_cost_usd": "0.20",
            }
        ],
        "tools": {"maps/geocode": {"cost_per_call_usd": "0.01"}},
    },
    store="memory://",
)


async def answer(customer: str, number: int) -> bool:
    """Answer one request; returns whether the budget allowed it."""
    async with guard.session("geo-bot", customer_id=customer):
        try:
            async with guard.call(
                tool="geocode", server="maps", arguments={"request": number}
            ) as call:
                await asyncio.sleep(0)  # The paid work.
                call.settle(result=f"place {number}")
        except (BudgetExceeded, CallRefused):
            return False
        return True


async def main() -> None:
    """Serve 50 requests of each customer at the same time."""
    for customer in ("acme", "globex"):
        served = await asyncio.gather(*(answer(customer, n) for n in range(50)))
        print(f"{customer}: {sum(served)} of {len(served)} requests served")


asyncio.run(main())
