"""Reloading: takes up a configuration whose file has changed, while agents run.

A file is taken up once it has not changed between two looks, so that nobody reads what
is half written. One that is wrong, gone or empty changes nothing: what was in force
stays in force, and the log says so once.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from guardrails.config import Configuration
from guardrails.core.policy import Mode
from guardrails.errors import ConfigurationError
from guardrails.system.logs import host_log
from guardrails.system.threads import may_block, new_lock

__all__ = ["LOOK_EVERY_MS", "ConfigFile", "kept"]

LOOK_EVERY_MS = 5_000
"""Between two looks at the file. A look takes a microsecond or two."""

_log = host_log()

_Signature = tuple[int, int, int] | None


class ConfigFile:
    """The file of a configuration, watched without a thread.

    Args:
        path: The file; `None` watches nothing.
        load: Reads all sources anew.
    """

    def __init__(self, path: Path | None, load: Callable[[], Configuration]) -> None:
        self._path = path
        self._load = load
        self._lock = new_lock()
        self._next_ms = 0
        self._known = self._seen = self._signature()

    @may_block
    def load(self) -> Configuration:
        """Reads the configuration now.

        Raises:
            ConfigurationError: If anything in it is wrong.
        """
        self._known = self._seen = self._signature()
        return self._load()

    @may_block
    def changed(self, now_ms: int) -> Configuration | None:
        """Returns the new configuration, if there is one to take up. Never raises."""
        if self._path is None or now_ms < self._next_ms:
            return None
        with self._lock:
            if now_ms < self._next_ms:
                return None
            self._next_ms = now_ms + LOOK_EVERY_MS
            seen, before = self._signature(), self._seen
            self._seen = seen
            if seen == self._known or seen != before:
                return None
            self._known = seen
        try:
            configuration = self._load()
            if not self._says_anything(configuration):
                raise ConfigurationError(f"{self._path.name}: there is nothing in it.")
        except (ConfigurationError, OSError) as error:
            _log.error(
                "guardrails: the changed configuration was not taken up, and what was "
                "in force stays so:\n%s",
                error,
            )
            return None
        return configuration

    def _says_anything(self, configuration: Configuration) -> bool:
        """Whether anything was read from the file itself."""
        name = next(iter(configuration.sources), "")
        return any(
            origin.startswith(f"{name}:") for origin in configuration.origins.values()
        )

    def _signature(self) -> _Signature:
        """Returns what changes with every change of the file; `None` if it is gone."""
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def kept(new: Configuration, old: Configuration) -> Configuration:
    """Returns the new configuration, with what only a new guard can change.

    That is the store, the project, where alerts go, and whether it is off at all.
    """
    fixed = {
        "store": (new.store, old.store),
        "project_id": (new.project_id, old.project_id),
        "alerts": (new.alerts, old.alerts),
    }
    changed = [key for key, (value, before) in fixed.items() if value != before]
    policy = new.policy
    if Mode.OFF in (policy.mode, old.policy.mode) and policy.mode != old.policy.mode:
        changed.append("mode")
        policy = replace(policy, mode=old.policy.mode)
    if changed:
        _log.warning(
            "guardrails: %s changed in the configuration, which takes a new Guard; "
            "all else was taken up.",
            ", ".join(changed),
        )
    return replace(
        new,
        policy=policy,
        store=old.store,
        project_id=old.project_id,
        alerts=old.alerts,
    )
