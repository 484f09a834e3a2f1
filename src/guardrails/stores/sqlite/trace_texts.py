"""Trace texts: the tool calls that a session remembers, as JSON.

With each call the whole text is written anew. So what was written of each trace is
kept with the traces: they are read again by the session's next call, mostly in the
process that wrote them, and all but the oldest are then written again.
"""

import json

from guardrails.core.loops import ToolTrace

__all__ = ["Traces", "WrittenTraces", "traces_from", "written_traces"]

SESSIONS_MAX = 256
"""Sessions whose traces are remembered: 9 MB. Reading those of one takes 65 us."""

Traces = tuple[ToolTrace, ...]


class WrittenTraces(Traces):
    """Traces that know their texts."""

    texts: tuple[str, ...]
    """One per trace."""
    text: str
    """Of all."""


_written: dict[str, WrittenTraces] = {}


def written_traces(key: str, traces: Traces, before: Traces = ()) -> WrittenTraces:
    """Writes the traces of a session, oldest first.

    Args:
        key: The session's.
        traces: What to write.
        before: What was read or written last: of those that stay the texts are known.
    """
    written = WrittenTraces(traces)
    written.texts = _texts(traces, before)
    written.text = f"[{', '.join(written.texts)}]"
    if len(_written) >= SESSIONS_MAX and key not in _written:
        _written.clear()
    _written[key] = written
    return written


def traces_from(key: str, text: str) -> Traces:
    """Reads the traces of a session, oldest first."""
    known = _written.get(key)
    if known is not None and known.text == text:
        return known
    return tuple(
        ToolTrace(
            tool=tool,
            arguments_digest=arguments,
            result_digest=result,
            call_id=call_id,
            cost_nano_usd=cost,
        )
        for tool, arguments, result, call_id, cost in json.loads(text)
    )


def _texts(traces: Traces, before: Traces) -> tuple[str, ...]:
    """Writes each trace, or only the last if the others are the last of before."""
    if traces and isinstance(before, WrittenTraces):
        first = len(before) - len(traces) + 1
        if first >= 0 and before[first:] == traces[:-1]:
            return (*before.texts[first:], _text(traces[-1]))
    return tuple([_text(trace) for trace in traces])


def _text(trace: ToolTrace) -> str:
    return json.dumps(
        (
            trace.tool,
            trace.arguments_digest,
            trace.result_digest,
            trace.call_id,
            trace.cost_nano_usd,
        )
    )
