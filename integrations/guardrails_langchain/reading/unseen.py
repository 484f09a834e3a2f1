"""Unseen: what of a call only its provider sees, beside what passes through here.

Of the prompt: documents, sounds and films by a URL or an id; what the provider keeps,
such as earlier answers by their id; and what comes of tools that it runs itself. An
image by its URL is none of these: the largest one is known. Of the answer: what the
model thinks.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import BaseMessage

from guardrails.core.usage import TOKENS_MAX
from guardrails_langchain.reading.media import is_only_named, sound_tokens_max
from guardrails_langchain.reading.prompts import DEPTH_MAX, is_medium

__all__ = ["has_tools_there", "is_continued", "sounds_of", "thinks", "unseen_parts"]

_KEPT = ("cached_content", "cachedContent", "conversation", "previous_response_id")
"""Members of a request that name what the provider keeps: OpenAI's Responses API and
Gemini's (their references, 2026-11)."""

_GROUPS = (
    "additional_model_request_fields",
    "extra_body",
    "model_kwargs",
    "toolConfig",
)
"""Members that are sent as if their own members stood in their place, or as good as."""

_THINKING = (
    "reasoning",
    "reasoningConfig",
    "reasoning_effort",
    "thinking",
    "thinking_budget",
    "thinking_config",
    "thinking_level",
)
"""Members that have a model think before it answers: of OpenAI, Amazon,
Anthropic and Google."""

_TOOLS = ("mcp_servers", "web_search_options")
"""Members that name such tools beside `tools`: Anthropic's, and OpenAI's models that
search whatever they are asked."""

_RUN_THERE = (
    "code_execution",
    "code_interpreter",
    "enterprise_web_search",
    "exa_ai_search",
    "file_search",
    "google_maps",
    "google_search",
    "mcp",
    "parallel_ai_search",
    "retrieval",
    "systemTool",
    "url_context",
    "web_fetch",
    "web_search",
)
"""How the names of tools begin that OpenAI, Amazon, Anthropic and Google run
themselves, and whose results are billed as input."""


def unseen_parts(messages: Sequence[BaseMessage]) -> int:
    """Counts the media in messages that are only named, and may be long."""
    return sum(map(is_only_named, _media_of(messages)))


def sounds_of(messages: Sequence[BaseMessage]) -> int:
    """Bounds the tokens of messages that are those of sound: often dearer than text."""
    return min(sum(map(sound_tokens_max, _media_of(messages))), TOKENS_MAX)


def _media_of(messages: Sequence[BaseMessage]) -> Iterator[Mapping[str, object]]:
    for message in messages:
        if type(message.content) is not str:
            yield from _media_in(message.content, DEPTH_MAX)


def _media_in(content: object, depth: int) -> Iterator[Mapping[str, object]]:
    if not isinstance(content, list) or not depth:
        return
    for block in cast("list[object]", content):
        if isinstance(block, dict):
            part = cast("dict[str, object]", block)
            if is_medium(part):
                yield part
            for name in ("content", "output"):
                yield from _media_in(part.get(name), depth - 1)


def is_continued(asked: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a request goes on from what its provider keeps.

    Args:
        asked: What it asks for, in one or more mappings.
    """
    # A prompt that is a text is what is sent; one that is kept has an id.
    return any(
        any(members.get(name) for name in _KEPT)
        or isinstance(members.get("prompt"), Mapping)
        for members in _unfolded(asked)
    )


def has_tools_there(asked: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the provider may run tools while it answers.

    Args:
        asked: What it asks for, in one or more mappings.
    """
    return any(
        any(_is_named(members.get(name)) for name in _TOOLS)
        or any(map(_is_run_there, _listed(members.get("tools"))))
        for members in _unfolded(asked)
    )


def _is_named(value: object) -> bool:
    """Whether tools are asked for: also without options, but not by an empty list."""
    return bool(value) if isinstance(value, list | tuple) else value is not None


def thinks(asked: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a request has the model think.

    Args:
        asked: What it asks for, in one or more mappings.
    """
    return any(
        _is_on(members.get(name)) for members in _unfolded(asked) for name in _THINKING
    )


def _is_on(value: object) -> bool:
    if not value:
        return False
    if isinstance(value, Mapping):
        given = cast("Mapping[str, object]", value)
        return not {"disabled", "none"} & {
            one for one in given.values() if isinstance(one, str)
        }
    return value != "none"


def _unfolded(asked: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for members in asked:
        yield members
        for name in _GROUPS:
            group = members.get(name)
            if group and isinstance(group, Mapping):
                yield cast("Mapping[str, Any]", group)


def _listed(value: object) -> Sequence[object]:
    return cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()


def _is_run_there(tool: object) -> bool:
    given = tool if isinstance(tool, Mapping) else getattr(tool, "__dict__", {})
    members = cast("Mapping[str, object]", given)
    kind = members.get("type")
    # Gemini has a member for each kind of tool, others a type.
    names = [str(name) for name, value in members.items() if value is not None]
    names = [kind] if isinstance(kind, str) else names
    return any(name.startswith(_RUN_THERE) for name in names)
