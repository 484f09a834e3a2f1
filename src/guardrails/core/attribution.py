"""Attribution: who and what a call is charged to.

Names come from outside, so they are data: bounded in length, normalised, free
of control characters. `check_name` refuses a bad name where a developer can
mend it; `clean_name` makes a safe, still distinct name where a refusal would
break somebody's agent.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Self

__all__ = [
    "DIMENSIONS",
    "NAME_BYTES_MAX",
    "TAGS_MAX",
    "Attribution",
    "check_name",
    "clean_name",
]

NAME_BYTES_MAX = 256
"""Longer than any real id, short enough for a key, a label and a table cell."""

TAGS_MAX = 16
"""Free tags per call; each is stored with every event."""

AGENT_DEPTH_MAX = 16
"""Nested agents kept in the path; the innermost stay."""

DIMENSIONS = (
    "project_id",
    "customer_id",
    "user_id",
    "feature",
    "agent",
    "session_id",
    "agent_run_id",
    "prompt_version",
)
"""What a scope can be kept per, and a report grouped by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Who and what a call is charged to. Every field may be unknown (`None`)."""

    project_id: str = "default"
    """The unit of isolation: accounts of two projects never meet."""
    customer_id: str | None = None
    user_id: str | None = None
    feature: str | None = None
    agent: str | None = None
    """The innermost agent; the last of `agent_path`."""
    agent_path: tuple[str, ...] = ()
    """Nested agents, parent first."""
    session_id: str | None = None
    agent_run_id: str | None = None
    """One root invocation inside the session."""
    prompt_version: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    """Free pairs, sorted by name."""

    @classmethod
    def of(cls, *, tags: Mapping[str, str] | None = None, **names: str | None) -> Self:
        """Builds an attribution from names that a developer wrote.

        Raises:
            ValueError: If a name is empty, too long or has control characters;
                the message names the key, the value and the fix.
        """
        known = {field.name for field in fields(cls)}
        checked: dict[str, str] = {}
        for key, value in names.items():
            if key not in known:
                raise ValueError(f"{key}: no such dimension; known: {sorted(known)}")
            if value is not None:
                checked[key] = check_name(value, key=key)
        agent = checked.get("agent")
        return cls(
            **checked,
            agent_path=(agent,) if agent else (),
            tags=_checked_tags(tags or {}),
        )

    def under(self, agent: str) -> Self:
        """Returns the attribution of an agent nested in this one."""
        path = (*self.agent_path, agent)[-AGENT_DEPTH_MAX:]
        return replace(self, agent=agent, agent_path=path)

    def following(self, parent: "Attribution", agent: str | None) -> Self:
        """Returns the attribution with the agents of `parent` above its own."""
        path = replace(self, agent=parent.agent, agent_path=parent.agent_path)
        return path if agent is None else path.under(check_name(agent, key="agent"))

    def value(self, dimension: str) -> str | None:
        """Returns the name in one of `DIMENSIONS`; `None` when unattributed."""
        return getattr(self, dimension)


def check_name(value: object, *, key: str) -> str:
    """Returns the name in Unicode NFC.

    Raises:
        ValueError: If it is no string, empty, longer than 256 bytes in UTF-8,
            or contains control characters or lone surrogates.
    """
    if not isinstance(value, str):
        raise ValueError(
            f'{key}: {_shown(value)} is not a name. Pass a string, as in {key}="acme".'
        )
    if _is_plain(value) and value.strip():
        return value
    name = unicodedata.normalize("NFC", value[: NAME_BYTES_MAX * 4])
    if not name.strip():
        raise ValueError(f"{key}: {value[:40]!r} is empty. Leave it out or name it.")
    if any(_is_unsafe(character) for character in name):
        raise ValueError(
            f"{key}: {value[:40]!r} contains control characters. Remove them."
        )
    if len(value) > NAME_BYTES_MAX or len(name.encode()) > NAME_BYTES_MAX:
        raise ValueError(
            f"{key}: {value[:40]!r}… is longer than {NAME_BYTES_MAX} bytes. "
            "Pass an id, not content."
        )
    return name


def clean_name(value: object) -> str | None:
    """Makes a safe name of anything; distinct inputs stay distinct.

    Control characters become U+FFFD, and a long name is cut and completed with
    a digest of the whole. Returns `None` for what is no name at all.
    """
    if not isinstance(value, str) or not value.strip():
        return None
    if _is_plain(value):
        return value
    head = unicodedata.normalize("NFC", value[: NAME_BYTES_MAX * 4])
    safe = "".join("\ufffd" if _is_unsafe(c) else c for c in head)
    if safe == head and len(safe.encode()) <= NAME_BYTES_MAX:
        return safe
    whole = value.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(whole, digest_size=6).hexdigest()
    room = NAME_BYTES_MAX - len(digest) - 1
    return f"{safe.encode()[:room].decode(errors='ignore')}~{digest}"


def _checked_tags(tags: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if len(tags) > TAGS_MAX:
        raise ValueError(f"tags: {len(tags)} pairs; at most {TAGS_MAX} are kept.")
    pairs: Iterable[tuple[str, str]] = (
        (check_name(key, key="tags"), check_name(value, key=f"tags[{key!r}]"))
        for key, value in tags.items()
    )
    return tuple(sorted(pairs))


def _is_plain(value: str) -> bool:
    """Whether a name is safe as it is; most are, and this takes a tenth of the time."""
    return len(value) <= NAME_BYTES_MAX and value.isascii() and value.isprintable()


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _shown(value: object) -> str:
    """Names a value of a wrong type; its own repr might raise or be huge."""
    shown = repr(value)[:40] if isinstance(value, int | float | bytes) else ""
    return f"{shown} ({type(value).__name__})" if shown else type(value).__name__
