"""Wrapping: gives a client of MCP a class whose tool calls are guarded.

The object stays the object: its class is replaced by a subclass of it, and everything
that the SDK's own code calls on it goes through the overrides. Replacing methods of the
one object instead would break copies of it, which `fastmcp.Client.new` makes; a proxy
would leave whoever holds the object itself unguarded.

Which object it is, is asked of its methods: there are two majors of the SDK, and other
clients are built like its own. Nothing here imports any of them.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

from guardrails import Guard
from guardrails_mcp import wire
from guardrails_mcp.calls import Wrapping
from guardrails_mcp.sampling import SamplingRequest, answered, guards_sampling
from guardrails_mcp.sending import SERVER, WRAPPINGS, closed, sent, wrappings_of

__all__ = ["unwrapped", "wrapped"]


def wrapped(guard: Guard, target: object, options: Mapping[str, Any]) -> object:
    """Returns the object, guarded; `None` if it is no client of MCP."""
    swap = _swap_of(target)
    members = _members(target)
    if swap is None and not members:
        return None
    wanted = Wrapping.of(guard, options)
    if swap is None:
        for name, member in members:
            wrapped(guard, member, {"server": name, **options})
        return target
    wrapping = _merged(wrappings_of(target), wanted)
    _attach(target, swap, wrapping)
    for inner in _inner(target):
        _attach(inner, _session_class, wrapping)
    return target


def unwrapped(guard: Guard, target: object) -> object:
    """Returns the object without this guard; `None` if this guard is not around it."""
    parts = [target, *_inner(target), *(member for _, member in _members(target))]
    found = [part for part in parts if _detach(part, guard)]
    return target if found else None


def _merged(known: Iterable[Wrapping], wanted: Wrapping) -> Wrapping:
    """Returns what a guard wants of an object, which it may guard already."""
    before = next((one for one in known if one.engine is wanted.engine), None)
    if before is None:
        return wanted
    names = {**before.names, **wanted.names}
    tags = {**before.tags, **wanted.tags}
    server = wanted.server or before.server
    if (names, tags, server) == (before.names, before.tags, before.server):
        return before
    return Wrapping(
        guard=wanted.guard, names=names, tags=tags, server=server, rounds=before.rounds
    )


# --- which object it is -----------------------------------------------------


def _swap_of(target: object) -> "Callable[[type[Any]], type[Any]] | None":
    """Returns what makes the class that guards such an object."""
    kind = type(target)
    if _has(kind, "connect_with_session"):
        return _group_class
    if _has(kind, "send_request") and _has(kind, "call_tool"):
        return _session_class
    if _has(kind, "__aenter__") and _has(kind, "call_tool") and _is_client(kind):
        return _client_class
    return None


def _has(kind: type, name: str) -> bool:
    return inspect.iscoroutinefunction(inspect.getattr_static(kind, name, None))


def _is_client(kind: type) -> bool:
    return isinstance(inspect.getattr_static(kind, "session", None), property)


def _members(target: object) -> list[tuple[str, object]]:
    """Returns the clients of a group of them, such as `fastmcp.client.group`'s."""
    clients = getattr(target, "clients", None) if _has(type(target), "call_tool") else 0
    if not isinstance(clients, Mapping):
        return []
    members = cast("Mapping[object, object]", clients)
    return [(str(name), one) for name, one in members.items() if _swap_of(one)]


def _inner(target: object) -> list[object]:
    """Returns the sessions that an object has open."""
    kind = _bare(type(target))
    try:
        if _has(kind, "connect_with_session"):
            return list(cast("Any", target).sessions)
        if _is_client(kind):
            return [cast("Any", target).session]
    except Exception:  # It is not connected.
        return []
    return []


# --- swapping ---------------------------------------------------------------


def _attach(
    target: object, swap: Callable[[type[Any]], type[Any]], wrapping: Wrapping
) -> None:
    """Puts a guard around an object, in the place of what it wanted before."""
    if not _is_swapped(type(target)):
        target.__class__ = swap(type(target))
    known = wrappings_of(target)
    others = [one for one in known if one.engine is not wrapping.engine]
    is_new = len(others) == len(known)
    vars(target)[WRAPPINGS] = (
        (*known, wrapping)
        if is_new
        else tuple(wrapping if one not in others else one for one in known)
    )


