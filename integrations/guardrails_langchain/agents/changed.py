"""Changed: a request that stays as the middleware has made it, whoever is asked.

A bound on output and a choice of no tools have other names for each provider, which
refuses those of others. A middleware inside may choose a model of another provider, as
a fallback or a router does.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

from langchain.agents.middleware.types import ModelRequest

from guardrails_langchain.agents.providers import bounds_of, no_tools, own_bound

__all__ = ["ChangedRequest", "changed"]

_ASKED = frozenset({"model", "model_settings"})
"""Members by which a bound reaches a provider."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class ChangedRequest(ModelRequest[Any]):
    """A request with a bound on its output, without tools, or both."""

    # No fields of the dataclass: `replace` makes a request of these alone.
    output_tokens = None
    calls_no_tools = False
    put = _NOTHING
    plain = _NOTHING

    def override(self, **overrides: Any) -> ModelRequest[Any]:
        """Returns the request with other members, and says the same to its model."""
        request = super().override(**overrides)
        if _ASKED.isdisjoint(overrides):
            return _marked(request, **_marks_of(self))
        settings = _without(self, request.model_settings)
        request = replace(request, model_settings=settings)
        bound = self.output_tokens
        if bound is not None:
            bound = min(bound, own_bound(request) or bound)
        return changed(request, output_tokens=bound, calls_no_tools=self.calls_no_tools)


def changed(
    request: ModelRequest[Any],
    *,
    output_tokens: int | None = None,
    calls_no_tools: bool = False,
) -> ModelRequest[Any]:
    """Returns a request that is changed, beside what was changed before.

    Args:
        request: What is asked for.
        output_tokens: The bound on output, of one candidate.
        calls_no_tools: Whether the model is to call none. Tools stay defined where a
            choice of none is known to work, since providers refuse a history of tool
            calls without them; elsewhere they are left out.
    """
    members = {field.name: getattr(request, field.name) for field in fields(request)}
    settings: Mapping[str, Any] = request.model_settings
    if isinstance(request, ChangedRequest):
        settings = _without(request, settings)
        output_tokens = output_tokens or request.output_tokens
        calls_no_tools = calls_no_tools or request.calls_no_tools
    put = bounds_of(request, output_tokens) if output_tokens else {}
    members["model_settings"] = {**settings, **put}
    if calls_no_tools:
        choice = no_tools(request.model)
        members["tools"] = request.tools if choice is not None else []
        members["tool_choice"] = choice if members["tools"] else None
    return _marked(
        ChangedRequest(**members),
        output_tokens=output_tokens,
        calls_no_tools=calls_no_tools,
        put=put,
        plain=settings,
    )


def _marked(request: ModelRequest[Any], **marks: object) -> ModelRequest[Any]:
    for name, value in marks.items():
        # Its own warns of whoever sets a member of a request.
        object.__setattr__(request, name, value)
    return request


def _marks_of(request: ChangedRequest) -> dict[str, object]:
    names = ("output_tokens", "calls_no_tools", "put", "plain")
    return {name: getattr(request, name) for name in names}


def _without(request: ChangedRequest, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings without what the middleware has put into them."""
    ours = {name for name, value in request.put.items() if settings.get(name) == value}
    kept = {name: value for name, value in settings.items() if name not in ours}
    return kept | {name: request.plain[name] for name in ours if name in request.plain}
