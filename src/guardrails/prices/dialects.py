"""Dialects: how frameworks and gateways spell the names of providers and models."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

__all__ = [
    "by_canonical_name",
    "provider_id",
    "spellings",
    "target_spellings",
    "user_names",
]

V = TypeVar("V")

_GATEWAYS = frozenset({"litellm", "litellm_proxy"})
"""They name the provider in front of the model, or not at all."""

_PROVIDERS = {
    "amazon_bedrock": "aws",
    "aws.bedrock": "aws",
    "az.ai.inference": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "custom_openai": "self-hosted",
    "fireworks_ai": "fireworks",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gemini": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "moonshot_ai": "moonshotai",
    "openai-compatible": "self-hosted",
    "openai_compatible": "self-hosted",
    "openai_like": "self-hosted",
    "together_ai": "together",
    "togetherai": "together",
    "vertex_ai": "google",
    "x_ai": "x-ai",
    "xai": "x-ai",
}
"""Names of OpenTelemetry, LangChain and LiteLLM, and the ids of genai-prices 0.2.3.

It knows some of these itself; they are here because a user's rows and aliases
have to meet them too. `self-hosted` is nobody's id: whoever speaks OpenAI's
protocol does not charge OpenAI's prices.
"""


def provider_id(provider: str | None) -> str | None:
    """Returns the id of a provider; `None` if it has to be found by the model."""
    if provider is None:
        return None
    name = provider.strip().lower()
    return None if name in _GATEWAYS else _PROVIDERS.get(name, name)


def spellings(provider: str | None, model: str) -> Iterator[tuple[str | None, str]]:
    """Yields the pairs of provider and model that a name may stand for.

    Args:
        provider: As the caller spells it, or `None`.
        model: As the caller spells it.

    Yields:
        Pairs, best first. Their provider is `None` where only the model's name
        can tell.
    """
    known = provider_id(provider)
    if known is not None:
        yield from _spellings_at(known, model)
        return
    first, slash, rest = model.partition("/")
    if slash and first:
        yield from spellings(first, rest)
    yield None, model
    if model.startswith("models/"):
        yield None, model.removeprefix("models/")


def target_spellings(
    provider: str | None, target: str
) -> Iterator[tuple[str | None, str]]:
    """Yields the pairs that the target of an alias may stand for.

    Its own provider counts first, as in `azure/gpt-4o`; then the caller's,
    as in `gpt-4o` or `meta-llama/llama-3.3-70b-instruct-turbo`.
    """
    first, slash, rest = target.partition("/")
    if slash:
        yield from spellings(first, rest)
    yield from spellings(provider, target)
    yield None, target


def user_names(provider: str | None, model: str) -> Iterator[str]:
    """Yields the names under which a user may list a model, most specific first."""
    pairs = [(provider, model), *spellings(provider, model)]
    yield from (f"{first}/{rest}" for first, rest in pairs if first is not None)
    yield from (rest for _, rest in pairs)


def by_canonical_name(entries: Mapping[str, V]) -> dict[str, V]:
    """Adds to each lower-case name the one with the provider's canonical id."""
    named = {name.lower(): entry for name, entry in entries.items()}
    for name, entry in list(named.items()):
        first, slash, rest = name.partition("/")
        if slash and (known := provider_id(first)) is not None:
            named.setdefault(f"{known}/{rest}", entry)
    return named


def _spellings_at(provider: str, model: str) -> Iterator[tuple[str, str]]:
    first, slash, rest = model.partition("/")
    if provider == "huggingface":
        name, _, host = model.rpartition(":")
        yield f"huggingface_{host}", name
        yield f"huggingface_{first}", rest
    yield provider, model
    if slash and provider_id(first) == provider:
        yield provider, rest
    if provider == "google":  # publishers/google/models/gemini-2.5-pro
        yield provider, model.rpartition("models/")[2]
    if provider == "aws":  # converse/us.anthropic.claude-sonnet-4-5-20250929-v1:0
        yield provider, model.rpartition("/")[2]