def _detach(target: object, guard: Guard) -> bool:
    known = wrappings_of(target)
    left = tuple(one for one in known if one.engine is not guard.engine)
    if len(left) == len(known):
        return False
    vars(target)[WRAPPINGS] = left
    if not left:
        del vars(target)[WRAPPINGS]
        vars(target).pop(SERVER, None)
        target.__class__ = _bare(type(target))
    return True


def _adopt(session: object, wrappings: Iterable[Wrapping]) -> object:
    """Puts the guards of a client around the session that it has opened."""
    known = {one.engine for one in wrappings_of(session)}
    for wrapping in wrappings:
        if wrapping.engine not in known:
            _attach(session, _session_class, wrapping)
    return session


def _is_swapped(kind: type) -> bool:
    return "_guardrails_bare" in vars(kind)


def _bare(kind: type[Any]) -> type[Any]:
    return vars(kind).get("_guardrails_bare", kind)


def _named(guarded: type[Any], kind: type[Any]) -> type[Any]:
    guarded.__name__ = kind.__name__
    guarded.__qualname__ = kind.__qualname__
    guarded.__module__ = kind.__module__
    guarded.__doc__ = kind.__doc__
    guarded._guardrails_bare = kind
    return guarded


@functools.cache
def _session_class(kind: type[Any]) -> type[Any]:
    """Returns the class of sessions whose tool calls are guarded."""

    class Guarded(kind):
        async def send_request(
            self, request: Any, result_type: Any, *args: Any, **kwargs: Any
        ) -> Any:
            send = functools.partial(super().send_request, request, result_type)
            return await sent(self, request, send, args, kwargs)

        async def __aexit__(self, *error: object) -> Any:
            try:
                return await super().__aexit__(*error)
            finally:
                await closed(self, [self])

    if _has(kind, "dispatch_input_request"):

        async def dispatch_input_request(self: Any, ctx: Any, request: Any) -> Any:
            asked = SamplingRequest.of(request)
            dispatch = functools.partial(
                kind.dispatch_input_request, self, ctx, request
            )
            if asked is None or not guards_sampling(self):
                return await dispatch()
            return await answered(wrappings_of(self), asked, dispatch)

        Guarded.dispatch_input_request = dispatch_input_request
    else:
        Guarded._sampling_callback = property(
            _sampling_callback, _set_sampling_callback
        )
    return _named(Guarded, kind)


@functools.cache
def _client_class(kind: type[Any]) -> type[Any]:
    """Returns the class of clients whose sessions are guarded, whenever they open."""

    class Guarded(kind):
        @property
        def session(self) -> Any:
            return _adopt(super().session, wrappings_of(self))

        async def __aenter__(self) -> Any:
            entered = await super().__aenter__()
            _inner(self)  # A server may ask for sampling before the first call.
            return entered

        async def __aexit__(self, *error: object) -> Any:
            return await _left(self, super().__aexit__(*error))

    return _named(Guarded, kind)


@functools.cache
def _group_class(kind: type[Any]) -> type[Any]:
    """Returns the class of groups whose sessions are guarded."""

    class Guarded(kind):
        async def connect_with_session(
            self, server_info: Any, session: Any, *args: Any, **kwargs: Any
        ) -> Any:
            vars(_adopt(session, wrappings_of(self))).setdefault(
                SERVER, wire.server_name(server_info)
            )
            return await super().connect_with_session(
                server_info, session, *args, **kwargs
            )

        async def __aexit__(self, *error: object) -> Any:
            return await _left(self, super().__aexit__(*error))

    return _named(Guarded, kind)


async def _left(target: object, leave: Awaitable[Any]) -> Any:
    """Leaves an object, and books what waits on the connections that end with that."""
    connections = _inner(target)
    try:
        return await leave
    finally:
        if not _inner(target):  # Others may still hold the connection.
            await closed(target, connections)


def _sampling_callback(session: Any) -> Any:
    """Returns the guarded callback of a session of SDK 1.x.

    The SDK compares it with its default, which declines, to say what the client can
    do. So that one is passed as it is.
    """
    callback = vars(session).get("_sampling_callback")
    if not guards_sampling(session):
        return callback

    async def guarded(context: Any, params: Any) -> Any:
        ask = functools.partial(callback, context, params)
        return await answered(wrappings_of(session), SamplingRequest.read(params), ask)

    return guarded


def _set_sampling_callback(session: Any, callback: Any) -> None:
    vars(session)["_sampling_callback"] = callback
