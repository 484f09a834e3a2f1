"""Turns: what the middleware does around one call, sync and async alike.

A turn is a generator. It yields what should be run next, and is sent its result or
thrown its error; what it returns is the answer of the hook. So it is written once,
and the only line with a colour is the one that runs what was yielded.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.messages import ToolMessage
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from guardrails import Guard, Session
from guardrails.core.policy import OnLimit
from guardrails.errors import BudgetExceeded, CallRefused, SessionStopped
from guardrails.system.threads import apart
from guardrails_langchain.agents.ends import (
    Refused,
    cut_short,
    is_at_limit,
    not_run,
)
from guardrails_langchain.agents.pauses import ask, can_pause
from guardrails_langchain.agents.requests import closing, lowered, offer_for
from guardrails_langchain.callbacks.bubbles import as_bubble
from guardrails_langchain.callbacks.handler import tree_of
from guardrails_langchain.callbacks.offers import Offer, offered

__all__ = ["Turns", "arun", "run"]

Q = TypeVar("Q")
A = TypeVar("A")

Turn: TypeAlias = Generator[tuple[Q, Offer | None], A, A]
ModelTurn: TypeAlias = Turn[ModelRequest[Any], ModelResponse[Any]]
ToolTurn: TypeAlias = Turn[ToolCallRequest, ToolMessage | Command[Any]]

ATTEMPTS_MAX = 4
"""At one model call. Between two of them others may take the room that is left."""


class Turns:
    """The turns of one hook call.

    Args:
        guard: The guard.
        session: Whose calls they are.
        clamps: Whether model calls are lowered to what is left.
        run_id: LangChain's id of the run that the hook is in.
    """

    def __init__(
        self, guard: Guard, session: Session, *, clamps: bool, run_id: UUID | None
    ) -> None:
        self._guard = guard
        self._session = session
        self._clamps = clamps
        self._run_id = run_id
        self._tree = tree_of(guard.engine)
        self._on_limit = session.budget.on_limit
        if self._on_limit is OnLimit.PAUSE and not can_pause():
            self._on_limit = OnLimit.RAISE

    def model(self, request: ModelRequest[Any]) -> ModelTurn:
        """Makes a model call; at a limit ends as the session does."""
        while True:
            try:
                return (yield from self._attempts(request))
            except (SessionStopped, CallRefused) as refusal:
                if not is_at_limit(refusal):
                    raise
                match self._on_limit, refusal:
                    case OnLimit.FINISH, _:
                        return (yield from self._close(request, refusal))
                    case OnLimit.PAUSE, BudgetExceeded():
                        self._pause(refusal)
                    case _:
                        raise

    def tool(self, request: ToolCallRequest) -> ToolTurn:
        """Runs a tool; at a limit answers for it, unless the session raises."""
        try:
            return (yield request, None)
        except (SessionStopped, CallRefused) as refusal:
            if not is_at_limit(refusal) or self._on_limit is OnLimit.RAISE:
                raise
            self._tree.handle(self._run_id)
            is_over = self._on_limit is OnLimit.FINISH
            return not_run(request.tool_call, refusal, is_over=is_over)

    async def look(self, error: Exception) -> None:
        """Reads what a pause shows of a stop, without holding the event loop up."""
        if self._on_limit is OnLimit.PAUSE and isinstance(error, BudgetExceeded):
            await apart(lambda: error.top_costs)

    def _pause(self, stop: BudgetExceeded) -> None:
        """Waits for a person; returns when the call may be tried again."""
        self._tree.handle(self._run_id)
        ask(self._guard, stop)
        self._tree.unlatch(self._run_id)

    def _close(self, request: ModelRequest[Any], refusal: Refused) -> ModelTurn:
        """Makes the closing call, or ends as if there were none."""
        try:
            response = yield from self._attempts(closing(request), is_closing=True)
        except (SessionStopped, CallRefused):
            raise refusal from None
        self._tree.handle(self._run_id)
        return cut_short(response, refusal)

    def _attempts(
        self, request: ModelRequest[Any], *, is_closing: bool = False
    ) -> ModelTurn:
        """Makes a model call, lowered to what is left if it does not fit."""
        bound: int | None = None
        for attempt in range(1, ATTEMPTS_MAX + 1):
            offer = offer_for(
                self._session,
                request,
                clamps=self._clamps,
                bound=bound,
                is_last=attempt == ATTEMPTS_MAX,
                is_closing=is_closing,
            )
            try:
                response = yield request, offer
            except CallRefused:
                if offer.lowered_to is None:
                    raise
            else:
                # Before langchain 1.3.18 a retry turns a refusal into an answer.
                if offer.stop is not None:
                    raise as_bubble(offer.stop)
                if offer.lowered_to is None:
                    return response
            request, bound = lowered(request, offer.lowered_to, model=offer.too_large)
        raise AssertionError("the last attempt is not lowered")


def run(turn: Turn[Q, A], call: Callable[[Q], A]) -> A:
    """Runs a turn."""
    step = turn.__next__
    while True:
        try:
            request, offer = step()
        except StopIteration as done:
            return done.value
        try:
            with offered(offer):
                answer = call(request)
        except Exception as error:
            step = _throwing(turn, error)
        else:
            step = _sending(turn, answer)


async def arun(
    turn: Turn[Q, A],
    call: Callable[[Q], Awaitable[A]],
    *,
    look: Callable[[Exception], Awaitable[None]] | None = None,
) -> A:
    """Runs a turn in asyncio.

    Args:
        turn: The turn.
        call: Runs what it yields.
        look: Shown an error before the turn is.
    """
    step = turn.__next__
    while True:
        try:
            request, offer = step()
        except StopIteration as done:
            return done.value
        try:
            with offered(offer):
                answer = await call(request)
        except Exception as error:
            if look is not None:
                await look(error)
            step = _throwing(turn, error)
        else:
            step = _sending(turn, answer)


def _sending(turn: Turn[Q, A], answer: A) -> Callable[[], tuple[Q, Offer | None]]:
    return lambda: turn.send(answer)


def _throwing(
    turn: Turn[Q, A], error: Exception
) -> Callable[[], tuple[Q, Offer | None]]:
    return lambda: turn.throw(error)
