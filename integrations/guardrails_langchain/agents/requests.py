"""Requests: changes a model's request, as its integration understands it.

A bound on output is passed on by the name that the integration has for it. Where
that is not known for certain nothing is lowered, and calls are refused that do not
fit.
"""

from collections.abc import Mapping
from typing import Any, cast

from langchain.agents.middleware.types import ModelRequest
from langchain_core.language_models import BaseChatModel

from guardrails.core.estimates import OUTPUT_TOKENS_MIN
from guardrails.sessions.session import Session
from guardrails_langchain.agents.changed import changed
from guardrails_langchain.agents.providers import (
    asked_of,
    model_name_of,
    output_key,
    own_bound,
    tokens,
)
from guardrails_langchain.callbacks.offers import Offer
from guardrails_langchain.reading.pieces import instruction
from guardrails_langchain.reading.prompts import candidates_of
from guardrails_langchain.reading.shapes import message_tokens_max

__all__ = ["closing", "lowered", "offer_for"]

CLOSING_TEXT = (
    "The budget for this work is used up, and no more tools can be called. Answer now, "
    "as well as you can, with what you have so far, and say what is missing."
)


def offer_for(
    session: Session,
    request: ModelRequest[Any],
    *,
    clamps: bool,
    bound: int | None,
    is_last: bool,
    is_closing: bool,
) -> Offer:
    """Returns the offer for one attempt.

    Args:
        session: Whose call it is.
        request: What is asked for.
        clamps: Whether the request may be lowered, if that is possible.
        bound: The bound on output that the attempt before has lowered it to, of all
            candidates together, as all bounds of an offer are.
        is_last: Whether it is the last attempt.
        is_closing: Whether it is the session's closing call.
    """
    candidates = candidates_of(asked_of(request))
    model_max = _model_max(request.model)
    return Offer(
        session=session,
        model=model_name_of(request),
        last_tokens_max=message_tokens_max(request.messages[-1])
        if request.messages
        else None,
        lowers=clamps and output_key(request.model) is not None,
        model_max=None if model_max is None else model_max * candidates,
        least=(OUTPUT_TOKENS_MIN + _thinking_tokens(request.model)) * candidates,
        bound=bound,
        is_last=is_last,
        is_closing=is_closing,
    )


def lowered(
    request: ModelRequest[Any], output_tokens: int, *, model: str | None
) -> tuple[ModelRequest[Any], int]:
    """Returns the request with its bound on output lowered, and that bound.

    Args:
        request: What is asked for.
        output_tokens: What there is room for, in all candidates together.
        model: Whose call did not fit. The bound of the request's own model is never
            raised: that may have been another call of it on the way.
    """
    candidates = candidates_of(asked_of(request))
    output_tokens = max(1, output_tokens // candidates)
    if model == model_name_of(request):
        output_tokens = min(output_tokens, own_bound(request) or output_tokens)
    return changed(request, output_tokens=output_tokens), output_tokens * candidates


def closing(request: ModelRequest[Any]) -> ModelRequest[Any]:
    """Returns the request for an answer with what is there, and without tools.

    The message that says so is for this call only: the thread does not keep it.
    """
    messages = [*request.messages, instruction(CLOSING_TEXT)]
    request = request.override(messages=messages, response_format=None)
    return changed(request, calls_no_tools=True)


def _model_max(model: BaseChatModel) -> int | None:
    profile: object = getattr(model, "profile", None)
    if not isinstance(profile, Mapping):
        return None
    return tokens(cast("Mapping[str, object]", profile).get("max_output_tokens"))


def _thinking_tokens(model: BaseChatModel) -> int:
    """Returns the tokens that the model thinks with; the bound must be above them."""
    thinking: object = getattr(model, "thinking", None)
    if not isinstance(thinking, Mapping):
        return 0
    return tokens(cast("Mapping[str, object]", thinking).get("budget_tokens")) or 0
