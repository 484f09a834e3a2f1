"""Answers: what a server said about itself, and how a judgement asks it more. Pure."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardrails.stores.diagnosis import Check, Status

__all__ = [
    "Answers",
    "Refused",
    "User",
    "allowing",
    "granting",
    "lasting",
    "setting",
    "unknown",
]


@dataclass(frozen=True, slots=True)
class Refused:
    """What a server answered instead of what it was asked for."""

    reason: str
    """Half a sentence, without the text of the server: that may hold arguments."""
    lacks: str | None = None
    """The rule of an access list that would allow it, if that is why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whom a server takes us for."""

    name: str
    commands: str | None
    """The rules of its commands; `None` if they are not known."""
    lacks: tuple[str, ...] | None
    """The rules of an access list that agents need and it has not; `None` if they
    are not known."""
    agents_lack: tuple[str, ...] | None = None
    """The same of the user `guardrails`, if this one may see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one server said about itself."""

    name: str
    cli: str
    """The start of a command for it."""
    kind: str
    """Of the topology: `server`, `sentinel` or `cluster`."""
    info: Mapping[str, str] | Refused
    config: Mapping[str, str] | Refused
    """The parameters that were asked for, as far as this server has them."""
    user: User | Refused
    round_trip_ms: float
    missing: tuple[str, ...] = ()
    """Commands that agents need and this server does not know."""
    clock_ahead_ms: int | Refused
    """How far the server's clock is ahead of this machine's."""


def unknown(name: str, refused: Refused, commands: tuple[str, ...] = ()) -> Check:
    """Says why something could not be looked at."""
    return Check(
        name=name, status=Status.UNKNOWN, text=refused.reason, commands=commands
    )


def granting(server: Answers, refused: Refused, command: str) -> tuple[str, ...]:
    """Returns what gives our user a right, if it lacks that and its name is known."""
    if isinstance(server.user, Refused) or refused.lacks is None:
        return ()
    return (allowing(server, server.user.name, [f"+{command}"]),)


def allowing(server: Answers, user: str, lacks: Sequence[str]) -> str:
    """Returns what adds rules to those of a user."""
    return f"{server.cli} {shlex.join(['ACL', 'SETUSER', user, *lacks])}"


def lasting(server: Answers, *settings: str) -> tuple[str, ...]:
    """Returns what changes settings, and keeps them over a restart.

    Nothing for a server that is rented out without the command.
    """
    if isinstance(server.config, Refused) and server.config.lacks is None:
        return ()
    changes = (f"{server.cli} CONFIG SET {setting}" for setting in settings)
    return (*changes, f"{server.cli} CONFIG REWRITE")


def setting(server: Answers, name: str, *, in_info: str | None) -> str | Refused:
    """Returns a parameter, from wherever it may be read."""
    if not isinstance(server.config, Refused) and name in server.config:
        return server.config[name]
    if in_info and not isinstance(server.info, Refused) and in_info in server.info:
        return server.info[in_info]
    if isinstance(server.config, Refused):
        return server.config
    return Refused(f"this server does not say {name}")
