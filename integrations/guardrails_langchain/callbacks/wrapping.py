"""Wrapping: a runnable with a handler that no caller's own callbacks displace."""

import functools
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs

__all__ = ["wrapped"]


def wrapped(
    target: Runnable[Any, Any], handler: BaseCallbackHandler
) -> Runnable[Any, Any]:
    """Returns the runnable with the handler attached; a graph stays a graph."""
    copy = target.with_config(callbacks=[handler])
    pregel = sys.modules.get("langgraph.pregel")
    if pregel is not None and isinstance(copy, pregel.Pregel):
        copy.__class__ = _keeping(type(copy))
    return copy


@functools.cache
def _keeping(kind: type[Any]) -> type[Any]:
    """Returns the kind of graph, such that its own callbacks are always called.

    langgraph 1.1 lets the callbacks of a call, those of `astream_events` among
    them, replace the graph's own; 1.2 merges both. This can go with 1.1.
    """

    def merged(graph: Any, config: RunnableConfig | None) -> RunnableConfig:
        own = RunnableConfig(callbacks=(graph.config or {}).get("callbacks"))
        return merge_configs(own, config)

    class Keeping(kind):
        def stream(
            self, input: object, config: RunnableConfig | None = None, **kwargs: Any
        ) -> Iterator[Any]:
            stream = super().stream(input, merged(self, config), **kwargs)
            return cast("Iterator[Any]", stream)

        def astream(
            self, input: object, config: RunnableConfig | None = None, **kwargs: Any
        ) -> AsyncIterator[Any]:
            stream = super().astream(input, merged(self, config), **kwargs)
            return cast("AsyncIterator[Any]", stream)

    Keeping.__name__ = kind.__name__
    Keeping.__qualname__ = kind.__qualname__
    Keeping.__module__ = kind.__module__
    return Keeping
