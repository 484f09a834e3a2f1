"""Flat rows: events straight from their columns, without an object for each part.

Exports read millions of them. What they say is what `flat_event` says of the same
event, which the tests compare.
"""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from guardrails.core.flat_events import FlatEvent, path_text, tags_text

__all__ = ["FLAT_COLUMNS", "flat_events_of"]

FLAT_COLUMNS = (
    "event_id",
    "time_ms",
    "project_id",
    "customer_id",
    "user_id",
    "feature",
    "agent",
    "agent_path",
    "nullif(session_id, '')",
    "agent_run_id",
    "prompt_version",
    "kind",
    "provider",
    "model",
    "server",
    "tool",
    "status",
    "error_type",
    "latency_ms",
    "bytes_in",
    "bytes_out",
    "usage",
    "cost_nano_usd",
    "price_status",
    "price_source",
    "tags",
)
"""What is read of each event: as many as `FlatEvent` has, but for its tokens."""

_AGENT, _PATH, _USAGE, _TAGS = (
    FLAT_COLUMNS.index(name) for name in ("agent", "agent_path", "usage", "tags")
)

_TOKENS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)
_NO_USAGE = (None,) * len(_TOKENS)


def flat_events_of(rows: Sequence[Sequence[Any]]) -> Iterator[FlatEvent]:
    """Yields the flat event of each row of `FLAT_COLUMNS`."""
    for row in rows:
        usage = row[_USAGE]
        yield FlatEvent._make(
            (
                *row[:_PATH],
                _path(row[_PATH], row[_AGENT]),
                *row[_PATH + 1 : _USAGE],
                *(_NO_USAGE if usage is None else _tokens(usage)),
                *row[_USAGE + 1 : _TAGS],
                _tags(row[_TAGS]),
            )
        )


@lru_cache(maxsize=4_096)
def _path(text: str | None, agent: str | None) -> str:
    """A path of one agent is not written: it is the agent."""
    if text is None:
        return path_text((agent,) if agent else ())
    return path_text(tuple(json.loads(text)))


@lru_cache(maxsize=4_096)
def _tags(text: str | None) -> str:
    pairs = json.loads(text) if text else ()
    return tags_text(tuple((key, value) for key, value in pairs))


@lru_cache(maxsize=4_096)
def _tokens(text: str) -> tuple[int, ...]:
    """Counts of 0 are not written."""
    counts: dict[str, int] = json.loads(text)
    return tuple(counts.get(name, 0) for name in _TOKENS)
