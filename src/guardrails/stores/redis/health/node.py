"""Nodes: one server asked by itself, for diagnosis.

The store's client retries, follows redirections and gives up on any refusal. A
diagnosis wants what this one server says, and a refusal is an answer too.
"""

import shlex
from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis import exceptions
from redis.connection import SSLConnection, UnixDomainSocketConnection

from guardrails.stores.redis.connection.explaining import missing_right
from guardrails.stores.redis.connection.topology import (
    PORT,
    Address,
    Topology,
    host_and_port,
)
from guardrails.stores.redis.health.answers import Refused

__all__ = ["Node", "cli_of"]

PATIENCE_S = 2.0
"""How long one answer may take: longer than a guarded call waits, because what a
diagnosis reads may be large."""

LOOPBACK = ("127.0.0.1", "localhost")
"""Where `redis-cli` asks by itself; at `::1` may be another server, or only there."""


class Node:
    """A connection to one server. Opened by the first question."""

    def __init__(self, topology: Topology, address: Address) -> None:
        self.address = address
        self.cli: str = cli_of(topology, address)
        """The start of a command for this server: `redis-cli -h ...`."""
        self._connection = topology.connection(address)
        self._connection.socket_timeout = PATIENCE_S

    @property
    def name(self) -> str:
        """Where it is: `host:port`, or the path of its socket."""
        host, port = self.address
        return host_and_port(host, port) if port else host

    def ask(self, *command: bytes | str | int) -> Any:
        """Sends a command and returns its reply, or `Refused`.

        Raises:
            redis.RedisError: If the server does not answer, or lets nobody in.
        """
        [reply] = self.ask_all([command])
        return reply

    def ask_all(self, commands: Sequence[Sequence[bytes | str | int]]) -> list[Any]:
        """Sends commands in one round trip and returns a reply for each.

        Raises:
            redis.RedisError: As `ask`.
        """
        self._connection.connect()
        packed = self._connection.pack_commands(commands)
        self._connection.send_packed_command(packed)
        return [self._reply(command) for command in commands]

    def run(
        self, name: str, keys: Sequence[str], arguments: Sequence[str | int] = ()
    ) -> Any:
        """Runs a script of `lua/` and returns its reply, or `Refused`.

        Raises:
            redis.RedisError: As `ask`.
        """
        text = (files("guardrails.stores.redis") / "lua" / f"{name}.lua").read_bytes()
        digest = sha1(text, usedforsecurity=False).hexdigest()
        loaded = self.ask("SCRIPT", "LOAD", text)
        if isinstance(loaded, Refused):
            return loaded
        return self.ask("EVALSHA", digest, len(keys), *keys, *arguments)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.disconnect()

    def _reply(self, command: Sequence[bytes | str | int]) -> Any:
        try:
            return self._connection.read_response()
        except exceptions.AuthenticationError:
            raise
        except exceptions.ResponseError as error:
            is_denied = isinstance(error, exceptions.NoPermissionError)
            lacks = missing_right(str(error)) if is_denied else None
            return Refused(_reason(command, error), lacks)


def _reason(
    command: Sequence[bytes | str | int], error: exceptions.ResponseError
) -> str:
    words = [word for word in command[:2] if isinstance(word, str) and word.isupper()]
    what = " ".join(words)
    if isinstance(error, exceptions.NoPermissionError):
        return f"this user may not run {what}"
    if "unknown command" in str(error).lower():
        return f"this server does not know {what}"
    if type(error) is not exceptions.ResponseError:
        return f"{what} was refused: {type(error).__name__}"
    return f"{what} was refused: {str(error).partition(' ')[0]}"


def cli_of(topology: Topology, address: Address) -> str:
    """Returns the `redis-cli` of a server, without user and password."""
    host, port = address
    parts = ["redis-cli"]
    if topology.connection_class is UnixDomainSocketConnection:
        return shlex.join([*parts, "-s", host])
    if host not in LOOPBACK:
        parts += ["-h", host]
    if port != PORT:
        parts += ["-p", str(port)]
    if issubclass(topology.connection_class, SSLConnection):
        parts.append("--tls")
    return shlex.join(parts)
