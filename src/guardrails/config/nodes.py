"""Nodes: a configuration as it was written, with the place of every part.

A file and a dict become the same tree, so that everything above reads both
alike. Nothing is interpreted here: a number in a file is still its text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from guardrails.config.problems import Place, Problems, key_path, shown

__all__ = [
    "DEPTH_MAX",
    "NODES_MAX",
    "Entry",
    "Items",
    "Keys",
    "Node",
    "NodeCount",
    "Scalar",
    "keys_of",
    "plain",
]

NODES_MAX = 20_000
"""A thousand agents fit. YAML aliases can write any number in a few lines."""

DEPTH_MAX = 16
"""The deepest key, `agents.x.session.soft_alert_ratio[0]`, is five deep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A single value: text from a file, any object from a dict."""

    value: object
    place: Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list."""

    nodes: "tuple[Node, ...]"
    place: Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A mapping."""

    entries: "Mapping[str, Entry]"
    place: Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key of a mapping, with what is written under it."""

    node: "Node"
    place: Place | None = None
    """Of the key. That of the value is in the node."""
    label: str | None = None
    """What messages call the setting, where that is not its path."""


Node = Scalar | Items | Keys


class NodeCount:
    """Bounds a tree that is being built, because lists may contain themselves."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, *, depth: int) -> None:
        """Counts one node.

        Raises:
            ValueError: If the tree has too many nodes or levels.
        """
        self._count += 1
        if depth > DEPTH_MAX:
            raise ValueError(f"nested more than {DEPTH_MAX} levels deep. Flatten it.")
        if self._count > NODES_MAX:
            raise ValueError(f"more than {NODES_MAX} values. Use globs to shorten it.")


def keys_of(mapping: Mapping[object, object], problems: Problems) -> Keys:
    """Builds the tree of a dict; keys that are no strings are problems.

    Raises:
        ValueError: If the tree is too large, or contains itself.
    """
    return _DictReader(problems).keys(mapping, path="", depth=0)


def plain(node: Node) -> object:
    """Returns what was written, for an error message."""
    match node:
        case Scalar():
            return node.value
        case Items():
            return [plain(item) for item in node.nodes]
        case Keys():
            return {key: plain(entry.node) for key, entry in node.entries.items()}


class _DictReader:
    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._count = NodeCount()

    def keys(self, mapping: Mapping[object, object], *, path: str, depth: int) -> Keys:
        entries: dict[str, Entry] = {}
        for key, value in mapping.items():
            if isinstance(key, str):
                node = self._node(value, path=key_path(path, key), depth=depth + 1)
                entries[key] = Entry(node=node)
            else:
                where = f"{path}: " if path else ""
                self._problems.add(
                    f"{where}the key {shown(key)} is not a string. Put it in quotes."
                )
        return Keys(entries=entries)

    def _node(self, value: object, *, path: str, depth: int) -> Node:
        self._count.add(depth=depth)
        if isinstance(value, Mapping):
            mapping = cast("Mapping[object, object]", value)
            return self.keys(mapping, path=path, depth=depth)
        if isinstance(value, list | tuple):
            items = cast("Sequence[object]", value)
            return Items(
                nodes=tuple(
                    self._node(item, path=f"{path}[{index}]", depth=depth + 1)
                    for index, item in enumerate(items)
                )
            )
        return Scalar(value=value)
