"""Searches: how many searches of the web a provider bills beside the tokens."""

from typing import cast

from guardrails_langchain.reading.answers import (
    Answer,
    blocks_in,
    count_of,
    get,
    model_of,
)

__all__ = ["web_searches"]

SEARCHES_COUNTED_MAX = 10_000
"""Queries of Google that are looked at."""

_RESULT = "web_search_tool_result"

_SEARCH_MODELS = ("-search-api", "-search-preview")
"""Of OpenAI, for chat completions, whose answers do not say so."""

_GROUNDED_BY_PROMPT = ("gemini-1", "gemini-2")


def web_searches(answer: Answer) -> int:
    """Counts searches as reported, else the calls of them in the answer."""
    for source in answer.sources:
        used = get(get(source, "usage"), "server_tool_use")
        searches = count_of(get(used, "web_search_requests"))
        if searches is not None:
            return searches
    found = 0
    for candidates in answer.prompts:
        found += sum(map(_searches_in, blocks_in(candidates[0])))
    found += _google_searches(answer)
    return found or _always_searches(answer)


def _always_searches(answer: Answer) -> int:
    """Counts the search of a model that makes one for whatever it is asked."""
    model = model_of(answer) or ""
    return int(any(name in model for name in _SEARCH_MODELS))


def _searches_in(blocks: list[object]) -> int:
    """Counts searches by their calls, and by what they have found or failed with.

    Anthropic bills none that fails. In a stream langchain-anthropic (1.7.10) may merge
    a call into a text before it, where only its result is left.
    """
    ends = [has_found for has_found in map(_has_found, blocks) if has_found is not None]
    calls = sum(map(_is_web_search, blocks))
    return max(sum(ends), calls - ends.count(False))


def _has_found(block: object) -> bool | None:
    """Whether a search of Anthropic has worked; `None` if this is no result of one."""
    if get(block, "type") == _RESULT:
        return isinstance(get(block, "content"), list)
    if get(get(block, "extras"), "block_type") == _RESULT:
        return get(block, "status") != "error"
    return None


def _google_searches(answer: Answer) -> int:
    """Counts Google's searches: by query, before Gemini 3 by prompt that has any.

    So they are billed (Gemini API pricing, 2026-11).
    """
    found = 0
    for candidates in answer.prompts:
        grounding = get(get(candidates[0], "response_metadata"), "grounding_metadata")
        queries = get(grounding, "web_search_queries")
        if isinstance(queries, list):
            said = [q for q in cast("list[object]", queries) if isinstance(q, str)]
            asked = len(set(said[:SEARCHES_COUNTED_MAX]))
            is_by_prompt = (model_of(answer) or "").startswith(_GROUNDED_BY_PROMPT)
            found += min(asked, 1) if is_by_prompt else asked
    return found


def _is_web_search(block: object) -> bool:
    kind = get(block, "type")
    is_call = kind == "web_search_call" or (
        kind in ("server_tool_use", "server_tool_call")
        and get(block, "name") == "web_search"
    )
    # OpenAI bills searches, and not that pages are opened and looked through.
    action = get(get(block, "action") or get(block, "args"), "type")
    return is_call and action in (None, "search")
