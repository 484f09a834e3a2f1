"""Metadata: the names that those of a LangChain run carry."""

from collections.abc import Mapping

from guardrails.core.attribution import Attribution, clean_name

__all__ = ["NAMES", "names_of", "nested", "session_name_of"]

NAMES = {
    "customer_id": ("customer_id",),
    "user_id": ("user_id", "langfuse_user_id"),
    "feature": ("feature",),
    "prompt_version": ("prompt_version",),
}
"""Names that a root run's metadata may carry, with the aliases that are read."""

_SESSION_NAMES = ("session_id", "langfuse_session_id", "thread_id")


def nested(attribution: Attribution, metadata: Mapping[str, object]) -> Attribution:
    """Adds the agent that LangChain names, if it is another than the one above."""
    agent = metadata.get("lc_agent_name")
    if agent is None or agent == attribution.agent:
        return attribution
    name = clean_name(agent)
    return attribution if name is None else attribution.under(name)


def names_of(metadata: Mapping[str, object]) -> dict[str, str | None]:
    """Returns the names that metadata carries, made safe: they come from outside."""
    found = {key: _first(metadata, names) for key, names in NAMES.items()}
    return {key: name for key, name in found.items() if name is not None}


def session_name_of(metadata: Mapping[str, object]) -> str | None:
    """Returns what the session is called, else the thread."""
    return _first(metadata, _SESSION_NAMES)


def _first(metadata: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = metadata.get(name)
        if value is not None:
            text = value if isinstance(value, str) else str(value)[:256]
            return clean_name(text)
    return None
