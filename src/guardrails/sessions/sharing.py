"""Sharing: a call that two sessions pay for, neither of which is inside the other.

As where a client and the server that it calls are in one process, under one guard: the
call is the client's, and counts for what the server allows it as well. Each account is
charged once, also what both have in common.
"""

from typing import TYPE_CHECKING

from guardrails.core.accounts import Charging
from guardrails.core.calls import ToolCall
from guardrails.core.lines import joined

if TYPE_CHECKING:
    from guardrails.sessions.guarded_call import GuardedCall
    from guardrails.sessions.session import Session

__all__ = ["active_ms_of", "ashare", "charging_of"]


def charging_of(call: "GuardedCall") -> Charging:
    """Returns the accounts that a call is charged to which is about to be reserved."""
    tool = call.call.name if isinstance(call.call, ToolCall) else None
    own = call.session.charging(call.attribution, tool=tool)
    if call.beside is None:
        return own
    theirs = call.beside.charging(tool=tool)
    return joined(own, theirs, session_id=call.beside.session_id)


def active_ms_of(call: "GuardedCall") -> tuple[int, ...]:
    """Returns how long each session is active that pays for a call."""
    session, beside = call.session, call.beside
    if beside is None:
        return session.active_ms()
    known = {one.session_id for one in session.chain()}
    theirs = zip(beside.chain(), beside.active_ms(), strict=True)
    added = [ms for one, ms in theirs if one.session_id not in known]
    return (*session.active_ms(), *added)


async def ashare(call: "GuardedCall", other: "Session") -> None:
    """Has another session of the project pay for a call that is reserved as well.

    The call is given back first: what both hold may not fit into what is left.

    Raises:
        SessionStopped: If one of the sessions is over; the call may not be made.
        CallRefused: If only this call may not be made.
    """
    assert isinstance(call.call, ToolCall)
    known = [*call.session.chain(), *(call.beside.chain() if call.beside else ())]
    if any(one.session_id == other.session_id for one in known):
        return
    await call.arelease()
    call.become(call.call, call.attribution)
    call.beside = other
    await call.areserve()
