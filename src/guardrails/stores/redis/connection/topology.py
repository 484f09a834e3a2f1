"""Topology: which server holds a project, for each way to run Redis.

A URL names one server, a group that Sentinel watches, or a cluster. What
changes at run time (a new master, a slot that moved) is asked for again after
a failure, never before a call.
"""

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import (
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from guardrails.errors import ConfigurationError
from guardrails.stores.redis.connection.certificates import problem_of, tls_options

__all__ = [
    "SENTINELS_REFUSE",
    "TCP_OPTIONS",
    "Address",
    "Topology",
    "host_and_port",
    "masked",
    "named_host",
    "slots_from",
]

DEADLINE_S = 0.25
"""How long one attempt may take: connecting, sending or waiting for the reply."""

RESENT_MS = 500
"""How long the system may resend what a server has not received, closed connection or
not. A call that was given back must not reach it after that: it would hold for nobody.
So this is less than a second, before which no store that failed is told anything."""

SENTINELS_REFUSE = "Sentinels let nobody in"
"""The text of an error, which says that it is not about the server."""

SENTINEL_PORT = 26_379
PORT = 6_379

_RESENDING = getattr(socket, "TCP_USER_TIMEOUT", None)
TCP_OPTIONS: dict[int, int] = {} if _RESENDING is None else {_RESENDING: RESENT_MS}
"""Set on each connection over TCP; RFC 5482. Only Linux has it."""

Address = tuple[str, int]
"""Host and port; the path and 0 for a socket."""


@dataclass
class Topology:
    """Where the projects of one URL are."""

    url: str
    kind: str
    """`server`, `sentinel` or `cluster`."""
    seeds: list[Address]
    service: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    """Of every connection: credentials, database, TLS."""
    sentinel_options: dict[str, Any] = field(default_factory=dict)
    """Of those to Sentinels, which have credentials of their own."""
    connection_class: type[Any] = Connection
    on_moved: Callable[[], None] = lambda: None
    """Called when a slot has another server than before."""
    _master: Address | None = None
    _slots: dict[int, Address] = field(default_factory=dict)
    _slots_before: dict[int, Address] = field(default_factory=dict)
    """As they were when they were last forgotten."""

    @classmethod
    def of(cls, url: str) -> "Topology":
        """Reads a URL.

        Raises:
            ConfigurationError: If it cannot be read, or a file that it names.
        """
        scheme = url.partition("://")[0]
        try:
            if "+" not in scheme:
                topology = cls._of_server(url)
            else:
                topology = cls._of_group(url, *scheme.split("+"))
            topology.connection(("localhost", PORT))  # Says which options there are.
            for host, port in topology.seeds:
                if port:  # Else it is the path of a socket.
                    host.encode("idna")  # As a look-up does, on the first call.
        except (ValueError, KeyError, TypeError, redis.RedisError):
            # Not what the error says: it may quote a part of the password.
            raise ConfigurationError(
                f"store: {masked(url)!r} cannot be read. Use redis://host:6379/0, "
                "rediss://..., unix:///path, "
                "redis+sentinel://host:26379,other:26379/service/0 or "
                "redis+cluster://host:6379,other:6379, after ? only options of "
                "redis-py, and in a password %2F for /, %3F for ? and %23 for #."
            ) from None
        if (problem := problem_of(topology.options)) is not None:
            raise ConfigurationError(f"store: {masked(url)!r}: {problem}.")
        return topology

    @classmethod
    def _of_server(cls, url: str) -> "Topology":
        options: dict[str, Any] = dict(parse_url(url))
        connection_class = options.pop("connection_class", Connection)
        if connection_class is UnixDomainSocketConnection:
            seed = (options.pop("path"), 0)
        else:
            seed = (options.pop("host", "localhost"), options.pop("port", PORT))
        return cls(
            url, "server", [seed], options=options, connection_class=connection_class
        )

    @classmethod
    def _of_group(cls, url: str, scheme: str, kind: str) -> "Topology":
        parts = urlsplit(url)
        credentials, _, hosts = parts.netloc.rpartition("@")
        path = [unquote(part) for part in parts.path.split("/") if part]
        default = SENTINEL_PORT if kind == "sentinel" else PORT
        seeds: list[Address] = []
        for host in hosts.split(","):
            found = re.fullmatch(r"(\[.+\]|[^:]+)(?::(\d+))?", host)
            if found is None:
                raise ValueError("one is no host:port")
            seeds.append((found[1].strip("[]"), int(found[2] or default)))
        query, sentinel_options = parts.query, {}
        if kind == "sentinel":
            query, sentinel_options = _parted(query)
        database = path[1] if kind == "sentinel" and len(path) > 1 else "0"
        options = dict(parse_url(f"{scheme}://{credentials}@h/{database}?{query}"))
        for name in ("host", "port"):
            options.pop(name, None)
        connection_class = options.pop("connection_class", Connection)
        if kind == "sentinel" and not path:
            raise ValueError("the name of the service is missing")
        service = path[0] if kind == "sentinel" else ""
        if issubclass(connection_class, SSLConnection):
            # One setting of the servers, `tls-replication`, is about both.
            sentinel_options |= {"ssl": True, **tls_options(options)}
        return cls(
            url, kind, seeds, service, options, sentinel_options, connection_class
        )

    def slot(self, prefix: str) -> int:
        """Returns the slot of the keys with this prefix; 0 outside a cluster."""
        return key_slot(prefix.encode()) if self.kind == "cluster" else 0

    def known(self, slot: int) -> Address | None:
        """Returns the server that holds a slot, if it need not be asked for."""
        match self.kind:
            case "server":
                return self.seeds[0]
            case "sentinel":
                return self._master
            case _:
                return self._slots.get(slot)

    def address(self, slot: int) -> Address:
        """Returns the server that holds a slot, asking for it if need be.

        Raises:
            redis.ConnectionError: If nobody could say.
        """
        return self.known(slot) or self.locate(slot)

    def locate(self, slot: int, deadline_s: float = DEADLINE_S) -> Address:
        """Asks which server holds a slot.

        Raises:
            redis.ConnectionError: If nobody could say.
        """
        if self.kind == "sentinel":
            self._master = master = self._discovered(deadline_s)
            return master
        if slot not in self._slots:
            self._slots = self._mapped(deadline_s)
        if slot not in self._slots:
            raise redis.ConnectionError(f"slot {slot} is served by nobody")
        found = self._slots[slot]
        if self._slots_before.pop(slot, found) != found:
            self.on_moved()  # A replica has taken over.
        return found

    def forget(self) -> None:
        """Forgets who holds what: something has moved, or does not answer."""
        self._master = None
        self._slots_before, self._slots = {**self._slots_before, **self._slots}, {}

    def moved(self, slot: int, address: Address) -> None:
        """Notes where a slot is now."""
        self._slots[slot] = address
        self.on_moved()

    def connection(
        self, address: Address, deadline_s: float = DEADLINE_S
    ) -> Connection:
        """Makes a connection to a server; it is opened when it is used."""
        host, port = address
        is_socket = self.connection_class is UnixDomainSocketConnection
        place = {"path": host} if is_socket else {"host": host, "port": port}
        connection: Connection = self.connection_class(
            **self._options(deadline_s), **place
        )
        if not is_socket:
            known: Any = connection.socket_keepalive_options
            connection.socket_keepalive = True  # Else it sets none of them.
            connection.socket_keepalive_options = {**known, **TCP_OPTIONS}
        return connection

    def _options(self, deadline_s: float) -> dict[str, Any]:
        return {
            "socket_timeout": deadline_s,
            "socket_connect_timeout": deadline_s,
            # The library's own retries would be unseen, and last for seconds.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            # What it says of itself takes two answers before the first that is needed.
            "driver_info": None,
            **self.options,
            "decode_responses": False,
        }

    def _discovered(self, deadline_s: float) -> Address:
        """Asks Sentinels for the master; those that are silent share the deadline.

        If none answers in its share they may be far away. Then each has all of it: too
        late for this call, but the next one knows the master.
        """
        try:
            return self._asked_sentinels(deadline_s / len(self.seeds))
        except MasterNotFoundError as error:
            if redis.TimeoutError.__name__ not in str(error):
                raise
        return self._asked_sentinels(DEADLINE_S)

    def _asked_sentinels(self, deadline_s: float) -> Address:
        """Asks each in turn, none for longer than this."""
        quick = {
            "socket_timeout": deadline_s,
            "socket_connect_timeout": deadline_s,
            "retry": Retry(NoBackoff(), 0),
        }
        sentinel = Sentinel(
            self.seeds, sentinel_kwargs={**quick, **self.sentinel_options}
        )
        try:
            host, port = sentinel.discover_master(self.service)
        except MasterNotFoundError as error:
            if str(error).count(redis.AuthenticationError.__name__) == len(self.seeds):
                raise redis.AuthenticationError(SENTINELS_REFUSE) from None
            raise
        finally:
            for one in sentinel.sentinels:
                one.close()
        return (str(host), int(port))

    def _mapped(self, deadline_s: float) -> dict[int, Address]:
        """Asks any node of the cluster for the slot map."""
        failure: Exception = redis.ConnectionError("no node answers")
        give_up_at = time.monotonic() + deadline_s
        for seed in dict.fromkeys([*self._slots.values(), *self.seeds]):
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                break
            connection = self.connection(seed, max(left_s / 2, deadline_s / 4))
            try:
                connection.send_command("CLUSTER", "SLOTS")
                return slots_from(connection.read_response(), seed)
            except redis.RedisError as error:
                failure = error
            finally:
                connection.disconnect()
        raise failure


def _parted(query: str) -> tuple[str, dict[str, str]]:
    """Takes what is for Sentinels out of a query, and returns both."""
    names = ("sentinel_username", "sentinel_password")
    own, others = [], []
    for part in query.split("&"):
        (own if part.partition("=")[0] in names else others).append(part)
    options = {
        name.removeprefix("sentinel_"): v for name, v in parse_qsl("&".join(own))
    }
    return "&".join(others), options


def slots_from(reply: Any, asked: Address) -> dict[int, Address]:
    """Reads the reply to CLUSTER SLOTS: the master of each slot that is served."""
    slots: dict[int, Address] = {}
    for first, last, master, *_ in reply:
        host = named_host((master[0] or b"").decode(), asked)
        slots |= dict.fromkeys(range(first, last + 1), (host, int(master[1])))
    return slots


def named_host(name: str, asked: Address) -> str:
    """Returns the host of a node; one that has no name is where the question went."""
    return asked[0] if name in ("", "?") else name


def host_and_port(host: str, port: int | str) -> str:
    """Writes an address as URLs have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def masked(url: str) -> str:
    """Hides the credentials of a URL, in its query too."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    if "@" in rest:
        rest = f"***@{rest.rpartition('@')[2]}"
    elif "@" in query:  # What looks like a host may be the half of a password.
        rest = "***"
    names = "&".join(f"{name}=***" for name in parse_qs(query))
    return f"{scheme}://{rest}{'?' if names else ''}{names}"
