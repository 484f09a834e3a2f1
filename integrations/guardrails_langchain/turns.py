"""Turns: what the middleware does around one model call, sync and async alike.

A turn is a generator. It yields what should be run next, and is sent its result or
thrown its error; what it returns is the answer of the hook. So it is written once,
and the only line with a colour is the one that runs what was yielded.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

from langchain.agents.middleware.types import ModelRequest, ModelResponse

from guardrails import Session
from guardrails.errors import CallRefused
from guardrails_langchain.bubbles import as_bubble
from guardrails_langchain.offers import Offer, offered
from guardrails_langchain.requests import lowered, offer_for

__all__ = ["Turn", "arun", "model_turn", "run"]

Q = TypeVar("Q")
A = TypeVar("A")

Turn: TypeAlias = Generator[tuple[Q, Offer | None], A, A]

ATTEMPTS_MAX = 4
"""At one model call. Between two of them others may take the room that is left."""


def model_turn(
    session: Session, request: ModelRequest[Any], *, clamps: bool
) -> Turn[ModelRequest[Any], ModelResponse[Any]]:
    """Makes a model call, lowered to what is left if it does not fit."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        is_last = attempt == ATTEMPTS_MAX
        offer = offer_for(session, request, clamps=clamps, is_last=is_last)
        try:
            response = yield request, offer
        except CallRefused:
            if offer.lowered_to is None:
                raise
        else:
            # Before langchain 1.3.18 a retry inside turns a refusal into an answer.
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
