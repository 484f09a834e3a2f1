"""A turn of a LangGraph agent: one model call, one tool call, with and without."""

from collections.abc import Callable, Iterator

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool

from benchmarks.measuring import interleaved_us, line
from guardrails import Guard
from guardrails.testing import ScriptedChatModel

__all__ = ["measure_agent"]

TURNS = 10


def measure_agent() -> Iterator[str]:
    """Measures a turn inside and outside of `guard.session`, memory store."""
    guard = Guard({}, store="memory://", max_cost_usd="1000000")
    run = _agent()

    def guarded() -> None:
        with guard.session("bench", customer_id="acme"):
            run()

    bare_us, guarded_us = interleaved_us(run, guarded, rounds=9, calls=10)
    added = (guarded_us - bare_us) / TURNS
    yield line(
        "LangGraph turn, added by the guard",
        f"{added:.0f} us",
        f"{bare_us / TURNS:.0f} us",
        added * TURNS / bare_us,
        "<= 0.10 of the unguarded turn",
    )


def _agent() -> Callable[[], object]:
    @tool
    def lookup(number: int) -> str:
        """Looks a number up."""
        return f"result {number}"

    def script(_: int, messages: object) -> AIMessage:
        assert isinstance(messages, list)
        done = sum(isinstance(message, ToolMessage) for message in messages)
        if done == TURNS:
            return AIMessage(content="done")
        call = {"name": "lookup", "args": {"number": done}, "id": f"c{done}"}
        return AIMessage(content="", tool_calls=[call])

    agent = create_agent(ScriptedChatModel(script=script), [lookup])
    return lambda: agent.invoke({"messages": [("user", "go")]})
