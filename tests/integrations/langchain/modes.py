"""The ways to run a runnable, sync and async. Each returns the errors it hands over."""

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.runnables import Runnable

Target = Runnable[Any, Any]


def invoke(target: Target, value: Any, config: Any) -> list[Any]:
    return [target.invoke(value, config)]


def batch(target: Target, value: Any, config: Any) -> list[Any]:
    return target.batch([value, value], config, return_exceptions=True)


def stream(target: Target, value: Any, config: Any) -> list[Any]:
    return list(target.stream(value, config))


async def ainvoke(target: Target, value: Any, config: Any) -> list[Any]:
    return [await target.ainvoke(value, config)]


async def abatch(target: Target, value: Any, config: Any) -> list[Any]:
    return await target.abatch([value, value], config, return_exceptions=True)


async def astream(target: Target, value: Any, config: Any) -> list[Any]:
    return [chunk async for chunk in target.astream(value, config)]


async def astream_events(target: Target, value: Any, config: Any) -> list[Any]:
    events = target.astream_events(value, config, version="v2")
    return [event async for event in events]


SYNC: dict[str, Callable[[Target, Any, Any], list[Any]]] = {
    run.__name__: run for run in (invoke, batch, stream)
}
ASYNC: dict[str, Callable[[Target, Any, Any], Awaitable[list[Any]]]] = {
    run.__name__: run for run in (ainvoke, abatch, astream, astream_events)
}
