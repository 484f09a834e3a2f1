"""Trace texts: the tool calls that a session remembers, as JSON.

With each call the whole text is written anew. So what was written of each trace is
kept with the traces: they are read again by the session's next call, mostly in the
process that wrote them, and most of them are then written again.
"""

import json

from guardrails.core.loops import ToolTrace

__all__ = ["traces_from", "traces_text"]

TEXTS_MAX = 256
"""Texts whose traces are remembered: 4 MB. Reading one takes 65 us."""

Traces = tuple[ToolTrace, ...]


class _Written(Traces):
    """Traces that know their texts."""

    texts: tuple[str, ...]


_written: dict[str, _Written] = {}


def traces_text(traces: Traces, before: Traces = ()) -> str:
    """Writes the traces of a session, oldest first.

    Args:
        traces: What to write.
        before: What was read: of those that stay the texts are known.
    """
    known: dict[int, str] = {}
    if isinstance(before, _Written):
        known = dict(zip(map(id, before), before.texts, strict=True))
    texts = [known.get(id(trace)) or _text(trace) for trace in traces]
    text = f"[{', '.join(texts)}]"
    if len(_written) >= TEXTS_MAX:
        _written.clear()
    written = _Written(traces)
    written.texts = tuple(texts)
    _written[text] = written
    return text


def traces_from(text: str) -> Traces:
    """Reads the traces of a session, oldest first."""
    known = _written.get(text)
    if known is not None:
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
