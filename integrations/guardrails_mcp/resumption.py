"""Resumption: a request that reads on what an earlier one has begun to answer.

Over streamable HTTP a client whose stream broke off sends the same `tools/call` to its
SDK again, with the token of the last event that it has read. The SDK then writes no
request: it asks for the events that followed, and the tool runs no second time. Only a
token that the server has sent for an admitted call is one; over stdio, for example, a
made-up one would be a way past the budget.
"""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

from guardrails.core.calls import ToolCall
from guardrails.engine import Engine
from guardrails_mcp import wire

__all__ = ["Reading", "Resumable", "heard", "token_of"]

TOKENS_MAX = 4_096
"""Tokens that a process remembers for each guard, as of calls with much progress; the
oldest is forgotten beyond that, and its call counts again if it is resumed there."""

_AT = 1
"""Where the SDK's `send_request` takes its metadata: after the timeout."""


@dataclass(slots=True)
class Reading:
    """How far the answer to a call was read."""

    is_over: bool = False
    """Whether its result came, so that all that it cost is known."""


class Resumable:
    """The answers that can be read on, by the server's tokens. Thread safe.

    A client that has lost its connection resumes on another one, so the sessions and
    clients of a guard share one.
    """

    def __init__(self) -> None:
        self._readings: OrderedDict[tuple[object, ...], Reading] = OrderedDict()
        """Oldest first."""
        self._lock = threading.RLock()

    @staticmethod
    def of(engine: Engine) -> "Resumable":
        """Returns what can be resumed of a guard's calls."""
        return _of_guards.setdefault(engine, Resumable())

    def keep(self, token: str, call: ToolCall, reading: Reading) -> None:
        """Remembers that the server has sent a token while it answered a call.

        Args:
            token: The token, of which two servers may have the same.
            call: The call.
            reading: What is known of its answer.
        """
        with self._lock:
            self._readings[_key(token, call)] = reading
            if len(self._readings) > TOKENS_MAX:
                self._readings.popitem(last=False)

    def find(self, token: str, call: ToolCall) -> Reading | None:
        """Returns the answer that goes on with a token; `None` if there is none."""
        with self._lock:
            return self._readings.get(_key(token, call))


_of_guards: WeakKeyDictionary[Engine, Resumable] = WeakKeyDictionary()


def _key(token: str, call: ToolCall) -> tuple[object, ...]:
    return token, call.name, call.arguments_digest


def token_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Returns the token with which a request goes on, by the SDK's arguments."""
    token = wire.value_of(_metadata(args, kwargs), "resumption_token")
    return token if isinstance(token, str) and token else None


def heard(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    hear: Callable[[str], None],
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Returns the SDK's arguments, so that tokens are heard that the client asks for.

    Who asks for none cannot resume.
    """
    metadata = cast("Any", _metadata(args, kwargs))
    tell = wire.value_of(metadata, "on_resumption_token_update")
    if not callable(tell) or not hasattr(metadata, "__dataclass_fields__"):
        return args, kwargs

    async def told(token: str) -> None:
        hear(token)
        await cast("Callable[[str], Awaitable[None]]", tell)(token)

    metadata = dataclasses.replace(metadata, on_resumption_token_update=told)
    if len(args) > _AT:
        return (*args[:_AT], metadata, *args[_AT + 1 :]), kwargs
    return args, {**kwargs, "metadata": metadata}


def _metadata(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
    return args[_AT] if len(args) > _AT else kwargs.get("metadata")
