"""Environment: the variables that guardrails knows, and what they are called.

The process's environment comes in as a mapping. An empty variable counts as
not set, as in a shell's `${NAME:-default}`; an empty limit is a mistake,
because a session without its limit would go unnoticed.
"""

from collections.abc import Iterator, Mapping

from guardrails.core.attribution import clean_name

__all__ = ["CONFIG_VARIABLE", "attribution_from_environment", "quick_variables"]

CONFIG_VARIABLE = "GUARDRAILS_CONFIG"

_TEXTS: Mapping[str, tuple[str, ...]] = {
    "store": ("GUARDRAILS_STORE",),
    "project_id": ("GUARDRAILS_PROJECT_ID", "MCPSPEND_PROJECT_ID"),
    "mode": ("GUARDRAILS_MODE",),
}
"""Variables by setting; the first that is set counts."""

_LIMITS: Mapping[str, str] = {
    "max_cost_usd": "GUARDRAILS_MAX_COST_USD",
    "max_steps": "GUARDRAILS_MAX_STEPS",
    "max_wall_time_s": "GUARDRAILS_MAX_WALL_TIME_S",
}

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
