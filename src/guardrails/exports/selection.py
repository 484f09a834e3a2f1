"""Selection: which events are meant, by the names that they are attributed to. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from guardrails.core.reporting.flat_events import FlatEvent
from guardrails.errors import ConfigurationError

__all__ = ["SELECTABLE", "Selection"]

SELECTABLE = (
    "customer_id",
    "user_id",
    "feature",
    "agent",
    "session_id",
    "agent_run_id",
    "prompt_version",
    "kind",
    "provider",
    "model",
    "server",
    "tool",
    "status",
    "price_status",
)
"""Names of an event that can be asked for. `tool` is `server/tool`."""

_SHORT_NAMES = {
    "customer": "customer_id",
    "user": "user_id",
    "session": "session_id",
}
_GLOB_SIGNS = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Patterns by name: one of each name must match, as a shell's patterns do."""

    patterns: Mapping[str, Sequence[str]]
    """An empty pattern matches what is not attributed."""

    @classmethod
    def of(cls, conditions: Sequence[str]) -> Self:
        """Reads conditions as people write them: `agent=onboarding_*`.

        Raises:
            ConfigurationError: If one is no condition, or names nothing known.
        """
        patterns: dict[str, list[str]] = {}
        for condition in conditions:
            key, sign, pattern = condition.partition("=")
            name = _SHORT_NAMES.get(key, key)
            if not sign:
                raise ConfigurationError(
                    f"--where: {condition!r} is no condition. Write a name, = and a "
                    "pattern, as in --where 'agent=onboarding_*'."
                )
            if name not in SELECTABLE:
                raise ConfigurationError(
                    f"--where: {key!r} is no name of an event. Use one of "
                    f"{', '.join(SELECTABLE)}."
                )
            patterns.setdefault(name, []).append(pattern)
        return cls(patterns=patterns)

    @property
    def session_id(self) -> str | None:
        """The only session that is meant; `None` if there may be several."""
        [first, *others] = self.patterns.get("session_id", [""])
        is_one = bool(first) and not others and _GLOB_SIGNS.isdisjoint(first)
        return first if is_one else None

    def of_page(self, events: Sequence[FlatEvent]) -> Sequence[FlatEvent]:
        """Returns the events that are meant."""
        if not self.patterns:
            return events
        return [event for event in events if self._means(event)]

    def _means(self, event: FlatEvent) -> bool:
        return all(
            any(_matches(_name(event, key), pattern) for pattern in patterns)
            for key, patterns in self.patterns.items()
        )


def _name(event: FlatEvent, key: str) -> str | None:
    if key == "tool" and event.tool is not None:
        return event.called
    return getattr(event, key)


def _matches(name: str | None, pattern: str) -> bool:
    if name is None or not pattern:
        return name is None and not pattern
    return fnmatchcase(name, pattern)
