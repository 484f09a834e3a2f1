"""A process that calls tools until its budget is used up, and prints how many."""

import asyncio
import sys

from guardrails import Guard, SessionStopped
from tests.integrations.mcp.peers import Seen, server, session_of


async def main(calls: int) -> int:
    seen, guard = Seen(), Guard()
    async with session_of(guard, server(seen), session_id="s-1") as session:
        for number in range(calls):
            try:
                await session.call_tool("echo", {"q": f"other {number}"})
            except SessionStopped:
                break
    guard.close()
    return len(seen.calls)


sys.stdout.write(f"{asyncio.run(main(int(sys.argv[1])))}")
