"""Guards: refuses what is none where an agent is built, and not in its first call."""

from guardrails.config.problems import shown
from guardrails.errors import ConfigurationError
from guardrails.guard import Guard

__all__ = ["checked_guard"]


def checked_guard(guard: object, *, called: str) -> Guard:
    """Returns the guard.

    Args:
        guard: What was given as one.
        called: What it was given to.

    Raises:
        ConfigurationError: If it is none.
    """
    if isinstance(guard, Guard):
        return guard
    raise ConfigurationError(
        f"{called}: {shown(guard)} is no guard. Write {called}(Guard(...))."
    )
