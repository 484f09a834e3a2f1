"""A day of 847 sessions, one of which asks a geocoder the same thing 1,786 times."""

import sys
from pathlib import Path

from guardrails import Guard, TokenUsage
from guardrails.system.clock import SystemClock
from guardrails.testing import FakeClock

SESSIONS = 847
OUTLIER = 631
PAUSE_S = 90
"""From one session to the next: all of them take 22 hours."""

TURNS, RETRIES = 47, 38
"""How often the outlier's agent thinks again, and what its tool tries each time."""

if Path("fleet.sqlite3").exists():
    sys.exit("fleet.sqlite3 has that day already. Delete it to make it anew.")

# A day that began 23 hours ago passes in seconds: this clock goes when it is told to.
clock = FakeClock(now_ms=SystemClock().now_ms() - 23 * 3_600_000)
guard = Guard(clock=clock)


def think(tokens_in: int, tokens_out: int) -> None:
    """Stands for a call of the model."""
    with guard.call(model="fleet-large", input_tokens=tokens_in) as call:
        clock.advance(seconds=1.5)
        call.settle(TokenUsage(input_tokens=tokens_in, output_tokens=tokens_out))


def use(server: str, tool: str, about: str, result: str) -> None:
    """Stands for a call of a tool."""
    with guard.call(server=server, tool=tool, arguments=about) as call:
        clock.advance(seconds=0.1)
        call.settle(result=result)


for number in range(1, SESSIONS + 1):
    is_analyst, ticket = number % 5 == 0, f"ticket-{number:03d}"
    agent, least = ("analyst", 3) if is_analyst else ("support", 1)
    turns = TURNS if number == OUTLIER else least + number % 3
    customer = "acme" if number == OUTLIER else f"customer-{number % 97:02d}"
    with guard.session(agent, customer_id=customer, session_id=ticket):
        for turn in range(turns):
            think(4_500 + 500 * turn, 1_000 if number == OUTLIER else 300)
            if number == OUTLIER:  # What the tool does is no business of the model.
                for _ in range(RETRIES):
                    use("geocoding-mcp", "geocode", "1 Main Street", "try again")
            elif is_analyst:
                use("postgres-mcp", "query", f"{ticket}/{turn}", "rows")
            elif turn == 0:
                use("crm-mcp", "find_ticket", ticket, "found")
            elif turn == 1:
                use("geocoding-mcp", "geocode", ticket, "found")
            else:
                use("email-mcp", "send_email", f"{ticket}/{turn}", "sent")
    clock.advance(seconds=PAUSE_S)

guard.close()
print(f"{SESSIONS} sessions are in fleet.sqlite3")
