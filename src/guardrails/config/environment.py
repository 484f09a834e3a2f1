"""Environment: the variables that guardrails knows, and what they are called.

The process's environment comes in as a mapping. An empty variable counts as
not set, as in a shell's `${NAME:-default}`; an empty limit is a mistake,
because a session without its limit would go unnoticed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from urllib.parse import quote, unquote

from guardrails.core.attribution import TAGS_MAX, Attribution, clean_name

__all__ = [
    "CONFIG_VARIABLE",
    "agent_path_from_environment",
    "attribution_from_environment",
    "environment_of",
    "misspelt_limits",
    "quick_variables",
    "sessions_from_environment",
    "tags_from_environment",
]

CONFIG_VARIABLE = "GUARDRAILS_CONFIG"

TAGS_VARIABLE = "GUARDRAILS_TAGS"

AGENT_PATH_VARIABLE = "GUARDRAILS_AGENT_PATH"

AROUND_VARIABLE = "GUARDRAILS_SESSIONS_AROUND"

LIST_CHARACTERS_MAX = 32_768
"""Sixteen pairs of the longest names, percent-encoded. More is not read."""

_TEXTS: Mapping[str, tuple[str, ...]] = {
    "store": ("GUARDRAILS_STORE",),
    "project_id": ("GUARDRAILS_PROJECT_ID", "MCPSPEND_PROJECT_ID"),
    "mode": ("GUARDRAILS_MODE",),
}
"""Variables by setting; the first that is set counts."""

_LIMITS: Mapping[str, str] = {
    "max_cost_usd": "GUARDRAILS_MAX_COST_USD",
    "max_steps": "GUARDRAILS_MAX_STEPS",
    "max_model_calls": "GUARDRAILS_MAX_MODEL_CALLS",
    "max_tool_calls": "GUARDRAILS_MAX_TOOL_CALLS",
    "max_tokens": "GUARDRAILS_MAX_TOKENS",
    "max_wall_time_s": "GUARDRAILS_MAX_WALL_TIME_S",
}

_LIMIT_PREFIX = "GUARDRAILS_MAX_"

_OTHER_LIMITS = frozenset({"GUARDRAILS_MAX_LINE_BYTES"})
"""Of the stdio proxy."""

_ATTRIBUTION: Mapping[str, tuple[str, ...]] = {
    "agent": ("GUARDRAILS_AGENT", "MCPSPEND_AGENT_NAME"),
    "customer_id": ("GUARDRAILS_CUSTOMER_ID",),
    "user_id": ("GUARDRAILS_USER_ID",),
    "feature": ("GUARDRAILS_FEATURE",),
    "prompt_version": ("GUARDRAILS_PROMPT_VERSION",),
    "session_id": ("GUARDRAILS_SESSION_ID",),
}


def attribution_from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the names that the environment gives to whatever runs in it.

    A bad name is cleaned and not refused: it comes from a deployment, and a
    refusal would break somebody's agent.

    Args:
        environ: The process's environment.

    Returns:
        Names by dimension, among `agent`, `customer_id`, `user_id`, `feature`,
        `prompt_version` and `session_id`. A dimension without a name is absent.
    """
    names: dict[str, str] = {}
    for dimension, variables in _ATTRIBUTION.items():
        cleaned = (clean_name(environ.get(variable)) for variable in variables)
        name = next((name for name in cleaned if name is not None), None)
        if name is not None:
            names[dimension] = name
    return names


def tags_from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the tags in `GUARDRAILS_TAGS`, written `env=prod,team=search`.

    Names and values may be percent-encoded, which commas must be. What is no pair is
    left out, and a bad name cleaned, as for names.

    Args:
        environ: The process's environment.

    Returns:
        The first pairs, at most as many as a call can have.
    """
    tags: dict[str, str] = {}
    for pair in environ.get(TAGS_VARIABLE, "")[:LIST_CHARACTERS_MAX].split(","):
        key, value = (clean_name(unquote(part.strip())) for part in _parted(pair))
        if key is not None and value is not None and len(tags) < TAGS_MAX:
            tags[key] = value
    return tags


def agent_path_from_environment(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """Returns the agents that the process works for, outermost first.

    Only a guard of another process sets them: by then its session has begun. `None`
    says that none has; a session without an agent gives an empty path.

    Args:
        environ: The process's environment.
    """
    text = environ.get(AGENT_PATH_VARIABLE, "").strip()
    if not text:
        return None
    parts = text[:LIST_CHARACTERS_MAX].split(",")
    names = [clean_name(unquote(part.strip())) for part in parts]
    return tuple([name for name in names if name is not None])


def sessions_from_environment(
    environ: Mapping[str, str],
) -> tuple[tuple[str, str | None], ...]:
    """Returns the sessions around that of the environment, innermost first.

    Each is an id and its agent. Like the agents' path, only guards set them.

    Args:
        environ: The process's environment.
    """
    sessions: list[tuple[str, str | None]] = []
    for part in environ.get(AROUND_VARIABLE, "")[:LIST_CHARACTERS_MAX].split(","):
        session_id, _, agent = part.partition(":")
        name = clean_name(unquote(session_id))
        if name is not None:
            sessions.append((name, clean_name(unquote(agent))))
    return tuple(sessions)


def environment_of(
    attribution: Attribution,
    settings: Mapping[str, str | None],
    *,
    agent_path: Sequence[str] = (),
    around: Iterable[tuple[str, str | None]] = (),
) -> dict[str, str]:
    """Returns the variables in which another process acts for this attribution.

    Args:
        attribution: Whose session its calls are charged to.
        settings: Values by setting, among `config`, `store`, `project_id`, `mode`
            and the quick limits. `None` leaves one out.
        agent_path: The agents that it works for, outermost first.
        around: The sessions around its own, innermost first, and their agents.
    """
    variables = {"config": CONFIG_VARIABLE, **_LIMITS}
    variables |= {key: names[0] for key, names in _TEXTS.items()}
    dimensions = {key: names[0] for key, names in _ATTRIBUTION.items()}
    tags = [f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in attribution.tags]
    values = {
        **{variables[key]: value for key, value in settings.items()},
        **{name: attribution.value(key) for key, name in dimensions.items()},
        TAGS_VARIABLE: ",".join(tags) or None,
        # A comma alone is an empty path: an empty variable would count as not set.
        AGENT_PATH_VARIABLE: ",".join(quote(name, safe="") for name in agent_path)
        or ",",
        AROUND_VARIABLE: ",".join(
            f"{quote(session_id, safe='')}:{quote(agent or '', safe='')}"
            for session_id, agent in around
        )
        or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def quick_variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yields the setting, its variable and the value, for all that are set."""
    for key, variables in _TEXTS.items():
        for variable in variables:
            if environ.get(variable, "").strip():
                yield key, variable, environ[variable]
                break
    for key, variable in _LIMITS.items():
        if variable in environ:
            yield key, variable, environ[variable]


def misspelt_limits(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields each variable that would be a limit but for its name, and the nearest one.

    Other names that begin like ours may be anybody's. A limit that is not in force
    would go unnoticed.
    """
    for name in sorted(environ):
        if name.startswith(_LIMIT_PREFIX) and name not in _OTHER_LIMITS:
            [near] = get_close_matches(name, _LIMITS.values(), n=1, cutoff=0)
            if near != name:
                yield name, near


def _parted(pair: str) -> tuple[str, str]:
    key, _, value = pair.partition("=")
    return key, value
