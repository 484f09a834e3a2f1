"""Adapters: finds the integrations of frameworks that the program uses.

An adapter is an entry point of the group `guardrails.adapters`, named after the
top-level module of its framework. It is loaded only once that framework is
imported, also when that happens later: so the guard itself imports no
framework, and no order of imports leaves a framework unguarded.

Ours are known without their entry points. A frozen program, as of PyInstaller, and an
image that leaves `*.dist-info` out have none, and would go on without limits.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from guardrails.system.logs import host_log
from guardrails.system.threads import may_block, new_lock

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Adapter", "installed_adapters", "load_adapters", "loaded_adapters"]

GROUP = "guardrails.adapters"

OURS = {"langchain_core": "guardrails_langchain", "mcp": "guardrails_mcp"}
"""The entry points of this distribution, by framework."""

_log = host_log()
_lock = new_lock()
_waiting: "dict[str, EntryPoint]" = {}
_loaded: dict[str, "Adapter"] = {}


class Adapter(Protocol):
    """What an adapter's module offers. Importing it hooks the framework."""

    def wrap_object(self, guard: object, target: object, options: object) -> object:
        """Returns the guarded object, or `None` if it is not this framework's."""
        ...

    def unwrap_object(self, guard: object, target: object) -> object:
        """Undoes `wrap_object` on the object itself; `None` if there is nothing to."""
        ...

    def running(self, engine: object) -> tuple[object, object] | None:
        """Returns the session of the framework's run around the running code.

        And the attribution of that run, which may know more names than the session.
        """
        ...

    def self_test(self) -> Mapping[str, bool]:
        """Runs into a limit in each way, and returns whether it stopped that."""
        ...


def load_adapters() -> None:
    """Loads the adapters of imported frameworks, and of later ones as they come."""
    with _lock:
        if _watch not in sys.meta_path:
            for framework, entry_point in _entry_points().items():
                _waiting.setdefault(framework, entry_point)
            sys.meta_path.insert(0, _watch)
        for framework in [name for name in _waiting if name in sys.modules]:
            _load(framework)


def loaded_adapters() -> Sequence[Adapter]:
    """Returns the adapters that are loaded."""
    return list(_loaded.values())


def installed_adapters() -> "Mapping[str, EntryPoint | None]":
    """Returns the adapter of each framework; `None` where that is not installed."""
    return {
        framework: entry_point if importlib.util.find_spec(framework) else None
        for framework, entry_point in _entry_points().items()
    }


def _entry_points() -> "dict[str, EntryPoint]":
    # Imported late: a program that builds no guard pays nothing for it.
    from importlib.metadata import EntryPoint, entry_points

    ours = (EntryPoint(name, module, GROUP) for name, module in OURS.items())
    return {found.name: found for found in (*ours, *entry_points(group=GROUP))}


@may_block
def _load(framework: str) -> None:
    entry_point = _waiting.pop(framework, None)
    if entry_point is None:
        return
    try:
        _loaded[framework] = entry_point.load()
    except Exception as error:
        _log.error(
            "guardrails: the adapter of %s cannot be loaded (%s: %s). Calls that it "
            "makes are NOT guarded.",
            framework,
            type(error).__name__,
            error,
        )


class _Watch(importlib.abc.MetaPathFinder):
    """Loads an adapter right after its framework was imported."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Leaves finding to the others and only listens in."""
        if fullname not in _waiting:
            return None
        # Frozen programs and editable installs have finders of their own.
        others = [other for other in sys.meta_path if other is not self]
        asked = (other.find_spec(fullname, path, target) for other in others)
        spec = next((found for found in asked if found is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Listening(spec.loader)
        return spec


_watch = _Watch()


class _Listening(importlib.abc.Loader):
    """Runs a module by its own loader, then loads the adapter that waits for it."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Creates the module as its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module, then loads the adapter."""
        self._loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with _lock:
            _load(module.__name__)
