"""Plain data: reads values of any class without running their code.

Values come from models, servers and users. Nothing here calls a method that their
classes could have overridden: built-in accessors are used unbound, such as
`dict.items(value)`. Of objects that are no containers only the fields of
dataclasses, pydantic models and enums are read, past any `__getattribute__`.
"""

import contextlib
import enum
import types
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from typing import Any, cast

from guardrails.core.tracebacks import let_through

__all__ = [
    "DEPTH_MAX",
    "DICT",
    "LIST",
    "NODES_MAX",
    "SET",
    "contained",
    "fields",
    "nodes_of",
    "size_bytes",
    "type_name",
]

DICT, LIST, SET = "d", "l", "e"
"""The kinds of containers. Tuples are lists."""

NODES_MAX = 5_000
"""Values that are looked at, over all levels: 2 to 5 ms. What takes longer than
the member of a list counts as more, see `nodes_of`."""

DEPTH_MAX = 64
"""Levels that are looked at. Tool schemas nest below 10; a cycle ends here."""

SAMPLED_CHARACTERS_MAX = 65_536
"""Encoded to learn how many bytes the characters of a value take: 0.3 ms."""

CONTAINER_NODES = 4
"""What opening a container counts as, on top of its members."""

NODES_OF_MEMBER = {LIST: 1, SET: 2, DICT: 3}
"""Elements of sets are sorted; items of dicts are two values, and sorted."""

_CONTAINERS: tuple[
    tuple[type, str, Callable[[Any], Iterable[Any]], Callable[[Any], int]], ...
] = (
    (list, LIST, list[Any].__iter__, list[Any].__len__),
    (dict, DICT, dict[Any, Any].items, dict[Any, Any].__len__),
    (tuple, LIST, tuple[Any, ...].__iter__, tuple[Any, ...].__len__),
    (set, SET, set[Any].__iter__, set[Any].__len__),
    (frozenset, SET, frozenset[Any].__iter__, frozenset[Any].__len__),
)


def contained(value: object, nodes: int) -> tuple[str, list[Any], int] | None:
    """Returns kind, first members and length of a container, else `None`.

    The members of a dict are its items. `nodes` bounds how many are returned; of
    a set it is all or none, since every process iterates it in another order.
    """
    kind = type(value)
    for base, tag, iterate, length_of in _CONTAINERS:
        if issubclass(kind, base):
            length = length_of(value)
            bound = nodes // NODES_OF_MEMBER[tag]
            if tag == SET and length > bound:
                bound = 0
            return tag, list(islice(iterate(value), bound)), length
    return None


def nodes_of(kind: str, members: list[Any]) -> int:
    """Returns what opening a container and looking at these members counts as."""
    return CONTAINER_NODES + NODES_OF_MEMBER[kind] * len(members)


def fields(value: object, nodes: int) -> tuple[str, list[Any], int]:
    """Returns the fields of a data object, as `contained` returns a dict's items.

    None of an object that is no dataclass, pydantic model or enum member: its
    attributes are caches, locks and counters, which change on every call.
    """
    namespaces = [_NAMESPACE(ancestor) for ancestor in _ANCESTORS(type(value))]
    names = _field_names(value, namespaces)
    first = names[: nodes // NODES_OF_MEMBER[DICT]]
    found: dict[str, object] = {}
    for namespace in namespaces if first else ():
        state = namespace.get("__dict__")
        if type(state) is types.GetSetDescriptorType:
            attributes = state.__get__(value)
            found |= {name: attributes[name] for name in first if name in attributes}
        for name in first:
            slot = namespace.get(name)
            if type(slot) is types.MemberDescriptorType:
                with contextlib.suppress(AttributeError):  # It was never set.
                    found[name] = slot.__get__(value)
    return DICT, list(found.items()), len(names)


def _field_names(
    value: object, namespaces: Iterable[Mapping[str, object]]
) -> list[str]:
    if issubclass(type(type(value)), enum.EnumMeta):
        return ["_value_"]
    for namespace in namespaces:
        for declared in ("__dataclass_fields__", "__pydantic_fields__"):
            known = namespace.get(declared)
            if type(known) is dict:
                names = cast("dict[object, object]", known)
                return [name for name in names if type(name) is str]
    return []


_NAMESPACE: Callable[[type], Mapping[str, object]] = type.__dict__["__dict__"].__get__
_ANCESTORS: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_NAME: Callable[[type], str] = type.__dict__["__name__"].__get__
"""Accessors of classes that no metaclass can override."""


def type_name(kind: type) -> str:
    """Returns the name of a class, without its module."""
    return _NAME(kind)


def size_bytes(value: object) -> int | None:
    """Returns about how many bytes a value takes as JSON in UTF-8.

    A lower bound if there are more than `NODES_MAX` values or `DEPTH_MAX` levels.
    It never raises of itself, and calls no method of the value.

    Returns:
        `None` if the value is, or contains, no plain data: unknown is not 0.
    """
    try:
        return _size(value)
    # The value changes in another thread, or memory is short.
    except Exception as error:
        let_through(error)
        return None


def _size(value: object) -> int | None:
    total = 0
    nodes_left = NODES_MAX
    characters_left = SAMPLED_CHARACTERS_MAX
    level: list[object] = [value]
    for _ in range(DEPTH_MAX):
        inner: list[object] = []
        for member in level:
            size = _scalar_size(member, characters_left)
            if size is not None:
                characters_left -= size
            else:
                container = contained(member, nodes_left)
                kind, members, length = container or fields(member, nodes_left)
                if container is None and not length:
                    return None
                # Quotes are not counted; brackets, commas and colons are.
                size = 2 + length * (2 if kind == DICT else 1)
                nodes_left = max(0, nodes_left - nodes_of(kind, members))
                inner += chain.from_iterable(members) if kind == DICT else members
            total += size
        if not inner:
            break
        level = inner
    return total


def _scalar_size(value: object, characters_left: int) -> int | None:
    """Returns the size of a value that has no members; `None` for any other."""
    kind = type(value)
    if kind is dict or kind is list:
        return None
    if issubclass(kind, str):
        return _string_size(cast("str", value), characters_left)
    if value is None or kind is bool:
        return 4
    if issubclass(kind, int):
        return 1 + int.bit_length(cast("int", value)) * 3 // 10
    if issubclass(kind, (bytes, bytearray)):
        base: type[Any] = bytes if issubclass(kind, bytes) else bytearray
        return base.__len__(value)
    if issubclass(kind, float):
        return len(float.__repr__(cast("float", value)))
    return None


def _string_size(text: str, characters_left: int) -> int:
    length = str.__len__(text)
    if str.isascii(text):
        return length
    sample = str.__getitem__(text, slice(max(16, characters_left)))
    return len(sample.encode("utf-8", "surrogatepass")) * length // len(sample)
