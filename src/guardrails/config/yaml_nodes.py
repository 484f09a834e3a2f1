"""YAML files: reads one into nodes, with the line and column of every part.

Values stay text. YAML 1.1 would read `off` as false, `1:30` as 90 and `010` as
8, and a number that became a float has lost what was written; each key knows
best how to read its own text. Objects cannot be constructed: tags are refused.
"""

import re
from pathlib import Path
from typing import cast

import yaml

from guardrails.config.nodes import (
    DEPTH_MAX,
    Entry,
    Items,
    Keys,
    Node,
    NodeCount,
    Scalar,
)
from guardrails.config.problems import Place, Problems, key_path

__all__ = ["FILE_BYTES_MAX", "read_yaml"]

FILE_BYTES_MAX = 256 * 1024
"""Far above any real configuration, and parsed within seconds."""

PROBLEM_CHARACTERS_MAX = 200
"""Longer than any sentence of PyYAML. It repeats names from the file in full."""

_NULLS = ("", "~", "null", "Null", "NULL")
"""What YAML reads as no value, if it is not in quotes."""

_NEWLINE = re.compile(r"\r\n|[\n\r]")


def read_yaml(path: Path, *, source: str, called: str, problems: Problems) -> Keys:
    """Reads a file; every defect is a problem.

    Args:
        path: The file.
        source: The file's name in front of line and column.
        called: The setting that named the file, with its value.
        problems: Where defects are added.

    Returns:
        Its keys. There are none in an empty file, or if it cannot be read.
    """
    try:
        content = _content(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fix = "Name a readable file of YAML."
        problems.add(f"{called} cannot be read: {reason}. {fix}")
        return Keys(entries={})
    try:
        return _YamlReader(source, problems).document(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        place = _place_after(content[: error.start].decode(errors="replace"), source)
        problems.add("not UTF-8. Save the file in that encoding.", place)
    except _Refusal as error:
        problems.add(str(error), _place(error.mark, source))
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets what Python says of "\UFFFFFFFF" through.
        problems.add(*_syntax_problem(error, content.decode("utf-8-sig"), source))
    return Keys(entries={})


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"it is larger than {FILE_BYTES_MAX} bytes")
    return content


class _Refusal(Exception):
    """Valid YAML that is not read."""

    def __init__(self, message: str, mark: yaml.Mark) -> None:
        super().__init__(message)
        self.mark = mark


class _Loader(yaml.BaseLoader):
    """Composes nodes whose scalars are all text."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # The type stubs of PyYAML do not say what an event is.
        event = cast("yaml.NodeEvent", self.peek_event())  # pyright: ignore[reportUnknownMemberType]
        mark = cast("yaml.Mark", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _Refusal("tags are not read. Remove it.", mark)
        self.depth += 1
        if self.depth > DEPTH_MAX + 1:  # The document itself is not a level.
            too_deep = f"nested more than {DEPTH_MAX} levels deep. Flatten it."
            raise _Refusal(too_deep, mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _YamlReader:
    def __init__(self, source: str, problems: Problems) -> None:
        self._source = source
        self._problems = problems
        self._count = NodeCount()

    def document(self, text: str) -> Keys:
        root = _Loader(text).get_single_node()
        if root is None or _is_null(root):
            return Keys(entries={})
        if isinstance(root, yaml.MappingNode):
            return self._keys(root, path="", depth=0)
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        self._problems.add(
            f"the file is {kind}, not a mapping. Start it with `version: 1`.",
            self._place(root),
        )
        return Keys(entries={})

    def _node(self, node: yaml.Node, *, path: str, depth: int) -> Node:
        place = self._place(node)
        try:
            self._count.add(depth=depth)
        except ValueError as error:
            raise _Refusal(str(error), node.start_mark) from error
        if isinstance(node, yaml.MappingNode):
            return self._keys(node, path=path, depth=depth)
        if isinstance(node, yaml.SequenceNode):
            nodes = (
                self._node(item, path=f"{path}[{index}]", depth=depth + 1)
                for index, item in enumerate(node.value)
            )
            return Items(nodes=tuple(nodes), place=place)
        return Scalar(value=None if _is_null(node) else str(node.value), place=place)

    def _keys(self, node: yaml.MappingNode, *, path: str, depth: int) -> Keys:
        entries: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            key, place = self._key(key_node), self._place(key_node)
            if key is None:
                continue
            where = key_path(path, key)
            value = self._node(value_node, path=where, depth=depth + 1)
            if key in entries:
                first = entries[key].place
                line = first.line if first else 0
                self._problems.add(
                    f"{where}: written twice, first in line {line}. Remove one.", place
                )
            else:
                entries[key] = Entry(node=value, place=place)
        return Keys(entries=entries, place=self._place(node))

    def _key(self, node: yaml.Node) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._problems.add("a key must be a single name.", self._place(node))
        elif node.value == "<<" and node.style is None:
            self._problems.add(
                "<<: merge keys are not read. Write the keys out.", self._place(node)
            )
        else:
            return str(node.value)
        return None

    def _place(self, node: yaml.Node) -> Place:
        return _place(node.start_mark, self._source)


def _is_null(node: yaml.Node) -> bool:
    return (
        isinstance(node, yaml.ScalarNode)
        and node.style is None
        and node.value in _NULLS
    )


def _syntax_problem(error: Exception, text: str, source: str) -> tuple[str, Place]:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        if mark is not None:
            words = f"{error.context or ''} {error.problem or ''}".split()
            problem = " ".join(words)[:PROBLEM_CHARACTERS_MAX]
            line = text.splitlines()[mark.line : mark.line + 1]
            hint = _hint(problem, "".join(line))
            return f"not valid YAML: {problem}.{hint}", _place(mark, source)
    if isinstance(error, yaml.reader.ReaderError):
        character = f"U+{ord(text[error.position]):04X}"
        place = _place_after(text[: error.position], source)
        return f"not valid YAML: the character {character}. Remove it.", place
    start = Place(source=source, line=1, column=1)
    if isinstance(error, yaml.YAMLError):
        return f"not valid YAML: {' '.join(str(error).split())}.", start
    # Each Python says it in other words.
    problem = 'a number in it is too large, as of the escape "\\UFFFFFFFF"'
    return f"not valid YAML: {problem}. Write a character that there is.", start


def _hint(problem: str, line: str) -> str:
    if "alias" in problem:
        return ' Put a name that starts with "*" in quotes.'
    if "${" in line:
        return ' Inside {} and [] put "${NAME}" in quotes.'
    return " Indent with spaces." if "\\t" in problem else ""


def _place(mark: yaml.Mark, source: str) -> Place:
    return Place(source=source, line=mark.line + 1, column=mark.column + 1)


def _place_after(before: str, source: str) -> Place:
    lines = _NEWLINE.split(before)
    return Place(source=source, line=len(lines), column=len(lines[-1]) + 1)
