"""Layering: says of a settled model call what its tokens were for."""

from typing import TYPE_CHECKING

from guardrails.core.calls import ModelCall, Outcome, ToolCall
from guardrails.core.events import Event
from guardrails.core.layers import Layer, LayerPart, billed_prompt, layers_of

if TYPE_CHECKING:
    from guardrails.sessions.session import Session

__all__ = ["learnt_layers"]


def learnt_layers(
    session: "Session",
    call: ModelCall | ToolCall,
    outcome: Outcome,
    event: Event,
    *,
    mark: Layer | None,
) -> tuple[LayerPart, ...] | None:
    """Returns the layers of a call, and remembers its prompt for the next one.

    A failure is contained: it does not keep a call unbooked.

    Args:
        session: Knows earlier prompts, and what tokens cost.
        call: As it was reserved.
        outcome: What came of it.
        event: What is booked of it.
        mark: What the code around the call says that its input is for.
    """
    if not isinstance(call, ModelCall):
        return None
    try:
        return _learnt(session, call, outcome, event, mark)
    except Exception as error:
        session.engine.contain(error, "splitting a call into layers")
        return None


def _learnt(
    session: "Session",
    call: ModelCall,
    outcome: Outcome,
    event: Event,
    mark: Layer | None,
) -> tuple[LayerPart, ...] | None:
    usage, path, shape = event.usage, event.attribution.agent_path, call.prompt
    anchors = session.anchors
    if usage is None or not usage.total_tokens:
        anchors.learn(call, path, outcome.usage)
        return None
    is_known = shape is not None and bool(shape.pieces)
    pieces = shape.pieces if shape is not None else ()
    prompt = billed_prompt(
        usage,
        tools=shape.tools_weight if shape is not None else 0,
        pieces=pieces,
        written=outcome.written,
        earlier=anchors.before(call, path) if is_known else None,
    )
    anchors.learn(
        call,
        path,
        outcome.usage,
        prompt=prompt if is_known else None,
        written=outcome.written,
    )
    return layers_of(
        usage,
        prompt,
        pieces=pieces if is_known else None,
        cost_nano_usd=event.charge.cost_nano_usd,
        rates=session.engine.charges.token_rates(call, event),
        mark=mark,
    )
