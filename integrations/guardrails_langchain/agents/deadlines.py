"""Deadlines: ends a call in asyncio that takes longer than it may.

A callback cannot interrupt anything, and neither can a synchronous hook. A task can be
cancelled: at the call's own deadline, or once the session's wall time is over.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from guardrails import Session
from guardrails.core.calls import ToolCall
from guardrails.core.limits import effective_limits
from guardrails.core.operations import ReadAccount
from guardrails.errors import ConfigurationError, SessionStopped, StoreUnavailable
from guardrails_langchain.callbacks.bubbles import as_bubble
from guardrails_langchain.callbacks.handler import tree_of
from guardrails_langchain.callbacks.runs import started

__all__ = ["checked_timeout", "in_time"]

TIMEOUT_S_MAX = 86_400.0

PAUSE_S = 0.01
"""Between two looks at a session whose time should be over: clocks are not exact."""

A = TypeVar("A")
Q = TypeVar("Q")


def checked_timeout(value: object) -> float | None:
    """Returns how long a call may take, in seconds.

    Raises:
        ConfigurationError: If it is no such time.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        value = float("nan")
    if not 0 < value <= TIMEOUT_S_MAX:
        raise ConfigurationError(
            "call_timeout_s: this is no time for a call. Pass seconds, more than 0 and "
            f"at most {TIMEOUT_S_MAX:.0f}, or leave it out."
        )
    return float(value)


def in_time(
    session: Session,
    call: Callable[[Q], Awaitable[A]],
    *,
    timeout_s: float | None,
) -> Callable[[Q], Awaitable[A]]:
    """Returns the call, which is broken off once its time is over.

    What is open in a call that was broken off, by whomever, is booked as that.

    Args:
        session: Whose call it is. Its own wall time is a deadline as well.
        call: Makes it.
        timeout_s: How long it may take.

    Raises:
        TimeoutError: From the returned call, if it took longer than `timeout_s`.
        BudgetExceeded: From the returned call, if the session's wall time is over.
    """

    async def limited(request: Q) -> A:
        left_s = _left_s(session)
        is_own = left_s is None or (timeout_s is not None and timeout_s < left_s)
        deadline = asyncio.timeout(timeout_s if is_own else left_s)
        with started() as runs:
            try:
                async with deadline:
                    return await call(request)
            except asyncio.CancelledError:
                # No callback tells of the end of a run that was cancelled.
                tree_of(session.engine).give_up(runs)
                raise
            except TimeoutError:
                if deadline.expired():
                    tree_of(session.engine).give_up(runs)
                    if not is_own:
                        await _stop(session)
                raise

    return limited


def _left_s(session: Session) -> float | None:
    """Returns what is left of the session's wall time; `None` if nothing limits it.

    A session that is over already refuses the call by itself.
    """
    limits = session.budget.limits
    if limits.wall_time_ms is None:
        return None
    try:
        account = session.engine.store.execute(ReadAccount(account=session.account_key))
    except StoreUnavailable:
        return None
    elapsed_ms = active_ms = session.active_ms()[0]
    if account is not None and account.session is not None:
        limits = effective_limits(limits, account.raised)
        now_ms = session.engine.clock.now_ms()
        elapsed_ms = account.session.elapsed_ms(now_ms, active_ms)
    assert limits.wall_time_ms is not None
    left_ms = limits.wall_time_ms - elapsed_ms
    return left_ms / 1000 if left_ms > 0 else None


async def _stop(session: Session) -> None:
    """Raises that the wall time is over, as any call would find now."""
    while True:
        try:
            session.begin(ToolCall(tool="deadline")).release()
        except SessionStopped as stop:
            raise as_bubble(stop) from None
        await asyncio.sleep(PAUSE_S)
