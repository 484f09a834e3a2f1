"""Around: the LangChain run that the running code is a part of."""

from uuid import UUID

from langchain_core.runnables.config import var_child_runnable_config

__all__ = ["callbacks_around", "running_id"]


def callbacks_around() -> object:
    """Returns the callbacks of the LangChain run around the running code, if any."""
    config = var_child_runnable_config.get()
    return config.get("callbacks") if config else None


def running_id() -> UUID | None:
    """Returns the id of the LangChain run around the running code."""
    return getattr(callbacks_around(), "parent_run_id", None)
