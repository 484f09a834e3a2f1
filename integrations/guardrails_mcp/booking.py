"""Booking: asks the ledger without holding an event loop up, where there is one.

The SDK also runs on trio, which the stores do not know: there they are asked as from a
thread, for the microseconds that it takes.
"""

from guardrails.core.calls import Outcome
from guardrails.sessions.guarded_call import GuardedCall
from guardrails.system.threads import is_on_event_loop

__all__ = ["finish", "release", "reserve"]


async def reserve(call: GuardedCall) -> None:
    """Holds a call's upper bound.

    Raises:
        SessionStopped: If a limit, a loop or a person ended the session.
        CallRefused: If only this call may not be made.
    """
    if is_on_event_loop():
        await call.areserve()
    else:
        call.reserve()


async def release(call: GuardedCall) -> None:
    """Gives a call back that was never sent."""
    if is_on_event_loop():
        await call.arelease()
    else:
        call.release()


async def finish(call: GuardedCall, outcome: Outcome) -> None:
    """Books what a call turned out to be, once."""
    if is_on_event_loop():
        await call.afinish(outcome)
    else:
        call.finish(outcome)
