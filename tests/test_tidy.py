"""Rules of style that no other tool checks: sizes, module tops, machine names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
MODULES = sorted(
    path
    for root in ("src", "integrations")
    for path in (PROJECT / root).rglob("*.py")
    if path.read_text(encoding="utf-8").strip()
)

ENDINGS = (".", ":", "?")

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
"""With signature, docstring and nested functions."""

LONG = {
    "integrations/guardrails_langchain/callbacks/handler.py": (
        "one method per hook of the host"
    ),
    "src/guardrails/core/ledger.py": "one method per operation, below their theory",
    "src/guardrails/guard.py": "the facade: signatures, and what a caller must know",
    "src/guardrails/guard.py:__init__": "every option, once to take and once to pass",
    "src/guardrails/guard.py:call": "every option, once to take and once to explain",
    "src/guardrails/stores/resilient/store.py": "asking, away, back: a state machine",
    "src/guardrails/testing/conformance.py": "one battery, to be inherited as a whole",
}
"""What may be longer, and why splitting it would make it harder to read. Keys
are paths, and for a function `path:name`."""

TEXT_ROOTS = ("src", "integrations", "tests", "examples", "benchmarks", "docs", ".ci")
TEXT_SUFFIXES = {"", ".md", ".py", ".sql", ".toml", ".txt", ".yaml", ".yml"}
MACHINE_PATH = re.compile(r"(?<![\w.)}-])/(?:Users|home|opt|root|tmp|work)/")
REGISTRY_HOST = re.compile(
    r"\b(?:crates|debian|npmjs|pypi|pythonhosted)\.(?:com|io|org)\b", re.IGNORECASE
)


def name(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def texts() -> Iterator[Path]:
    roots = [PROJECT / root for root in TEXT_ROOTS]
    for path in [*PROJECT.iterdir(), *(p for root in roots for p in root.rglob("*"))]:
        if path.suffix in TEXT_SUFFIXES and path.is_file():
            yield path


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def lengths(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yields each unit of a module with its length and the length it may have."""
    text = path.read_text(encoding="utf-8")
    yield name(path), len(text.splitlines()), MODULE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield f"{name(path)}:{node.name}", lines, FUNCTION_LINES_MAX


def is_public(path: Path) -> bool:
    return not any(
        part.startswith("_") and part != "__init__.py" for part in path.parts
    )


def defines_something(module: ast.Module) -> bool:
    """Says whether a module holds more than a docstring and dunder names."""
    dunder = re.compile(r"__\w+__")
    return any(
        not isinstance(node, ast.Expr)
        and not (
            isinstance(node, ast.Assign)
            and all(
                isinstance(target, ast.Name) and dunder.fullmatch(target.id)
                for target in node.targets
            )
        )
        for node in module.body
    )


def exports(module: ast.Module) -> list[str] | None:
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return list(ast.literal_eval(value))
            case _:
                pass
    return None


def in_order(names: list[str] | None) -> list[str] | None:
    """Sorts as ruff does: constants, then classes, then functions."""

    def rank(text: str) -> tuple[bool, bool, str]:
        return not text.isupper(), not text[:1].isupper(), text

    return names and sorted(names, key=rank)


def test_finds_the_modules() -> None:
    assert "src/guardrails/core/ledger.py" in map(name, MODULES)


def test_nothing_is_longer_than_it_may_be_without_a_reason() -> None:
    too_long = {
        unit: lines
        for path in MODULES
        for unit, lines, lines_max in lengths(path)
        if lines > lines_max
    }

    unexplained = {unit: lines for unit, lines in too_long.items() if unit not in LONG}
    assert not unexplained, "Split it where that reads better, or list it in LONG"
    assert not LONG.keys() - too_long.keys(), "No longer too long: remove from LONG"


def test_every_module_says_what_it_is_for() -> None:
    first_lines = {
        name(path): (ast.get_docstring(parsed(path)) or "").split("\n")[0]
        for path in MODULES
    }

    silent = [path for path, line in first_lines.items() if not line.endswith(ENDINGS)]
    assert not silent, "Say in one sentence what the module is for"


def test_every_public_module_lists_its_public_names_in_order() -> None:
    public = {name(path): parsed(path) for path in MODULES if is_public(path)}
    exported = {path: exports(module) for path, module in public.items()}

    missing = [
        path
        for path, names in exported.items()
        if names is None and defines_something(public[path])
    ]
    assert not missing, "Give it an __all__"
    assert not [path for path, names in exported.items() if names != in_order(names)]


def test_nobody_imports_a_private_name() -> None:
    taken = [
        f"{name(path)}:{node.lineno}: {alias.name}"
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]

    assert not taken


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY_HOST], ids=["path", "host"])
def test_no_file_names_a_machine_or_a_registry(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name(path)}:{number}: {match.group()}"
        for path in texts()
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        )
        if (match := pattern.search(line))
    ]

    assert not found
