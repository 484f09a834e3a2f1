"""Clamping: how far the output of a model call has to be lowered to fit."""

from dataclasses import dataclass, replace

from guardrails.core.accounts import Charging
from guardrails.core.calls import ModelCall
from guardrails.core.operations import ReadAccount
from guardrails.core.policy import Measure
from guardrails.core.room import Room, fair_output, largest_output, room_of
from guardrails.engine import Engine
from guardrails.sessions.closing import for_work
from guardrails.sessions.session import Session

__all__ = ["Fit", "fitted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a model call fits into what is left."""

    call: ModelCall
    """As it should be reserved."""
    lowered_to: int | None = None
    """The bound on output that the request has to be lowered to first. `None` if it
    fits as it is."""
    is_refused: bool = False
    """Not even that fits, nor would it without open holds. Reserving the call says
    so in the ledger."""


def fitted(
    session: Session,
    call: ModelCall,
    charging: Charging,
    *,
    model_max: int | None,
    least: int,
    is_closing: bool = False,
) -> Fit:
    """Returns how a call fits, of which the output can be lowered.

    Where the whole of what it can write fits, that is what is reserved.

    Args:
        session: Whose call it is.
        call: As it is about to be made.
        charging: Whom it is charged to.
        model_max: What the model can write at most, if that is known.
        least: The smallest bound on output that makes sense.
        is_closing: Whether it is the session's closing call.

    Raises:
        UnpricedModelError: If its price is not known and the policy refuses that.
        StoreUnavailable: If the accounts cannot be read.
    """
    if not charging.is_enforced or not _limits_output(charging):
        return Fit(call=call)
    engine = session.engine
    call = session.anchors.bounded(call, charging.attribution.agent_path)
    expected = engine.charges.output_tokens(call, charging.attribution.agent)
    known = call.output_tokens_max or model_max
    most = known or expected
    keys = charging.accounts
    accounts = [engine.store.execute(ReadAccount(account=key)) for key in keys]
    if accounts[0] is not None and not is_closing:
        line, accounts[0] = for_work(charging.lines[0], accounts[0], session.budget)
        charging = replace(charging, lines=(line, *charging.lines[1:]))

    def fits(output_tokens: int, room: Room) -> bool:
        return room.fits(
            cost_nano_usd=_cost(engine, call, output_tokens, charging),
            tokens=call.input_tokens_max + output_tokens,
        )

    room = room_of(charging, accounts)
    if fits(most, room):
        return Fit(call=_bound(call, known) if known else call)
    largest = largest_output(lambda tokens: fits(tokens, room), most=most)
    least = min(least, most)
    if largest >= least:
        lowered_to = max(least, fair_output(largest, expected=expected))
    else:
        lowered_to = least
    return Fit(
        call=_bound(call, lowered_to),
        lowered_to=None if lowered_to == call.output_tokens_max else lowered_to,
        is_refused=not fits(least, room_of(charging, accounts, holds=False)),
    )


def _bound(call: ModelCall, output_tokens: int) -> ModelCall:
    """Returns the call, of whose output this is a certain bound."""
    return replace(call, output_tokens_max=output_tokens, is_output_bound=True)


def _limits_output(charging: Charging) -> bool:
    return any(
        line.is_binding and line.limits.of(measure) is not None
        for line in charging.lines
        for measure in (Measure.COST, Measure.TOKENS)
    )


def _cost(
    engine: Engine, call: ModelCall, output_tokens: int, charging: Charging
) -> int:
    now_ms = engine.clock.now_ms()
    charge = engine.charges.model_bound(call, output_tokens, charging, now_ms)
    return charge.cost_nano_usd or 0
