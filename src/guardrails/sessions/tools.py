"""Tools: turns a function into one whose every call is guarded."""

import asyncio
import concurrent.futures
import functools
import inspect
import types
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar, cast

from guardrails.core.calls import ToolCall
from guardrails.errors import ConfigurationError
from guardrails.sessions.guarded_call import GuardedCall
from guardrails.sessions.scope import call_of

__all__ = ["guarded_tool"]

P = ParamSpec("P")
T = TypeVar("T")

_Args = tuple[object, ...]
_Kwargs = dict[str, object]

_STILL_TO_COME = (
    types.GeneratorType,
    types.AsyncGeneratorType,
    asyncio.Future,
    concurrent.futures.Future,
)
"""Types of results that bring what they stand for later: they say nothing of it."""


def guarded_tool(
    function: Callable[P, T],
    *,
    tool: str,
    engine: object,
    is_meant: Callable[[], bool],
    call: Callable[[object], GuardedCall],
) -> Callable[P, T]:
    """Returns the function, guarded; sync stays sync, async stays async.

    Args:
        function: What the tool does.
        tool: The tool's name.
        engine: The guard's engine.
        is_meant: Whether a framework that only knows the tool's name means this one:
            another function may have it, too, with another server or price.
        call: Opens the guarded call for the arguments, by name.

    Raises:
        ConfigurationError: If it is a generator function.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"tool {tool!r}: a generator function cannot be guarded, because its work "
            "happens after the call has returned. Guard the function that consumes "
            "it, or return a list."
        )
    calls = _Calls(tool, engine, is_meant, call, _signature(function))
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: P.args, **kwargs: P.kwargs) -> object:
            if await calls.atake_over(args, kwargs):
                return await function(*args, **kwargs)
            async with calls.open(args, kwargs) as guarded:
                result = await function(*args, **kwargs)
                _settle(guarded, result)
                return result

        return cast("Callable[P, T]", run_async)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> object:
        if calls.take_over(args, kwargs):
            return function(*args, **kwargs)
        with calls.open(args, kwargs) as guarded:
            result = function(*args, **kwargs)
            if type(result) is types.CoroutineType:
                # Of an `async def` that another decorator, or a class, hides.
                guarded.goes_on = True
                return _awaited(guarded, cast("Coroutine[Any, Any, object]", result))
            _settle(guarded, result)
            return result

    return cast("Callable[P, T]", run)


@dataclass(frozen=True, slots=True)
class _Calls:
    """Opens the calls of one tool, or takes over what a framework has opened."""

    tool: str
    engine: object
    is_meant: Callable[[], bool]
    call: Callable[[object], GuardedCall]
    signature: inspect.Signature | None

    def open(self, args: _Args, kwargs: _Kwargs) -> GuardedCall:
        """Returns a call that has yet to be reserved."""
        return self.call(_by_name(self.signature, args, kwargs))

    def take_over(self, args: _Args, kwargs: _Kwargs) -> bool:
        """Takes this very call over if a framework has opened it: it counts once.

        One that it has opened as that of another tool is given back first: both
        together may not fit into what is left.
        """
        opened = call_of(self.engine)
        if opened is None or not opened.claim(self.tool):
            return False
        if not self.is_meant():
            opened.release()
            self._rename(opened, args, kwargs)
            opened.reserve()
        return True

    async def atake_over(self, args: _Args, kwargs: _Kwargs) -> bool:
        """Like `take_over`, for asyncio."""
        opened = call_of(self.engine)
        if opened is None or not opened.claim(self.tool):
            return False
        if not self.is_meant():
            await opened.arelease()
            self._rename(opened, args, kwargs)
            await opened.areserve()
        return True

    def _rename(self, opened: GuardedCall, args: _Args, kwargs: _Kwargs) -> None:
        known, meant = opened.call, self.open(args, kwargs).call
        assert isinstance(known, ToolCall)
        assert isinstance(meant, ToolCall)
        meant = replace(meant, call_id=known.call_id, bytes_in=known.bytes_in)
        opened.become(meant, opened.attribution)


async def _awaited(guarded: GuardedCall, work: Coroutine[Any, Any, object]) -> object:
    """Does the work of a call that was reserved before there was anything to await."""
    guarded.enter_scope()
    try:
        result = await work
    except BaseException as error:
        guarded.finish(guarded.outcome_of(error))
        raise
    else:
        _settle(guarded, result)
        return result
    finally:
        guarded.leave_scope()


def _settle(guarded: GuardedCall, result: object) -> None:
    # Asked of the type: an instance could answer anything, or raise.
    if issubclass(type(result), _STILL_TO_COME):
        guarded.settle()
    else:
        guarded.settle(result=result)


def _signature(function: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except ValueError:  # Some built-in functions have none.
        return None


def _by_name(
    signature: inspect.Signature | None,
    args: _Args,
    kwargs: _Kwargs,
) -> object:
    """Returns the arguments by name, so that f(1) and f(x=1) are the same call."""
    if signature is None:
        return (args, kwargs)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:  # The function itself will say so better.
        return (args, kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)
