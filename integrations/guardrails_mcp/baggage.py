"""Baggage: attribution that travels with a request in its `_meta`.

MCP reserves `_meta.baggage` for the W3C header of that name (SEP-414), and the SDK 2.x
carries OpenTelemetry's baggage in it by itself. Ours are the members
`guardrails.customer_id=acme` and so on. Neither a process nor a connection is a run:
what a request says of itself therefore beats what its process was started with.
"""

from collections.abc import Mapping
from typing import cast
from urllib.parse import quote, unquote

from guardrails import Attribution
from guardrails.core.attribution import clean_name

__all__ = ["baggage_of", "names_in"]

PREFIX = "guardrails."

BAGGAGE_CHARACTERS_MAX = 8_192
"""What the W3C asks of everybody who carries baggage; more is not read."""

_DIMENSIONS = (
    "customer_id",
    "user_id",
    "feature",
    "agent",
    "session_id",
    "prompt_version",
)
"""What a request may say of itself. Not its project: accounts of two projects never
meet, so naming another one would be a way past every limit."""


def names_in(meta: object) -> dict[str, str]:
    """Returns the names that a request gives to itself.

    Args:
        meta: The request's `_meta`, as it came: anything.

    Returns:
        Clean names by dimension; a dimension that is not named is absent.
    """
    if not isinstance(meta, Mapping):
        return {}
    text = cast("Mapping[object, object]", meta).get("baggage")
    if not isinstance(text, str) or len(text) > BAGGAGE_CHARACTERS_MAX:
        return {}
    names: dict[str, str] = {}
    for member in text.split(","):
        key, _, value = member.partition(";")[0].partition("=")
        dimension = key.strip().removeprefix(PREFIX)
        if not key.strip().startswith(PREFIX) or dimension not in _DIMENSIONS:
            continue
        name = clean_name(unquote(value.strip()))
        if name is not None:
            names[dimension] = name
    return names


def baggage_of(attribution: Attribution) -> str:
    """Writes an attribution as baggage; what is unknown is left out."""
    names = ((key, attribution.value(key)) for key in _DIMENSIONS)
    return ",".join(
        f"{PREFIX}{key}={quote(name, safe='')}" for key, name in names if name
    )
