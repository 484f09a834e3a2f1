"""Stages: one part of a conversation, run by whichever process comes to it.

`python -m tests.integrations.langchain.stages NAME FOLDER` runs one in a process of
its own. All that two processes share is in the folder: the ledger, the threads, and
a line for each time that a model or a tool really ran.
"""

import contextlib
import json
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from guardrails import BudgetExceeded, CallRefused
from guardrails.stores import open_store
from guardrails_langchain import GuardMiddleware
from guardrails_langchain.agents.requests import CLOSING_TEXT
from tests.integrations.langchain.rig import Rig
from tests.integrations.langchain.strict import defects_of

__all__ = ["STAGES", "run", "runs_in"]

THREAD: dict[str, Any] = {"configurable": {"thread_id": "t-1"}}
ROUNDS = 3
"""Of two tools each, until the model answers by itself."""

ASK = {"messages": [("user", "go on")]}
STAGES: dict[str, Any] = {
    "ask": ASK,
    "go on": None,
    "resume": Command(resume={"max_cost_usd": "1", "by": "ann"}),
}


def run(name: str, folder: Path, on_limit: str, thread: str = "t-1") -> dict[str, Any]:
    """Runs one stage, and returns what it came to."""
    store = open_store(f"sqlite:///{folder}/ledger.sqlite3")
    options: dict[str, Any] = {"on_limit": on_limit, "max_cost_usd": "0.10"}
    if on_limit == "finish":
        options["closing_reserve_usd"] = "0.02"
    rig = Rig(store=store, **options)
    config = {"configurable": {"thread_id": thread}}
    connection = sqlite3.connect(folder / "threads.sqlite3", check_same_thread=False)
    with contextlib.closing(connection), contextlib.closing(rig.guard):
        agent = agent_of(rig, folder, SqliteSaver(connection))
        end: dict[str, Any] = {"raised": None}
        try:
            agent.invoke(STAGES[name], config)
        except (BudgetExceeded, CallRefused) as error:
            end["raised"] = type(error).__name__
        state = agent.get_state(config)
        messages = state.values["messages"]
        return {
            **end,
            "next": list(state.next),
            "questions": [interrupt.value for interrupt in state.interrupts],
            "defects": defects_of(messages),
            "last": messages[-1].content,
            "mark": messages[-1].response_metadata.get("guardrails"),
            "results": [m.content for m in messages if m.type == "tool"],
        }


def runs_in(folder: Path) -> list[str]:
    """Returns what really ran, in all processes, in order."""
    log = folder / "runs.log"
    return log.read_text(encoding="utf-8").split() if log.exists() else []


def agent_of(rig: Rig, folder: Path, saver: Any) -> Any:
    def note(kind: str) -> None:
        with (folder / "runs.log").open("a", encoding="utf-8") as log:
            log.write(f"{kind}\n")

    def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage | Exception:
        closing = messages[-1].content == CLOSING_TEXT
        note("closing" if closing else "model")
        if closing:
            return AIMessage("this is what I have")
        since = [m.type for m in messages][::-1].index("human")
        round_ = len([m for m in messages[-since:] if m.type == "ai"]) if since else 0
        if round_ == ROUNDS:
            return AIMessage("done")
        calls = [
            {"name": "search", "args": {"q": f"{len(messages)}-{n}"}, "id": f"c{n}"}
            for n in range(2)
        ]
        calls = [{**call, "id": f"{len(messages)}{call['id']}"} for call in calls]
        return AIMessage("", tool_calls=calls)

    def work(q: str) -> str:
        note("tool")
        return f"found {q}"

    guard = GuardMiddleware(rig.guard, agent="main", session_id="t-1")
    return create_agent(
        rig.model(script), [rig.tool(work=work)], middleware=[guard], checkpointer=saver
    )


if __name__ == "__main__":
    name, folder, *options = sys.argv[1:]
    sys.stdout.write(json.dumps(run(name, Path(folder), *options)))
