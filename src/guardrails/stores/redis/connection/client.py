"""The client: drives attempts from threads and from event loops.

Threads take a connection of redis-py for the time of a call. An event loop has one
connection per server, see `stream.py`.
"""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import redis
from redis.connection import Connection

from guardrails.core.tracebacks import interrupt_in
from guardrails.errors import StoreUnavailable
from guardrails.stores.redis.codec.scripts import Script
from guardrails.stores.redis.codec.wire import Argument, Fragment, evalsha, packed
from guardrails.stores.redis.connection.attempts import (
    CALL_DEADLINE_S,
    Exchange,
    Leave,
    Locate,
    Pause,
    Step,
    Steps,
    attempts,
    may_return,
)
from guardrails.stores.redis.connection.explaining import explain
from guardrails.stores.redis.connection.reading import replies_from
from guardrails.stores.redis.connection.stream import Streams
from guardrails.stores.redis.connection.topology import DEADLINE_S, Address, Topology
from guardrails.stores.redis.connection.waiting import (
    SlowConnection,
    awaited_within,
    within,
)
from guardrails.system.forks import LockedAtFork
from guardrails.system.logs import host_log
from guardrails.system.threads import is_on_event_loop, may_block

__all__ = ["Client"]

IDLE_MAX = 64
"""Connections kept open per server: as many as threads that call at once."""

LOOP_DEADLINE_S = 0.03
"""How long a call that cannot be awaited may wait for a reply on an event loop's
thread, without a second try: callbacks of frameworks have no other way."""

LOOP_CALL_DEADLINE_S = 0.045
"""How long it may block the loop in all, also on a new connection."""


REPLICATED_MS = 50
"""How long a replica may take until it has what a person ordered: they answer within a
millisecond or two."""

_log = host_log()


