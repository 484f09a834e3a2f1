"""Sections: hands out the keys of one mapping, and reports the keys nobody reads.

The set of known keys is the set of keys that were read, so the two cannot
disagree. Every defect becomes a problem with the full path of its key and, in
a file, its line and column; the reader gets `None` and goes on, so that all
defects are found in one pass.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from guardrails.config.nodes import Entry, Items, Keys, Node, Scalar, plain
from guardrails.config.problems import Problems, did_you_mean, key_path, shown
from guardrails.config.values import Reader
from guardrails.core.attribution import check_name

__all__ = ["Context", "Section"]

TEXT_CHARACTERS_MAX = 4_096
"""The longest legitimate text is the URL of a store with a token in it."""

_VARIABLE = re.compile(
    r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^{}]*))?\}", re.ASCII
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What all sections of one source share."""

    problems: Problems
    variables: Mapping[str, str] | None
    """What `${NAME}` in a text stands for; `None` leaves texts as they are."""
    origins: dict[str, str] = field(default_factory=dict[str, str])
    """Where each key that was read is written, by its full path."""


class Section:
    """One mapping of a configuration."""

    def __init__(
        self, keys: Keys, context: Context, *, path: str = "", is_broken: bool = False
    ) -> None:
        self._keys = keys
        self._is_broken = is_broken
        self._context = context
        self._path = path
        self._known: set[str] = set()

    def read(self, key: str, reader: Reader[T], *, is_secret: bool = False) -> T | None:
        """Reads a single value; `None` if it is absent or a problem.

        Args:
            key: Its key.
            reader: What reads it.
            is_secret: Leave the value out of messages, as the reader has to.
        """
        entry = self._take(key)
        if entry is None:
            return None
        name = self.path(key)
        return self._read(entry.node, reader, name=name, is_secret=is_secret)

    def read_each(self, key: str, reader: Reader[T]) -> tuple[T, ...] | None:
        """Reads a list, in its order; a single value is a list of one.

        `None` if it is absent or any item is a problem.
        """
        entry = self._take(key)
        if entry is None:
            return None
        if not isinstance(entry.node, Items):
            item = self._read(entry.node, reader, name=self.path(key))
            return None if item is None else (item,)
        items = [
            self._read(node, reader, name=f"{self.path(key)}[{index}]")
            for index, node in enumerate(entry.node.nodes)
        ]
        read = tuple(item for item in items if item is not None)
        return read if len(read) == len(items) else None

    def section(self, key: str) -> "Section":
        """Returns the mapping under a key, empty if there is none."""
        entry = self._take(key)
        node = Scalar(value=None) if entry is None else entry.node
        return self._below(node, path=self.path(key))

    def sections(self, key: str) -> list["Section"]:
        """Returns the mappings of a list, in its order."""
        entry = self._take(key)
        if entry is None or _is_empty(entry.node):
            return []
        if not isinstance(entry.node, Items):
            expected = 'a list. Start every item with "- "'
            self._misplaced(entry.node, expected=expected, name=self.path(key))
            return []
        return [
            self._below(node, path=f"{self.path(key)}[{index}]")
            for index, node in enumerate(entry.node.nodes)
        ]

    def names(self) -> Iterator[tuple[str, str]]:
        """Yields every key of a mapping whose keys users choose, with its name.

        The name is the key in the form in which names are compared.
        """
        for key, entry in self._keys.entries.items():
            try:
                yield key, check_name(key, key=self.path(key))
            except ValueError as error:
                self._context.problems.add(str(error), entry.place)

    def has(self, key: str) -> bool:
        """Whether anything is written under a key."""
        return key in self._keys.entries

    def report(self, message: str, key: str | None = None) -> None:
        """Adds a problem with the value of a key, else with the section itself."""
        entry = None if key is None else self._keys.entries.get(key)
        name = self._path if key is None else self.path(key)
        place = self._keys.place if entry is None else entry.node.place
        self._context.problems.add(f"{name}: {message}", place)

    def require(self, *keys: str) -> None:
        """Reports that a key is missing, or that all of several are."""
        if not self._is_broken and not any(self.has(key) for key in keys):
            one = "" if len(keys) == 1 else "one of "
            self.report(f"{one}{', '.join(keys)} is missing. Add it.")

    def path(self, key: str) -> str:
        """Returns what messages call a key: its full path, or its label."""
        entry = self._keys.entries.get(key)
        if entry is not None and entry.label is not None:
            return entry.label
        return key_path(self._path, key)

    def close(self, *, elsewhere: Mapping[str, str] | None = None) -> None:
        """Reports the keys that nobody has read.

        Args:
            elsewhere: Where keys belong that are often written here.
        """
        for key, entry in self._keys.entries.items():
            if key in self._known:
                continue
            if elsewhere and key in elsewhere:
                what = f"unknown key. It belongs under {elsewhere[key]}."
            elif self._context.problems.is_full:
                what = "unknown key."  # Only counted; a suggestion takes time.
            else:
                what = f"unknown key. {did_you_mean(key, self._known)}"
            self._context.problems.add(f"{self.path(key)}: {what}", entry.place)

    def _take(self, key: str) -> Entry | None:
        self._known.add(key)
        entry = self._keys.entries.get(key)
        if entry is not None:
            self._context.origins[self.path(key)] = _origin(entry.node)
        return entry

    def _below(self, node: Node, *, path: str) -> "Section":
        if isinstance(node, Keys):
            return Section(node, self._context, path=path)
        is_broken = not _is_empty(node)
        if is_broken:
            expected = "a mapping. Write keys and values under it"
            self._misplaced(node, expected=expected, name=path)
        empty = Keys(entries={}, place=node.place)
        return Section(empty, self._context, path=path, is_broken=is_broken)

    def _read(
        self, node: Node, reader: Reader[T], *, name: str, is_secret: bool = False
    ) -> T | None:
        if not isinstance(node, Scalar):
            what = "this" if is_secret else shown(plain(node))
            message = f"{name}: {what} is not a single value. Write one."
            self._context.problems.add(message, node.place)
            return None
        try:
            return reader(self._resolved(node.value, name=name), name=name)
        except ValueError as error:
            self._context.problems.add(str(error), node.place)
            return None

    def _misplaced(self, node: Node, *, expected: str, name: str) -> None:
        message = f"{name}: {shown(plain(node))} is not {expected}."
        self._context.problems.add(message, node.place)

    def _resolved(self, value: object, *, name: str) -> object:
        """Returns the value with its variables replaced."""
        if value is None:
            raise ValueError(f"{name}: no value. Write one or remove the key.")
        if not isinstance(value, str):
            return value
        if len(value) > TEXT_CHARACTERS_MAX:
            raise ValueError(
                f"{name}: {len(value)} characters are no setting. "
                f"At most {TEXT_CHARACTERS_MAX} are read."
            )
        variables = self._context.variables
        return value if variables is None else _replaced(value, variables, name=name)


def _origin(node: Node) -> str:
    """Says where a value is written, and which variables it takes in."""
    place = node.place
    where = "Guard(config)" if place is None else f"{place.source}:{place.line}"
    text = node.value if isinstance(node, Scalar) else None
    found = _VARIABLE.finditer(text) if isinstance(text, str) else ()
    return ", ".join((where, *(f"${{{variable['name']}}}" for variable in found)))


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _replaced(text: str, variables: Mapping[str, str], *, name: str) -> str:
    """Replaces `${NAME}` and `${NAME:-default}`; an empty variable is not set."""

    def value(found: re.Match[str]) -> str:
        variable, default = found["name"], found["default"]
        if variables.get(variable):
            return variables[variable]
        if default is not None:
            return default
        raise ValueError(
            f"{name}: the variable {variable} is not set. "
            f"Set it, or write ${{{variable}:-default}}."
        )

    if "${" in _VARIABLE.sub("", text):
        raise ValueError(
            f'{name}: a "${{" in it is not finished. '
            "Write ${NAME} or ${NAME:-default}, not nested."
        )
    return _VARIABLE.sub(value, text)
