"""Offers: what the middleware lets the callback handler do with a model call.

The handler sees a call exactly as it is sent, but cannot change it; the middleware
can change the request, but does not see what is sent. So the middleware makes an
offer around each attempt, in a context variable. A handler that finds the call too
large for what is left says so in the offer and refuses the attempt, before anything
is reserved; the middleware lowers the request and tries again.
"""

import contextlib
import sys
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass, replace

from guardrails.core.accounts import Charging
from guardrails.core.calls import ModelCall
from guardrails.core.estimates import OUTPUT_TOKENS_MIN
from guardrails.errors import CallRefused, SessionStopped, StoreUnavailable
from guardrails.sessions.clamping import fitted
from guardrails.sessions.closing import closing_of
from guardrails.sessions.guarded_call import GuardedCall
from guardrails.sessions.session import Session
from guardrails_langchain.callbacks.bubbles import bubble_kind
from guardrails_langchain.callbacks.run import Run

__all__ = ["Offer", "offer_to", "offered"]


class _TooLarge(CallRefused):
    """The request has to be lowered first; nothing was reserved."""


@dataclass(slots=True, eq=False)
class Offer:
    """What may be done with one attempt at a model call, and what was done."""

    session: Session
    """Whose call it is. Others are none of the middleware's."""
    model: str | None = None
    """Which model is asked, as its calls name it; `None` if that is not known."""
    last_tokens_max: int | None = None
    """Bound of the last message, which tells what another model is asked."""
    lowers: bool = True
    """Whether the request can be lowered."""
    model_max: int | None = None
    """What the model can write at most, if that is known."""
    least: int = OUTPUT_TOKENS_MIN
    """The smallest bound on output that the model takes and can answer with."""
    bound: int | None = None
    """The bound on output that the request was lowered to before, if it was."""
    is_last: bool = False
    """The request is not lowered again: it fits now, or is refused."""
    is_closing: bool = False
    """It is the one call that a session may make beyond the end of its work."""
    lowered_to: int | None = None
    """The bound on output that the request has to be lowered to, if the last call
    that was made with it was refused for that."""
    too_large: str | None = None
    """The model of that call."""
    stop: SessionStopped | None = None
    """The stop that was raised instead, whatever became of it since."""

    def admit(self, run: Run, call: ModelCall) -> GuardedCall:
        """Reserves the call, or notes what it has to be lowered to.

        Raises:
            SessionStopped: If a limit, a loop or a person ended the session.
            CallRefused: If it may not be made, or not as large as it is.
        """
        charging = self._closing_charging(run)
        call = self._as_reserved(run, call, charging)
        admitted = run.session.begin(
            call, attribution=run.attribution, charging=charging
        )
        self.lowered_to = None  # Of a call before it, whose refusal was handled.
        return admitted

    def _as_reserved(
        self, run: Run, call: ModelCall, charging: Charging | None
    ) -> ModelCall:
        """Returns the call with its bounds, or refuses it as too large."""
        session, who = run.session, run.attribution
        if not self.lowers or not self._is_of_request(call):
            return call
        with contextlib.suppress(StoreUnavailable):  # Reserving decides what holds.
            fit = fitted(
                session,
                call,
                charging or session.charging(who),
                model_max=self.model_max,
                least=self.least,
                is_closing=self.is_closing,
            )
            if fit.lowered_to is None:
                return fit.call
            if self.is_last:
                return replace(call, is_output_bound=True)  # It is sent as it is.
            if fit.is_refused:
                # The ledger says so, unless there is room since a moment ago.
                session.begin(fit.call, attribution=who, charging=charging).release()
            self.lowered_to, self.too_large = fit.lowered_to, call.model
            kind = bubble_kind(_TooLarge, has_langgraph="langgraph" in sys.modules)
            raise kind("lowered to what is left")
        return call

    def _is_of_request(self, call: ModelCall) -> bool:
        """Whether the call is the one that the request makes, as far as one can see.

        A middleware inside may choose another model for it, but may also ask a model
        of its own something else, which nobody lowers.
        """
        last = call.prompt.message_tokens_max[-1:] if call.prompt else ()
        is_asked = self.model in (None, call.model) or last == (self.last_tokens_max,)
        return is_asked and self.bound in (None, call.output_tokens_max)

    def _closing_charging(self, run: Run) -> Charging | None:
        """Returns whom a closing call is charged to; `None` if it is none.

        Raises:
            SessionStopped: If it is none and the session has ended.
            CallRefused: If the session has no closing call any more.
        """
        session = run.session
        if not self.is_closing:
            if run.latched is not None:
                raise run.latched
            return None
        charging = session.charging(run.attribution)
        closing = closing_of(session.engine, charging, session.budget)
        if closing is None:
            raise CallRefused("nothing is left for a closing call")
        return closing


_offer: ContextVar[Offer | None] = ContextVar("guardrails_offer", default=None)


@contextlib.contextmanager
def offered(offer: Offer | None) -> Generator[None]:
    """Makes an offer to the handler, for the calls inside."""
    token = _offer.set(offer)
    try:
        yield
    finally:
        _offer.reset(token)


def offer_to(session: Session) -> Offer | None:
    """Returns the offer for a model call of this session that starts now."""
    offer = _offer.get()
    return offer if offer is not None and offer.session is session else None
