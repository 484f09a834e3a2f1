"""Turns: what the middleware does around one call, sync and async alike.

A turn is a generator. It yields what should be run next, and is sent its result or
thrown its error; what it returns is the answer of the hook. So it is written once,
and the only line with a colour is the one that runs what was yielded.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.messages import ToolMessage
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from guardrails import Session
from guardrails.core.policy import OnLimit
from guardrails.errors import CallRefused, SessionStopped
from guardrails_langchain.bubbles import as_bubble
from guardrails_langchain.ends import (
    Refused,
    cut_short,
    is_at_limit,
    not_run,
)
from guardrails_langchain.offers import Offer, offered
from guardrails_langchain.requests import closing, lowered, offer_for

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
        session: Whose calls they are.
        clamps: Whether model calls are lowered to what is left.
        handle: Notes that a stop goes no further.
    """

    def __init__(
        self, session: Session, *, clamps: bool, handle: Callable[[], None]
    ) -> None:
        self._session = session
        self._clamps = clamps
        self._handle = handle
        self._on_limit = session.budget.on_limit

    def model(self, request: ModelRequest[Any]) -> ModelTurn:
        """Makes a model call; at a limit ends as the session does."""
        try:
            return (yield from self._attempts(request))
        except (SessionStopped, CallRefused) as refusal:
            if not is_at_limit(refusal) or self._on_limit is not OnLimit.FINISH:
                raise
            return (yield from self._close(request, refusal))

    def tool(self, request: ToolCallRequest) -> ToolTurn:
        """Runs a tool; at a limit ends as the session does."""
        try:
            return (yield request, None)
        except (SessionStopped, CallRefused) as refusal:
            if not is_at_limit(refusal) or self._on_limit is not OnLimit.FINISH:
                raise
            self._handle()
            return not_run(request.tool_call, refusal)

    def _close(self, request: ModelRequest[Any], refusal: Refused) -> ModelTurn:
        """Makes the closing call, or ends as if there were none."""
        try:
            response = yield from self._attempts(closing(request), is_closing=True)
        except (SessionStopped, CallRefused):
            raise refusal from None
        self._handle()
        return cut_short(response, refusal)

    def _attempts(
        self, request: ModelRequest[Any], *, is_closing: bool = False
    ) -> ModelTurn:
        """Makes a model call, lowered to what is left if it does not fit."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            offer = offer_for(
                self._session,
                request,
                clamps=self._clamps,
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
            request = lowered(request, offer.lowered_to)
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


async def arun(turn: Turn[Q, A], call: Callable[[Q], Awaitable[A]]) -> A:
    """Runs a turn in asyncio."""
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
            step = _throwing(turn, error)
        else:
            step = _sending(turn, answer)


def _sending(turn: Turn[Q, A], answer: A) -> Callable[[], tuple[Q, Offer | None]]:
    return lambda: turn.send(answer)


def _throwing(
    turn: Turn[Q, A], error: Exception
) -> Callable[[], tuple[Q, Offer | None]]:
    return lambda: turn.throw(error)
