"""Configuration: builds the policy from YAML, a dict, the environment and code.

Nothing else in guardrails reads the environment. Read the package from the
bottom: `nodes` holds what was written and where, `yaml_nodes` reads it from a
file, `section` hands out the keys of one mapping and reports the rest,
`values` reads single values, `settings` knows which keys there are, and
`loading` finds the sources and lays them over one another.
"""

from guardrails.config.environment import (
    agent_path_from_environment,
    attribution_from_environment,
    environment_of,
    sessions_from_environment,
    tags_from_environment,
)
from guardrails.config.loading import Configuration, load_configuration

__all__ = [
    "Configuration",
    "agent_path_from_environment",
    "attribution_from_environment",
    "environment_of",
    "load_configuration",
    "sessions_from_environment",
    "tags_from_environment",
]
