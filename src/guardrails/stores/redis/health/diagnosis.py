"""Diagnosis of a Redis store: asks every server, and reads whether the ledger adds up.

Only reads. What a server refuses to say becomes an unknown, never an error.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import redis

from guardrails.errors import StoreUnavailable
from guardrails.ports import Clock
from guardrails.stores.balance import Imbalance, balance_check
from guardrails.stores.diagnosis import Check, Status
from guardrails.stores.redis.codec import keys
from guardrails.stores.redis.connection.explaining import explain
from guardrails.stores.redis.connection.topology import (
    Address,
    Topology,
    masked,
    slots_from,
)
from guardrails.stores.redis.health.answers import Answers, Refused, User
from guardrails.stores.redis.health.books import mending, read_books
from guardrails.stores.redis.health.judgement import slots_check, verdicts
from guardrails.stores.redis.health.node import Node
from guardrails.stores.redis.health.rights import AGENTS, ARGUMENTS, lacking, may_change
from guardrails.stores.redis.store import RedisStore

__all__ = ["diagnose"]

ROUND_TRIPS = 100
"""How often the way to a server is measured: the clock counts milliseconds."""

MEASURING_MS = 100
"""How long, where the way is long."""

PARAMETERS = (
    "appendfsync",
    "appendonly",
    "maxmemory-policy",
    "min-replicas-to-write",
    "save",
)


def diagnose(store: RedisStore, *, project_id: str, clock: Clock) -> list[Check]:
    """Checks the servers of a store, and the ledger in them.

    Args:
        store: The store.
        project_id: The project that is looked at where others cannot be found.
        clock: This machine's.

    Raises:
        StoreUnavailable: If the store does not answer as it has to.
    """
    # By the store's own client: what it gets is what a guard would get.
    store.client.query(keys.SECRET, [("GET", keys.SECRET)])
    topology = Topology.of(store.client.topology.url)
    try:
        slots = _slots(topology) if topology.kind == "cluster" else {}
        addresses = sorted(set(slots.values())) or [topology.address(0)]
        with contextlib.ExitStack() as opened:
            nodes = [
                opened.enter_context(contextlib.closing(Node(topology, address)))
                for address in addresses
            ]
            prefix = keys.project_prefix(project_id)
            servers = [_answers(node, topology, clock, prefix) for node in nodes]
            cluster = [slots_check(len(slots), masters=len(nodes))] if slots else []
            balance = _balance(
                nodes, topology, project_id=project_id, now_ms=clock.now_ms()
            )
            return [
                _reached(servers, masked(topology.url)),
                *verdicts(servers),
                *cluster,
                balance,
            ]
    except redis.RedisError as error:
        said = explain(topology.url, error)
        raise StoreUnavailable(
            f"{said} So it answered while it was examined."
        ) from error


def _slots(topology: Topology) -> dict[int, Address]:
    """Returns the master of each slot of a cluster that is served."""
    first = Node(topology, topology.address(topology.slot(keys.SECRET)))
    with contextlib.closing(first):
        reply = first.ask("CLUSTER", "SLOTS")
    return {} if isinstance(reply, Refused) else slots_from(reply, first.address)


def _reached(servers: Sequence[Answers], url: str) -> Check:
    worst = max(server.round_trip_ms for server in servers)
    text = f"{url} answers in {max(worst, 0.1):.1f} ms"
    return Check(name="store", status=Status.OK, text=text)


# --- one server -------------------------------------------------------------


def _answers(node: Node, topology: Topology, clock: Clock, prefix: str) -> Answers:
    round_trip_ms, ahead_ms = _measured(node, clock)
    return Answers(
        name=node.name,
        cli=node.cli,
        kind=topology.kind,
        info=_info(node),
        config=_config(node),
        user=_user(node, topology, prefix),
        missing=_missing(node),
        round_trip_ms=round_trip_ms,
        clock_ahead_ms=ahead_ms,
    )


def _measured(node: Node, clock: Clock) -> tuple[float, int | Refused]:
    """Returns the way there and back, and how far the server's clock is ahead."""
    node.ask("TIME")  # Opens the connection, which is not measured.
    begun_ms, trips = clock.monotonic_ms(), 0
    while trips < ROUND_TRIPS and clock.monotonic_ms() - begun_ms < MEASURING_MS:
        node.ask("TIME")
        trips += 1
    round_trip_ms = (clock.monotonic_ms() - begun_ms) / max(1, trips)
    before = clock.now_ms()
    reply = node.ask("TIME")
    middle = (before + clock.now_ms()) // 2
    if isinstance(reply, Refused):
        return round_trip_ms, reply
    server_ms = int(reply[0]) * 1000 + int(reply[1]) // 1000
    return round_trip_ms, server_ms - middle


def _info(node: Node) -> dict[str, str] | Refused:
    reply = node.ask("INFO")
    if isinstance(reply, Refused):
        return reply
    lines = reply.decode(errors="replace").splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def _config(node: Node) -> dict[str, str] | Refused:
    found: dict[str, str] = {}
    for name in PARAMETERS:  # Servers before 7 take one name at a time.
        reply = node.ask("CONFIG", "GET", name)
        if isinstance(reply, Refused):
            return reply
        values = [part.decode() for part in reply]
        found |= dict(zip(values[::2], values[1::2], strict=True))
    return found


