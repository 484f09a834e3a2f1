"""Events: the attribution record of one settled call.

The schema is closed: names, counts, sizes, costs and digests. There is no
field that could hold a prompt, an argument, a result or an error text.
"""

from dataclasses import dataclass

from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallKind, CallStatus, tool_name
from guardrails.core.layers import LayerPart
from guardrails.core.usage import Charge, TokenUsage

__all__ = ["EVENT_SCHEMA_VERSION", "Event"]

EVENT_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One model call or tool call that was made, and what it cost."""

    event_id: str
    """The id of its reservation: settling twice makes one event."""
    time_ms: int
    """When it settled, in milliseconds since 1970 (UTC)."""
    attribution: Attribution
    kind: CallKind
    provider: str | None = None
    model: str | None = None
    """The model that answered, as its provider names it."""
    server: str | None = None
    tool: str | None = None
    status: CallStatus
    error_type: str | None = None
    """The class name of an error, never its text."""
    latency_ms: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    usage: TokenUsage | None = None
    """As booked: `charge.status` says whether it was reported or estimated."""
    charge: Charge
    reserved_nano_usd: int
    """The upper bound that was held for this call."""
    attempt: int = 1
    """Above 1 for a call that was made again because the one before failed."""
    is_repeat: bool = False
    """Whether it brought the same result for the same arguments as one before."""
    refused_by: str | None = None
    """In observe mode: what would have refused it, as `max_cost_usd of session`."""
    layers: tuple[LayerPart, ...] | None = None
    """What the tokens of a model call were for, an estimate. What is in no layer is
    not known: of a call whose prompt guardrails does not see, the input."""

    @property
    def waste(self) -> str | None:
        """What it was spent on in vain: `error`, `repeat` or `retry`; `None` if not.

        An error also is a call that was broken off. A retry is one that got through.
        """
        if self.status is not CallStatus.OK:
            return "error"
        if self.is_repeat:
            return "repeat"
        return "retry" if self.attempt > 1 else None

    @property
    def tool_name(self) -> str | None:
        """`server/tool`, or the bare tool; `None` for a model call."""
        return None if self.tool is None else tool_name(self.tool, self.server)