class Client(LockedAtFork):
    """Talks to the servers of one topology. Thread safe, and safe to fork."""

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self._topology = topology
        self._idle: dict[Address, deque[Connection]] = {}
        self._process_id = os.getpid()
        self._streams = Streams(topology, met=self._met)
        self._servers: dict[Address, bytes] = {}
        self.on_doubt: Callable[[], None] = _ignore
        """Called when another server, or the same one started anew, answers: it may
        have lost what was acknowledged. From any thread; must not block."""
        topology.on_moved = self._doubt

    @property
    def topology(self) -> Topology:
        """Which servers."""
        return self._topology

    def call(
        self,
        script: Script,
        prefix: str,
        keys: Fragment,
        arguments: Fragment,
    ) -> Any:
        """Runs a script and returns its reply.

        Raises:
            StoreUnavailable: If no attempt succeeded in time, or the server refuses.
                The script may have run.
        """
        command = evalsha(script.sha, keys, arguments)
        return self._driven(prefix, [command], script)[0]

    async def acall(
        self,
        script: Script,
        prefix: str,
        keys: Fragment,
        arguments: Fragment,
    ) -> Any:
        """Like `call`, without blocking the event loop."""
        command = evalsha(script.sha, keys, arguments)
        steps = attempts(self._topology, prefix, [command], script)
        return (await self._adriven(steps))[0]

    def call_replicated(
        self,
        script: Script,
        prefix: str,
        keys: Fragment,
        arguments: Fragment,
    ) -> Any:
        """Like `call`, and waits a moment until a replica has it, if there are any.

        If none has, that is said: it would be lost if the server failed now. On an
        event loop's thread there is no time for that.
        """
        if is_on_event_loop() or not self._has_replicas(prefix):
            return self.call(script, prefix, keys, arguments)
        command = evalsha(script.sha, keys, arguments)
        # Of what its connection has written.
        waiting = packed(("WAIT", 1, REPLICATED_MS))
        try:
            reply, count = self._driven(prefix, [command, waiting], script)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, redis.ResponseError):
                raise
            # Not everybody may wait, and not every server that is rented out lets one.
            return self.call(script, prefix, keys, arguments)
        if not count:
            _log.warning(
                "guardrails: no replica has yet what was ordered of %s. It is lost if "
                "the server fails now: look at `guardrails stops` after a failover.",
                prefix,
            )
        return reply

    def call_all(
        self,
        script: Script,
        prefix: str,
        calls: Sequence[tuple[Fragment, Fragment]],
    ) -> list[Any]:
        """Runs a script several times in one round trip, and returns the replies.

        Raises:
            StoreUnavailable: As `call`.
        """
        commands = [evalsha(script.sha, keys, arguments) for keys, arguments in calls]
        return self._driven(prefix, commands, script)

    def query(self, prefix: str, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Sends commands in one round trip and returns their replies.

        Raises:
            StoreUnavailable: As `call`.
        """
        return self._driven(prefix, [packed(command) for command in commands], None)

    def _has_replicas(self, prefix: str) -> bool:
        [info] = self.query(prefix, [("INFO", "replication")])
        return b"connected_slaves:0" not in info

    def close(self) -> None:
        """Closes all connections. The next call opens new ones."""
        self._streams.close()
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.disconnect()

    # --- driving ------------------------------------------------------------

    def _driven(
        self, prefix: str, commands: list[bytes], script: Script | None
    ) -> list[Any]:
        is_on_a_loop = is_on_event_loop()
        steps = attempts(
            self._topology,
            prefix,
            commands,
            script,
            deadline_s=LOOP_DEADLINE_S if is_on_a_loop else DEADLINE_S,
            call_deadline_s=LOOP_CALL_DEADLINE_S if is_on_a_loop else CALL_DEADLINE_S,
            is_tried_again=not is_on_a_loop,
        )
        try:
            return self._replies(steps)
        except redis.RedisError as error:
            raise self._unavailable(error) from error

    @may_block
    def _replies(self, steps: Steps) -> list[Any]:
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._done(step)
                except redis.RedisError as error:
                    if (interrupt := interrupt_in(error)) is not None:
                        raise interrupt from None
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return done.value

    def _done(self, step: Step) -> Any:
        match step:
            case Exchange():
                return self._exchange(step)
            case Locate():
                locate = partial(self._topology.locate, step.slot, step.deadline_s)
                return within(step.deadline_s, locate, late=_ignore)
            case Leave():
                return self._forget_idle(step.address)
            case Pause():
                return time.sleep(step.seconds)

    async def _adriven(self, steps: Steps) -> list[Any]:
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._adone(step)
                except redis.RedisError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return done.value
        except redis.RedisError as error:
            raise self._unavailable(error) from error

    async def _adone(self, step: Step) -> Any:
        match step:
            case Exchange():
                return await self._streams.exchange(step)
            case Locate():
                locate = partial(self._topology.locate, step.slot, step.deadline_s)
                return await awaited_within(step.deadline_s, locate)
            case Leave():
                return self._streams.leave(step.address)
            case Pause():
                return await asyncio.sleep(step.seconds)

    # --- connections of threads ---------------------------------------------

    def _exchange(self, step: Exchange) -> list[Any]:
        connection, deadline_s = self._taken(step)
        is_clean = False
        try:
            connection.send_packed_command(
                [b"".join(step.commands)], check_health=False
            )
            replies = replies_from(connection, len(step.commands), deadline_s)
            is_clean = True
        finally:
            if is_clean:
                self._give_back(step.address, connection)
            else:  # A reply may still come: nobody else must read it.
                connection.disconnect()
                self._forget_idle(step.address)
        return replies

    def _forget_idle(self, address: Address) -> None:
        """Closes connections to a server that has failed, as they have, or was left."""
        idle = self._idle.get(address)
        while idle:
            with contextlib.suppress(IndexError):  # Others take some, too.
                idle.pop().disconnect()

    def _taken(self, step: Exchange) -> tuple[Connection, float]:
        """Returns a connection, and how long its reply may take."""
        if self._process_id != os.getpid():
            with self._lock:
                if self._process_id != os.getpid():
                    self._process_id = os.getpid()
                    self._idle = {}  # The sockets belong to the parent.
        with contextlib.suppress(KeyError, IndexError):
            return self._idle[step.address].pop(), step.deadline_s
        started_s = time.monotonic()
        connection = within(
            step.left_s,
            lambda: self._opened(step.address),
            late=partial(self._keep_late, step.address, self._idle),
        )
        opening_s = time.monotonic() - started_s
        left_s = step.left_s - opening_s
        if left_s < opening_s / 2:  # To open it took two answers at least.
            self._give_back(step.address, connection)
            raise SlowConnection("the server answers too slowly")
        return connection, max(0.0, min(step.deadline_s, left_s))

    def _opened(self, address: Address) -> Connection:
        connection = self._topology.connection(address)
        try:
            connection.connect()
            connection.send_command("INFO", "server")
            self._met(address, replies_from(connection, 1, DEADLINE_S)[0])
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _keep_late(
        self,
        address: Address,
        idle: dict[Address, deque[Connection]],
        connection: Connection,
    ) -> None:
        """Keeps a connection that nobody waited for, for the next call."""
        with self._lock:
            if idle is self._idle:
                self._give_back(address, connection)
                return
        connection.disconnect()  # The client was closed meanwhile.

    def _give_back(self, address: Address, connection: Connection) -> None:
        idle = self._idle.setdefault(address, deque())
        if len(idle) < IDLE_MAX and self._process_id == os.getpid():
            idle.append(connection)
        else:
            connection.disconnect()

    # --- what may have been lost --------------------------------------------

    def _met(self, address: Address, info: object) -> None:
        """Notes which run of a server answers at an address."""
        found = info.partition(b"run_id:")[2][:40] if isinstance(info, bytes) else b""
        place = address if self._topology.kind == "cluster" else ("", 0)
        known = self._servers.get(place)
        self._servers[place] = found
        if known is not None and known != found:
            self._doubt()

    def _doubt(self) -> None:
        self.on_doubt()

    def _unavailable(self, error: redis.RedisError) -> StoreUnavailable:
        found = StoreUnavailable(explain(self._topology.url, error))
        found.may_return = may_return(error)
        return found


def _ignore(*_: object) -> None:
    """Stands for nobody who wants to know."""
