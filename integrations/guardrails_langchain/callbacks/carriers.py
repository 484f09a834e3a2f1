"""Carriers: the guard that an agent carries along, found in all of its graph.

LangGraph runs each hook of a middleware in a node of its own, so that no context that
ours sets reaches another's: the model that writes summaries between two calls of the
agent is called in none of our hooks. What all nodes can read is the agent's state,
in every run of its thread. So the middleware has its name in there, as a value that
is computed, and is in no checkpoint.
"""

import itertools
import weakref
from collections.abc import Callable, Container, Mapping
from typing import Any, Protocol

from langchain_core.runnables.config import var_child_runnable_config

from guardrails.engine import Engine
from guardrails.system.ids import new_id
from guardrails.system.threads import WeakList
from guardrails_langchain.callbacks.handler import GuardCallbackHandler

__all__ = ["SESSION", "Carrier", "carried_around", "named"]

MIDDLEWARE = "guardrails_middleware"
"""Where in the state a carrier is named, before the number of its guard."""

SESSION = "guardrails_session"
"""Where in the state a run's session is named."""

_READ = "__pregel_read"
"""Where LangGraph (1.1 to 1.2) puts what reads the state of the running graph."""


class Carrier(Protocol):
    """What carries a guard along."""

    def handler(self, state: Mapping[str, Any]) -> GuardCallbackHandler:
        """Returns the handler of what runs in the agent outside of our hooks."""
        ...


_carriers: "weakref.WeakValueDictionary[str, Carrier]" = weakref.WeakValueDictionary()
_engines: "WeakList[Engine]" = WeakList()
"""Of the guards that are carried along."""

_numbers = itertools.count(1)
_KEY = "guardrails_langchain.carriers"


def named(carrier: Carrier, engine: Engine) -> tuple[str, str]:
    """Returns where in the state a carrier of a guard is named from now on, and how."""
    name = new_id("m")
    _carriers[name] = carrier
    if engine not in _engines.alive():
        _engines.add(engine)
    return _key_of(engine), name


def carried_around(known: Container[Engine], at: int) -> GuardCallbackHandler | None:
    """Returns a handler of the agent whose graph runs this code, if it has one.

    Args:
        known: The guards of which none is looked for.
        at: Which of them, from 0: an agent has one for each guard that it carries.
    """
    engines = [engine for engine in _engines.alive() if engine not in known]
    if at >= len(engines):  # Most programs have one guard, or carry none along.
        return None
    config = var_child_runnable_config.get()
    read = (config or {}).get("configurable", {}).get(_READ)
    if read is None:
        return None
    found = [_carried(read, engine) for engine in engines]
    handlers = [handler for handler in found if handler is not None]
    return handlers[at] if at < len(handlers) else None


def _carried(
    read: Callable[[list[str]], Any], engine: Engine
) -> GuardCallbackHandler | None:
    key = _key_of(engine)
    try:
        carrier = _carriers.get(read([key])[key])
        return None if carrier is None else carrier.handler(read([SESSION]))
    except KeyError:  # The state of another graph has no such value.
        return None
    except Exception as error:
        engine.contain(error, "finding the guard of an agent")
        return None


def _key_of(engine: Engine) -> str:
    """Returns where the guard is named: two may be in one agent."""
    key = engine.attachments.setdefault(_KEY, f"{MIDDLEWARE}_{next(_numbers)}")
    return str(key)
