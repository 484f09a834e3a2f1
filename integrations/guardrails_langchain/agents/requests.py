"""Requests: changes a model's request, as its integration understands it.

A bound on output is passed on by the name that the integration has for it. Where
that is not known for certain nothing is lowered, and calls are refused that do not
fit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain.agents.middleware.types import ModelRequest
from langchain_core.language_models import BaseChatModel

from guardrails.core.attribution import clean_name
from guardrails.core.estimates import OUTPUT_TOKENS_MIN
from guardrails.core.usage import TOKENS_MAX
from guardrails.sessions.session import Session
from guardrails_langchain.callbacks.offers import Offer
from guardrails_langchain.reading.pieces import instruction
from guardrails_langchain.reading.prompts import candidates_of
from guardrails_langchain.reading.responses import OWN_BOUND, asks_responses
from guardrails_langchain.reading.shapes import message_tokens_max
from guardrails_langchain.reading.translate import model_name

__all__ = ["closing", "lowered", "offer_for"]

_MAX_TOKENS = (
    "anthropic",
    "deepseek",
    "fireworks",
    "groq",
    "mistral",
    "openai",
    "openrouter",
    "together",
    "xai",
)
_OUTPUT_KEYS: Mapping[str, str] = {
    **dict.fromkeys(_MAX_TOKENS, "max_tokens"),
    "azure": OWN_BOUND,
    "google_genai": "max_output_tokens",
    "google_vertexai": "max_output_tokens",
}
"""What integrations call the bound on output, by LangChain's name of the provider.
Nothing is guessed: langchain-google-genai 4.4.2 fails on `max_tokens`, and Azure on
both of OpenAI's names in one request, of which AzureChatOpenAI sends its own."""

_NO_TOOLS: Mapping[str, Any] = {
    **dict.fromkeys(_MAX_TOKENS, "none"),
    "anthropic": {"type": "none"},
    "azure": "none",
    "google_genai": "none",
    "google_vertexai": "none",
}
"""How integrations are told to call no tools: what their `bind_tools` takes."""

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
    candidates = candidates_of(_asked(request))
    model_max = _model_max(request.model)
    return Offer(
        session=session,
        model=_model_name(request),
        last_tokens_max=message_tokens_max(request.messages[-1])
        if request.messages
        else None,
        lowers=clamps and _output_key(request.model) is not None,
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
    key = _output_key(request.model)
    assert key is not None
    asked = _asked(request)
    candidates = candidates_of(asked)
    output_tokens = max(1, output_tokens // candidates)
    if model == _model_name(request):
        own = request.model_settings.get(key) or _params(request).get("ls_max_tokens")
        output_tokens = min(output_tokens, _tokens(own) or output_tokens)
    bounds = dict.fromkeys((key, *_more_keys(request, asked)), output_tokens)
    settings = {**request.model_settings, **bounds}
    return request.override(model_settings=settings), output_tokens * candidates


def closing(request: ModelRequest[Any]) -> ModelRequest[Any]:
    """Returns the request for an answer with what is there, and without tools.

    The message that says so is for this call only: the thread does not keep it. Tools
    stay defined where a choice of none is known to work, since providers refuse a
    history of tool calls without them; elsewhere they are left out.
    """
    messages = [*request.messages, instruction(CLOSING_TEXT)]
    choice = _NO_TOOLS.get(_provider(request.model) or "")
    tools = request.tools if choice is not None else []
    return request.override(
        messages=messages,
        tools=tools,
        tool_choice=choice if tools else None,
        response_format=None,
    )


def _provider(model: BaseChatModel) -> str | None:
    """Returns LangChain's name of the model's provider."""
    return _params_of(model, {}).get("ls_provider")


def _model_name(request: ModelRequest[Any]) -> str | None:
    """Returns the model's name as the start of its call reports it."""
    name = clean_name(_params(request).get("ls_model_name"))
    return model_name(name) if name else None


def _params(request: ModelRequest[Any]) -> Mapping[str, Any]:
    return _params_of(request.model, request.model_settings)


def _params_of(model: BaseChatModel, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what LangChain says of a call of the model."""
    try:
        # The only source of the names that every integration fills.
        return cast("Mapping[str, Any]", model._get_ls_params(**settings))
    except Exception:
        return {}


def _asked(request: ModelRequest[Any]) -> Mapping[str, Any]:
    """Returns what a request asks for beside its messages, without its tools."""
    try:
        params = request.model._get_invocation_params(**request.model_settings)
    except Exception:
        return {}
    return cast("Mapping[str, Any]", params)


def _more_keys(request: ModelRequest[Any], asked: Mapping[str, Any]) -> Sequence[str]:
    """Returns what else in a request would win over its integration's key."""
    asked = {**asked, "tools": request.tools}
    made_with = {"use_responses_api": getattr(request.model, "use_responses_api", None)}
    wins = asked.get(OWN_BOUND) is not None and asks_responses(asked, made_with)
    return [OWN_BOUND] if wins else []


def _output_key(model: BaseChatModel) -> str | None:
    return _OUTPUT_KEYS.get(_provider(model) or "")


def _model_max(model: BaseChatModel) -> int | None:
    profile: object = getattr(model, "profile", None)
    if not isinstance(profile, Mapping):
        return None
    return _tokens(cast("Mapping[str, object]", profile).get("max_output_tokens"))


def _thinking_tokens(model: BaseChatModel) -> int:
    """Returns the tokens that the model thinks with; the bound must be above them."""
    thinking: object = getattr(model, "thinking", None)
    if not isinstance(thinking, Mapping):
        return 0
    return _tokens(cast("Mapping[str, object]", thinking).get("budget_tokens")) or 0


def _tokens(value: object) -> int | None:
    return value if type(value) is int and 0 < value <= TOKENS_MAX else None