def _missing(node: Node) -> tuple[str, ...]:
    """Returns what agents need and a server does not know, if we may ask."""
    needed = ("script", "evalsha", *ARGUMENTS)
    reply = node.ask("COMMAND", "INFO", *needed)
    if isinstance(reply, Refused):
        return ()
    return tuple([name for name, one in zip(needed, reply, strict=True) if not one])


def _user(node: Node, topology: Topology, prefix: str) -> User | Refused:
    reply = node.ask("ACL", "WHOAMI")
    if isinstance(reply, Refused):
        told = topology.options.get("username")
        if told is None:
            return reply
        name = str(told)
    else:
        name = reply.decode()
    commands, listed = _listed(node, name, prefix)
    lacks = _lacks(node, prefix, listed)
    agents_lack = None
    if lacks is not None and not may_change(lacks):
        _, agents_lack = _listed(node, AGENTS, prefix)
    return User(name=name, commands=commands, lacks=lacks, agents_lack=agents_lack)


def _lacks(
    node: Node, prefix: str, listed: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """Asks the server what our user lacks, and else takes what its rules say."""
    load = ("SCRIPT", "LOAD", "return")
    # A script that nobody has: a right is looked at first.
    run = ("EVALSHA", "0" * 40, 1, keys.version(prefix))
    replies = node.ask_all([load, run])
    denied = [reply.lacks for reply in replies if isinstance(reply, Refused)]
    lacks = tuple(one for one in denied if one is not None)
    if lacks:
        return listed or lacks
    counts = [part for pair in ARGUMENTS.items() for part in pair]
    refused = node.run("rights", (), [keys.version(prefix), *counts])
    if isinstance(refused, Refused) or refused is None:
        return listed
    return tuple(f"+{command.decode()}" for command in refused)


def _listed(
    node: Node, name: str, prefix: str
) -> tuple[str | None, tuple[str, ...] | None]:
    """Returns the rules of a user's commands, and what they lack, where it is said."""
    described = node.ask("ACL", "GETUSER", name)
    if isinstance(described, Refused) or described is None:
        return None, None
    fields: dict[Any, Any] = dict(zip(described[::2], described[1::2], strict=True))
    commands = fields.get(b"commands")
    if commands is None:
        return None, None
    if fields.get(b"selectors"):  # Only the server knows what they add up to.
        return commands.decode(), None
    said = fields.get(b"keys", b"")
    # A list before Redis 7, else a text.
    patterns = said if isinstance(said, list) else said.split()
    texts = [pattern.decode().removeprefix("~") for pattern in patterns]
    needed = (keys.SECRET, keys.version(prefix))
    return commands.decode(), lacking(commands.decode(), texts, keys=needed)


# --- the ledger -------------------------------------------------------------


def _balance(
    nodes: Sequence[Node], topology: Topology, *, project_id: str, now_ms: int
) -> Check:
    """Compares accounts with their holds, on every server."""
    accounts = holds = 0
    is_cut = False
    found: list[Imbalance] = []
    damaged: list[str] = []
    clis: dict[str, str] = {}
    for node in nodes:
        books = read_books(node, now_ms=now_ms)
        if isinstance(books, Refused):
            return _of_one_project(
                nodes, topology, books, project_id=project_id, now_ms=now_ms
            )
        accounts, holds = accounts + books.accounts, holds + books.holds
        is_cut = is_cut or books.is_cut
        found += books.imbalances
        damaged += books.damaged
        clis |= {one.account: node.cli for one in books.imbalances}
    check = balance_check(
        found,
        accounts=accounts,
        holds=holds,
        mend=lambda one: mending(clis[one.account], one),
    )
    if damaged:
        text = f"{damaged[0]} holds something that is not of the ledger"
        return Check(name="balance", status=Status.FAIL, text=text)
    if is_cut and check.status is Status.OK:
        text = f"{check.text}; the server has more keys than are looked at"
        return Check(name="balance", status=Status.UNKNOWN, text=text)
    return check


def _of_one_project(
    nodes: Sequence[Node],
    topology: Topology,
    refused: Refused,
    *,
    project_id: str,
    now_ms: int,
) -> Check:
    """Looks at what can be found without looking for it."""
    prefix = keys.project_prefix(project_id)
    owner = topology.address(topology.slot(prefix))
    node = next((node for node in nodes if node.address == owner), nodes[0])
    books = read_books(node, now_ms=now_ms, prefixes=[prefix])
    if isinstance(books, Refused):
        return Check(name="balance", status=Status.UNKNOWN, text=books.reason)
    check = balance_check(
        books.imbalances,
        accounts=books.accounts,
        holds=books.holds,
        mend=lambda one: mending(node.cli, one),
    )
    if check.status is not Status.OK:
        return check
    text = f"{check.text}, of project {project_id} and with a hold: {refused.reason}"
    return Check(name="balance", status=Status.UNKNOWN, text=text)
