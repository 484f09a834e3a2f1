"""Responses: whether OpenAI's Responses API is asked, and whose bound wins there.

ChatOpenAI calls its own bound on output `max_completion_tokens`, and one that is bound
to it `max_tokens`. To the Chat Completions API it sends the one that was bound; to
the Responses API its own, whatever was bound (langchain-openai 1.7.4, in
`_construct_responses_api_payload`). This can go when both send the same.
"""

from collections.abc import Mapping
from typing import Any, cast

__all__ = ["OWN_BOUND", "asks_responses"]

OWN_BOUND = "max_completion_tokens"
"""The bound on output of a model itself. No other wins over it in the Responses API."""

_ONLY_THERE = (
    "context_management",
    "include",
    "previous_response_id",
    "reasoning",
    "text",
    "truncation",
)
"""Members of a request that ChatOpenAI sends to that API alone."""

_TOOLS_ONLY_THERE = "gpt-6"
"""How the names of models begin that ChatOpenAI gives tools by that API alone."""


def asks_responses(asked: Mapping[str, Any], made_with: Mapping[str, Any]) -> bool:
    """Whether ChatOpenAI asks the Responses API, as it decides that itself.

    Args:
        asked: What the request asks for.
        made_with: What the model was made with.
    """
    chosen = made_with.get("use_responses_api")
    if isinstance(chosen, bool):
        return chosen
    found = asked.get("tools")
    tools = cast("list[object]", found) if isinstance(found, list | tuple) else []
    return (
        any(asked.get(name) is not None for name in _ONLY_THERE)
        or any(map(_is_built_in, tools))
        or (bool(tools) and str(asked.get("model")).startswith(_TOOLS_ONLY_THERE))
    )


def _is_built_in(tool: object) -> bool:
    """Whether a tool is none that the program runs itself."""
    if not isinstance(tool, Mapping):
        return False
    kind = cast("Mapping[str, object]", tool).get("type")
    return kind is not None and kind != "function"
