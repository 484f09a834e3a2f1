"""The client: one script call in one round trip, and what to do when it fails.

Every script is idempotent by the id of its call, so that a call whose reply was
lost is simply sent again. redis-py's own retries are off: it would send again
what is not ours, for seconds, unseen.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

import redis
from redis import exceptions
from redis.connection import Connection
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from guardrails.errors import StoreUnavailable
from guardrails.stores.forks import close_at_fork
from guardrails.stores.redis.topology import DEADLINE_S, Address, Topology, masked

__all__ = ["Client", "Script"]

IDLE_MAX = 64
"""Connections kept open per server: as many as threads that call at once."""

HOPS_MAX = 5
"""Redirections of one attempt. More means that a cluster contradicts itself."""

RETRY_AFTER_S = (0.002, 0.05)
"""The first and the longest pause between two attempts."""

Argument = bytes | str | int


class Script:
    """A script, by its name in `lua/`."""

    def __init__(self, name: str) -> None:
        folder = files("guardrails.stores.redis") / "lua"
        self.name: str = name
        self.text: bytes = (folder / f"{name}.lua").read_bytes()
        self.sha: bytes = sha1(self.text, usedforsecurity=False).hexdigest().encode()


class Client:
    """Talks to the servers of one topology. Thread safe, and safe to fork."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._idle: dict[Address, deque[Connection]] = {}
        self._lock = threading.Lock()
        self._process_id = os.getpid()
        self.retries: int = 0
        """Attempts beyond the first."""
        close_at_fork(self)

    @property
    def topology(self) -> Topology:
        """Which servers."""
        return self._topology

    def call(
        self,
        script: Script,
        prefix: str,
        keys: Sequence[str],
        arguments: Sequence[Argument],
    ) -> Any:
        """Runs a script and returns its reply.

        Raises:
            StoreUnavailable: If no attempt succeeded within two deadlines, or the
                server refuses. The script may have run.
        """
        command = packed((b"EVALSHA", script.sha, len(keys), *keys, *arguments))
        return self._tried(prefix, [command], script)[0]

    def query(self, prefix: str, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Sends commands in one round trip and returns their replies.

        Raises:
            StoreUnavailable: As `call`.
        """
        return self._tried(prefix, [packed(command) for command in commands], None)

    def close(self) -> None:
        """Closes all connections. The next call opens new ones."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.disconnect()

    def before_fork(self) -> None:
        """Closes what the child must not share; running calls keep their own."""
        self._lock.acquire()

    def after_fork(self) -> None:
        """Lets calls in again."""
        self._lock.release()

    # --- attempts -----------------------------------------------------------

    def _tried(
        self, prefix: str, commands: list[bytes], script: Script | None
    ) -> list[Any]:
        try:
            return self._attempt(prefix, commands, script)
        except redis.RedisError as error:
            if not is_passing(error):
                raise self._unavailable(error) from error
        # Entered only now: a retrying object costs more than a call.
        retrying = Retrying(
            retry=retry_if_exception(is_passing),
            stop=stop_after_delay(DEADLINE_S),
            wait=wait_random_exponential(
                multiplier=RETRY_AFTER_S[0], max=RETRY_AFTER_S[1]
            ),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    self.retries += 1
                    self._topology.forget()
                    return self._attempt(prefix, commands, script)
        except redis.RedisError as error:
            raise self._unavailable(error) from error
        raise AssertionError("tenacity returns or raises")

    def _attempt(
        self, prefix: str, commands: list[bytes], script: Script | None
    ) -> list[Any]:
        """Tries once, following redirections."""
        slot = self._topology.slot(prefix)
        address, is_asking = self._topology.address(slot), False
        for _ in range(HOPS_MAX):
            try:
                return self._exchange(address, commands, is_asking=is_asking)
            except exceptions.MovedError as error:  # Before AskError, its base.
                address, is_asking = (error.host, error.port), False
                self._topology.moved(slot, address)
            except exceptions.AskError as error:
                address, is_asking = (error.host, error.port), True
            except exceptions.NoScriptError:
                if script is None:
                    raise
                load = packed((b"SCRIPT", b"LOAD", script.text))
                self._exchange(address, [load], is_asking=False)
        raise redis.ConnectionError("redirected in a circle")

    def _exchange(
        self, address: Address, commands: list[bytes], *, is_asking: bool
    ) -> list[Any]:
        connection = self._taken(address)
        is_clean = False
        try:
            sent = commands
            if is_asking:
                sent = [part for command in commands for part in (_ASKING, command)]
            connection.send_packed_command([b"".join(sent)], check_health=False)
            replies = [self._reply(connection) for _ in sent]
            is_clean = True
        finally:
            if is_clean:
                self._give_back(address, connection)
            else:  # A reply may still come: nobody else must read it.
                connection.disconnect()
        if is_asking:
            replies = replies[1::2]
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    @staticmethod
    def _reply(connection: Connection) -> Any:
        try:
            return connection.read_response()
        except exceptions.ResponseError as error:
            return error  # Read whole: the connection is clean.
        except exceptions.ConnectionError as error:
            if isinstance(error, exceptions.BusyLoadingError):
                return error
            raise

    # --- connections --------------------------------------------------------

    def _taken(self, address: Address) -> Connection:
        if self._process_id != os.getpid():
            with self._lock:
                if self._process_id != os.getpid():
                    self._process_id = os.getpid()
                    self._idle = {}  # The sockets belong to the parent.
        with contextlib.suppress(KeyError, IndexError):
            return self._idle[address].pop()
        return self._topology.connection(address)

    def _give_back(self, address: Address, connection: Connection) -> None:
        idle = self._idle.setdefault(address, deque())
        if len(idle) < IDLE_MAX and self._process_id == os.getpid():
            idle.append(connection)
        else:
            connection.disconnect()

    def _unavailable(self, error: redis.RedisError) -> StoreUnavailable:
        return StoreUnavailable(explain(self._topology.url, error))


def packed(command: Sequence[Argument]) -> bytes:
    """Writes a command as it goes over the wire."""
    parts = [b"*%d\r\n" % len(command)]
    for argument in command:
        if isinstance(argument, int):
            data = b"%d" % argument
        else:
            data = argument.encode() if isinstance(argument, str) else argument
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


_ASKING = packed((b"ASKING",))

_PASSING_WORDS = (
    "BUSY",
    "NOREPLICAS",
    "MASTERDOWN",
    "UNBLOCKED",
    "TRYAGAIN",
    "CLUSTERDOWN",
)


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed a moment later."""
    if isinstance(error, exceptions.AuthenticationError):
        return False
    if isinstance(
        error,
        exceptions.ConnectionError
        | exceptions.TimeoutError
        | exceptions.ReadOnlyError
        | exceptions.TryAgainError
        | exceptions.ClusterDownError
        | exceptions.MasterDownError,
    ):
        return True
    return isinstance(error, exceptions.ResponseError) and str(error).startswith(
        _PASSING_WORDS
    )


_FIXES: tuple[tuple[str, str], ...] = (
    # redis-py has a class for most codes, and takes the code out of the text.
    ("OutOfMemoryError", "Raise maxmemory; keep maxmemory-policy noeviction."),
    ("ReadOnlyError", "It is a replica: name the master, or use redis+sentinel://."),
    ("AuthenticationError", "User or password are wrong: redis://user:password@host."),
    ("NoPermissionError", "The user lacks a right: see the ACL in examples/redis/."),
    ("ClusterCrossSlotError", "Use redis+cluster:// for a cluster."),
    ("ClusterDownError", "The cluster misses slots: look at CLUSTER INFO."),
    ("BusyLoadingError", "It is reading its data from disk; it will be back."),
    ("MISCONF", "It cannot write to its disk: free some space, then see its log."),
    ("WRONGTYPE", "A key of ours holds something else: use a database of its own."),
    ("NOREPLICAS", "Too few replicas are connected (min-replicas-to-write)."),
    ("BUSY", "A script of somebody blocks it: SCRIPT KILL ends one."),
)


def explain(url: str, error: BaseException) -> str:
    """Says what is wrong with the server, and how to mend it."""
    fix = "Is it running, and reachable from here?"
    reason = type(error).__name__
    for word, how in _FIXES:
        # Only the code of a refusal is shown: its text may hold arguments.
        if word == reason or str(error).startswith(word):
            reason, fix = word, how
            break
    return f"store: redis {masked(url)!r}: {reason}. {fix}"
