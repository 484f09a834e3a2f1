"""guardrails for LangChain, LangGraph and deepagents.

Importing this package hooks it into LangChain: inside `guard.session(...)` all
runs are guarded, with no callbacks passed.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

try:
    from langchain_core.runnables import Runnable
except ImportError as _missing:  # pragma: no cover - needs an environment without it
    raise ImportError(
        "guardrails_langchain needs LangChain: "
        'pip install "guardrails-runtime[langchain]"'
    ) from _missing

from guardrails import Guard
from guardrails_langchain.callbacks.ambient import hook, install, running, uninstall
from guardrails_langchain.callbacks.handler import GuardCallbackHandler
from guardrails_langchain.callbacks.wrapping import wrapped

if TYPE_CHECKING:
    from guardrails_langchain.agents.middleware import GuardMiddleware

__all__ = [
    "GuardCallbackHandler",
    "GuardMiddleware",
    "install",
    "running",
    "self_test",
    "uninstall",
    "unwrap_object",
    "wrap_object",
]

hook()


def wrap_object(guard: object, target: object, options: object) -> object:
    """Returns a runnable with the guard's handler attached; `None` for others."""
    if not isinstance(target, Runnable):
        return None
    names = cast("dict[str, Any]", options)
    names.pop("server", None)
    handler = GuardCallbackHandler(cast("Guard", guard), **names)
    return wrapped(cast("Runnable[Any, Any]", target), handler)


def unwrap_object(guard: object, target: object) -> None:
    """Leaves every object alone: a runnable was wrapped as a copy."""
    return


def self_test() -> Mapping[str, bool]:
    """Returns whether a limit stops each way to call a model; see `selftest`."""
    # Imported late: only `guardrails doctor` asks.
    from guardrails_langchain import selftest

    return selftest.self_test()


def __getattr__(name: str) -> object:
    # Imported late: it needs the whole of langchain, a handler only its core.
    if name == "GuardMiddleware":
        from guardrails_langchain.agents.middleware import GuardMiddleware

        return GuardMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
