"""Strict providers: what they accept as a history, and nothing else."""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

__all__ = ["defects_of"]


def defects_of(messages: Sequence[BaseMessage]) -> list[str]:
    """Returns what a provider would refuse: every call is answered once, at once."""
    defects: list[str] = []
    open_calls: set[str | None] = set()
    for index, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in open_calls:
                defects.append(f"{index}: answers no call")
            open_calls.discard(message.tool_call_id)
            continue
        if open_calls:
            defects.append(f"{index}: {len(open_calls)} calls are not answered yet")
        open_calls = set()
        if isinstance(message, AIMessage):
            open_calls = {call["id"] for call in message.tool_calls}
            if not message.content and not open_calls:
                defects.append(f"{index}: says nothing")
    if open_calls:
        defects.append("the end: calls are not answered")
    return defects
