"""Streams: one connection per server and event loop, shared by all its tasks.

Commands are written in the order in which tasks ask, those of one turn of the loop
together, and replies come back in that order: each resolves the oldest question.
That is a third of what a pool costs, and no task waits for a connection.
"""

import asyncio
import os
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hiredis
from redis import exceptions
from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.connection import (
    DefaultParser,
    SSLConnection,
    UnixDomainSocketConnection,
)

from guardrails.stores.redis.topology import DEADLINE_S, Address, Topology
from guardrails.stores.redis.wire import packed

__all__ = ["Streams"]

Met = Callable[[Address, object], None]


class Streams:
    """The open streams of the event loops of this process."""

    def __init__(self, topology: Topology, *, met: Met) -> None:
        self._topology = topology
        self._met = met
        self._process_id = os.getpid()
        self._loops: dict[
            asyncio.AbstractEventLoop, dict[Address, asyncio.Future[_Stream]]
        ] = {}

    async def exchange(
        self, address: Address, commands: Sequence[bytes], deadline_s: float
    ) -> list[Any]:
        """Sends commands and returns as many replies, errors included.

        Raises:
            redis.RedisError: If the server cannot be reached, or does not answer in
                time. Whoever else waits on the same stream is told the same.
        """
        opening = self._of_this_loop().get(address)
        if opening is None or _is_over(opening):
            opening = self._open(address)
        if not opening.done():
            # A task that is cancelled must not take the others' stream along.
            await asyncio.wait([opening])
        return await opening.result().exchange(commands, deadline_s)

    def close(self) -> None:
        """Closes all streams, each on its loop."""
        loops, self._loops = self._loops, {}
        for loop, streams in loops.items():
            for opening in streams.values():
                if not loop.is_closed() and not _is_over(opening):
                    loop.call_soon_threadsafe(_close, opening)

    def _of_this_loop(self) -> "dict[Address, asyncio.Future[_Stream]]":
        loop = asyncio.get_running_loop()
        if self._process_id != os.getpid():
            self._process_id = os.getpid()
            self._loops = {}  # The sockets belong to the parent.
        streams = self._loops.get(loop)
        if streams is None:
            for other in [one for one in self._loops if one.is_closed()]:
                self._loops.pop(other, None)
            streams = self._loops[loop] = {}
        return streams

    def _open(self, address: Address) -> "asyncio.Future[_Stream]":
        loop = asyncio.get_running_loop()
        opening: asyncio.Future[_Stream] = loop.create_future()
        self._of_this_loop()[address] = opening
        keeper = loop.create_task(self._keep(address, opening))
        _keepers.add(keeper)
        keeper.add_done_callback(_keepers.discard)
        return opening

    async def _keep(self, address: Address, opening: "asyncio.Future[_Stream]") -> None:
        """Opens a stream, and closes it when the loop ends and cancels its tasks."""
        stream = _Stream()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._connect(address, stream)
                greetings = [*_greetings(self._topology.options), ("INFO", "server")]
                replies = await stream.exchange(
                    [packed(one) for one in greetings], DEADLINE_S
                )
            for reply in replies[:-1]:
                if isinstance(reply, Exception):
                    raise reply
            self._met(address, replies[-1])
            opening.set_result(stream)
            await stream.ended.wait()
        except TimeoutError:
            _fail(opening, exceptions.TimeoutError("connecting took too long"))
        except OSError as error:
            _fail(opening, exceptions.ConnectionError(type(error).__name__))
        except exceptions.RedisError as error:
            _fail(opening, error)
        finally:
            stream.close()
            _fail(opening, exceptions.ConnectionError("the event loop ends"))

    async def _connect(self, address: Address, stream: "_Stream") -> None:
        loop = asyncio.get_running_loop()
        kind = self._topology.connection_class
        if issubclass(kind, UnixDomainSocketConnection):
            await loop.create_unix_connection(lambda: stream, address[0])
        else:
            context = None
            if issubclass(kind, SSLConnection):
                context = _tls(self._topology.options)
            await loop.create_connection(lambda: stream, *address, ssl=context)


_keepers: "set[asyncio.Task[None]]" = set()
"""Loops refer to their tasks weakly."""


@dataclass(slots=True)
class _Question:
    """Commands that were sent together, and what came back so far."""

    count: int
    due: float
    answer: "asyncio.Future[list[Any]]"
    replies: list[Any] = field(default_factory=list)


class _Stream(asyncio.Protocol):
    """One connection; see the module."""

    def __init__(self) -> None:
        parse_error: Any = DefaultParser.parse_error
        self._reader = hiredis.Reader(replyError=parse_error)
        self._questions: deque[_Question] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()

    async def exchange(self, commands: Sequence[bytes], deadline_s: float) -> list[Any]:
        if self.ended.is_set():
            raise exceptions.ConnectionError("the connection was closed")
        due = self._loop.time() + deadline_s
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        self._questions.append(_Question(len(commands), due, answer))
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.extend(commands)
        if self._watch is None:  # One timer for all: it looks at the oldest.
            self._watch = self._loop.call_at(due, self._check)
        return await answer

    def close(self) -> None:
        self._end(exceptions.ConnectionError("the connection was closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exceptions.ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                question = self._questions[0]
                question.replies.append(reply)
                if len(question.replies) == question.count:
                    self._questions.popleft()
                    if not question.answer.done():  # Its task was cancelled.
                        question.answer.set_result(question.replies)
        except (hiredis.ProtocolError, IndexError):
            self._end(exceptions.ConnectionError("the server does not speak Redis"))

    def _send(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if self._transport is not None and not self.ended.is_set():
            self._transport.write(data)

    def _check(self) -> None:
        """Ends the stream if its oldest question is overdue."""
        self._watch = None
        if not self._questions:
            return
        due = self._questions[0].due
        if self._loop.time() >= due:
            self._end(exceptions.TimeoutError("the server did not answer in time"))
        else:
            self._watch = self._loop.call_at(due, self._check)

    def _end(self, error: exceptions.RedisError) -> None:
        self.ended.set()
        questions, self._questions = self._questions, deque()
        for question in questions:
            _fail(question.answer, error)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._transport is not None:
            self._transport.abort()


def _is_over(opening: "asyncio.Future[_Stream]") -> bool:
    if not opening.done():
        return False
    return opening.exception() is not None or opening.result().ended.is_set()


def _close(opening: "asyncio.Future[_Stream]") -> None:
    if opening.done() and opening.exception() is None:
        opening.result().close()


def _fail(answer: "asyncio.Future[Any]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # Asked for, so that nobody is told it never was.


def _greetings(options: dict[str, Any]) -> list[tuple[str, ...]]:
    """Returns what is said first on a new connection."""
    commands: list[tuple[str, ...]] = []
    user, password = options.get("username"), options.get("password")
    if password:
        commands.append(("AUTH", user, password) if user else ("AUTH", password))
    if database := int(options.get("db") or 0):
        commands.append(("SELECT", str(database)))
    return commands


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    """Returns the context that redis-py makes of a URL's `ssl_` options."""
    wanted = {name: value for name, value in options.items() if name[:4] == "ssl_"}
    return AsyncSSLConnection(**wanted).ssl_context.get()
