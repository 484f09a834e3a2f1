"""Tools: turns a function into one whose every call is guarded."""

import asyncio
import concurrent.futures
import functools
import inspect
import types
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar, cast

from guardrails.charges import ToolPrice
from guardrails.core.calls import ToolCall
from guardrails.engine import Engine
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
    engine: Engine,
    price: ToolPrice,
    call: Callable[[object], GuardedCall],
) -> Callable[P, T]:
    """Returns the function, guarded; sync stays sync, async stays async.

    Args:
        function: What the tool does.
        tool: The tool's name.
        engine: The guard's engine.
        price: What is declared about the function.
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
    signature = _signature(function)
    calls = _Calls(tool, engine, price, call, signature, _rest_of(signature))
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
    engine: Engine
    price: ToolPrice
    call: Callable[[object], GuardedCall]
    signature: inspect.Signature | None
    rest: str | None
    """The parameter that takes the arguments of other names."""

    def open(self, args: _Args, kwargs: _Kwargs) -> GuardedCall:
        """Returns a call that has yet to be reserved."""
        return self.call(self._by_name(args, kwargs))

    def take_over(self, args: _Args, kwargs: _Kwargs) -> bool:
        """Takes this very call over if a framework has opened it: it counts once.

        One that it has opened as something else is given back first: both together
        may not fit into what is left.
        """
        opened = call_of(self.engine)
        if opened is None or not opened.claim(self.tool):
            return False
        if (meant := self._meant(opened, args, kwargs)) is not None:
            opened.release()
            opened.become(meant, opened.attribution)
            opened.reserve()
        return True

    async def atake_over(self, args: _Args, kwargs: _Kwargs) -> bool:
        """Like `take_over`, for asyncio."""
        opened = call_of(self.engine)
        if opened is None or not opened.claim(self.tool):
            return False
        if (meant := self._meant(opened, args, kwargs)) is not None:
            await opened.arelease()
            opened.become(meant, opened.attribution)
            await opened.areserve()
        return True

    def _meant(
        self, opened: GuardedCall, args: _Args, kwargs: _Kwargs
    ) -> ToolCall | None:
        """Returns what should have been opened; `None` if that was.

        A framework that knows the tool's name alone may have taken it for another
        function of that name. A server names it after itself, and knows no price.
        """
        known, charges = opened.call, self.engine.charges
        assert isinstance(known, ToolCall)
        last = charges.tools[self.tool]
        if last == self.price and known.server in (None, last.server):
            return None
        if last != self.price and known.server == last.server:
            planned = self.open(args, kwargs).call
            assert isinstance(planned, ToolCall)
            return replace(planned, call_id=known.call_id, bytes_in=known.bytes_in)
        if self.price.cost_nano_usd is None:
            return None
        priced = replace(known, cost_nano_usd=self.price.cost_nano_usd)
        is_same = charges.tool_charge(priced) == charges.tool_charge(known)
        return None if is_same else priced

    def _by_name(self, args: _Args, kwargs: _Kwargs) -> object:
        """Returns the arguments by name, so that f(1) and f(x=1) are the same call."""
        if self.signature is None:
            return (args, kwargs)
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError:  # The function itself will say so better.
            return (args, kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        if self.rest is not None:
            # By their own names, as a policy names those that it ignores.
            others: dict[str, object] = arguments[self.rest]
            if others.keys().isdisjoint(arguments):
                del arguments[self.rest]
                arguments |= others
        return arguments


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


def _rest_of(signature: inspect.Signature | None) -> str | None:
    for parameter in () if signature is None else signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return parameter.name
    return None
