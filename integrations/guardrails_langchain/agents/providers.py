"""Providers: what integrations call the bound on output, and a choice of no tools.

Nothing is guessed: where a name is not known for certain there is none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain.agents.middleware.types import ModelRequest
from langchain_core.language_models import BaseChatModel

from guardrails.core.attribution import clean_name
from guardrails.core.usage import TOKENS_MAX
from guardrails_langchain.reading.responses import OWN_BOUND, asks_responses
from guardrails_langchain.reading.translate import model_name

__all__ = [
    "asked_of",
    "bounds_of",
    "model_name_of",
    "no_tools",
    "output_key",
    "own_bound",
    "tokens",
]

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


def output_key(model: BaseChatModel) -> str | None:
    """Returns what the model's integration calls the bound on output."""
    return _OUTPUT_KEYS.get(_provider(model) or "")


def no_tools(model: BaseChatModel) -> Any:
    """Returns how the model is told to call no tools; `None` if that is not known."""
    return _NO_TOOLS.get(_provider(model) or "")


def bounds_of(request: ModelRequest[Any], output_tokens: int) -> dict[str, int]:
    """Returns the settings that bound the output of a request, if it can be bounded."""
    key = output_key(request.model)
    if key is None:
        return {}
    return dict.fromkeys((key, *_more_keys(request)), output_tokens)


def own_bound(request: ModelRequest[Any]) -> int | None:
    """Returns the bound on output that a request has, or its model."""
    settings = request.model_settings
    set_here = settings.get(output_key(request.model) or "")
    return tokens(set_here or _params_of(request.model, settings).get("ls_max_tokens"))


def model_name_of(request: ModelRequest[Any]) -> str | None:
    """Returns the model's name as the start of its call reports it."""
    params = _params_of(request.model, request.model_settings)
    name = clean_name(params.get("ls_model_name"))
    return model_name(name) if name else None


def asked_of(request: ModelRequest[Any]) -> Mapping[str, Any]:
    """Returns what a request asks for beside its messages, without its tools."""
    try:
        params = request.model._get_invocation_params(**request.model_settings)
    except Exception:
        return {}
    return cast("Mapping[str, Any]", params)


def tokens(value: object) -> int | None:
    """Returns a number of tokens that bounds an output, if it is one."""
    return value if type(value) is int and 0 < value <= TOKENS_MAX else None


def _provider(model: BaseChatModel) -> str | None:
    """Returns LangChain's name of the model's provider."""
    return _params_of(model, {}).get("ls_provider")


def _params_of(model: BaseChatModel, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what LangChain says of a call of the model."""
    try:
        # The only source of the names that every integration fills.
        return cast("Mapping[str, Any]", model._get_ls_params(**settings))
    except Exception:
        return {}


def _more_keys(request: ModelRequest[Any]) -> Sequence[str]:
    """Returns what else in a request would win over its integration's key."""
    asked = {**asked_of(request), "tools": request.tools}
    made_with = {"use_responses_api": getattr(request.model, "use_responses_api", None)}
    wins = asked.get(OWN_BOUND) is not None and asks_responses(asked, made_with)
    return [OWN_BOUND] if wins else []
