"""Suggested limits: as YAML for `guardrails.yaml`, with the reason of each, or JSON."""

import json
from collections.abc import Iterator, Sequence

from guardrails.cli.formats.documents import document
from guardrails.cli.formats.times import back_text
from guardrails.cli.screens.amounts import money_cells
from guardrails.cli.screens.limits import limit_text
from guardrails.cli.screens.names import escaped, safe
from guardrails.core.decisions import format_amount, format_count
from guardrails.core.policy import Measure
from guardrails.reports.suggestions import SESSIONS_MIN, SuggestedLimit, Suggestion

__all__ = ["suggestions_json", "suggestions_yaml"]

SCHEMA_VERSION = 1

_WILD = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})
"""Agents are matched by patterns; a name stands for itself."""


def suggestions_yaml(found: Sequence[Suggestion], *, hours: int) -> Iterator[str]:
    """Yields lines that are a configuration, with a reason behind each limit."""
    yield f"# From the sessions of the {back_text(hours)}: what 99 of 100 needed at"
    yield "# most, half as much again, rounded up."
    yield "# Try it: guardrails simulate --config FILE"
    yield "version: 1"
    own = [one for one in found if one.limits]
    for one in own:
        if one.agent is None:
            yield f"defaults:  # {format_count(one.sessions, 'session')} of no agent"
            yield from _session(one, indent="  ")
    if any(one.agent is not None for one in own):
        yield "agents:"
    for one in own:
        if one.agent is not None:
            name = json.dumps(one.agent.translate(_WILD), ensure_ascii=False)
            yield f"  {escaped(name)}:  # {format_count(one.sessions, 'session')}"
            yield from _session(one, indent="    ")
    for one in found:
        if not one.limits:
            yield (
                f"# {safe(one.agent or '(no agent)')}: "
                f"{format_count(one.sessions, 'session')}, too few to say; "
                f"{SESSIONS_MIN} would do."
            )


def suggestions_json(found: Sequence[Suggestion], *, hours: int) -> str:
    """Writes suggestions as one JSON object; amounts are texts in the limit's unit."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "hours": hours,
        "agents": [
            {
                "agent": one.agent,
                "sessions": one.sessions,
                "limits": {limit.measure.value: _limit(limit) for limit in one.limits},
            }
            for one in found
        ],
    }
    return document(content)


def _session(one: Suggestion, *, indent: str) -> Iterator[str]:
    yield f"{indent}session:"
    for limit in one.limits:
        yield f"{indent}  # {_reason(limit)}"
        value = limit_text(limit.measure, limit.limit)
        yield f"{indent}  {limit.measure.value}: {value}"


def _reason(limit: SuggestedLimit) -> str:
    values = (limit.median, limit.p99, limit.most)
    if limit.measure is Measure.COST:  # Rounded: exact amounts are in the JSON.
        median, p99, most = (money_cells([value])[0] for value in values)
    else:
        median, p99, most = (format_amount(limit.measure, value) for value in values)
    beyond = "none used more"
    if limit.beyond:
        beyond = f"{format_count(limit.beyond, 'session')} used more, up to {most}"
    return f"half used up to {median}, 99 % up to {p99}; {beyond}"


def _limit(limit: SuggestedLimit) -> dict[str, object]:
    amounts = {
        "limit": limit.limit,
        "median": limit.median,
        "p99": limit.p99,
        "most": limit.most,
    }
    texts = {key: limit_text(limit.measure, value) for key, value in amounts.items()}
    return {**texts, "sessions_beyond": limit.beyond}
