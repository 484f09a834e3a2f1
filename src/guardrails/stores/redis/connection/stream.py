"""Streams: one connection per server and event loop, shared by all its tasks.

Commands are written in the order in which tasks ask, and replies come back in that
order: each resolves the oldest question. While one is waited for, those of one turn of
the loop are written together. That is a third of what a pool costs, and no task waits
for a connection.

Should something between here and the server lose a part, replies would be taken for
those of other questions, and a refused call for an admitted one. So a PING with a
number ends each question, and replies count only before their own number.
"""

import asyncio
import itertools
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import hiredis
from redis import exceptions
from redis.connection import SSLConnection, UnixDomainSocketConnection

from guardrails.stores.redis.codec.wire import packed
from guardrails.stores.redis.connection.attempts import CALL_DEADLINE_S, Exchange
from guardrails.stores.redis.connection.certificates import tls_context
from guardrails.stores.redis.connection.reading import ends_connection, new_reader
from guardrails.stores.redis.connection.topology import (
    DEADLINE_S,
    TCP_OPTIONS,
    Address,
    Topology,
)
from guardrails.stores.redis.connection.waiting import SlowConnection, awaited_within

__all__ = ["Streams"]

TOLD_AT_ONCE = 8
"""Tasks that learn of a failure in one turn of the loop: a few milliseconds."""

Met = Callable[[Address, object], None]


class Streams:
    """The open streams of the event loops of this process."""

    def __init__(self, topology: Topology, *, met: Met) -> None:
        self._topology = topology
        self._met = met
        self._process_id = os.getpid()
        self._loops: dict[asyncio.AbstractEventLoop, dict[Address, _Stream]] = {}

    async def exchange(self, step: Exchange) -> list[Any]:
        """Sends commands and returns as many replies, errors included.

        Raises:
            redis.RedisError: If the server cannot be reached, or does not answer in
                time. Whoever else waits on the same stream is told the same.
        """
        stream = self._of_this_loop().get(step.address)
        if stream is None or stream.ended.is_set():
            stream = self._open(step.address)
        return await stream.ask(step.commands, step.deadline_s, left_s=step.left_s)

    def leave(self, address: Address) -> None:
        """Closes the stream to a server. Whoever else waits on it is told so."""
        stream = self._of_this_loop().get(address)
        if stream is not None:
            stream.close()

    def close(self) -> None:
        """Closes all streams, each on its loop."""
        loops, self._loops = self._loops, {}
        for loop, streams in loops.items():
            for stream in streams.values():
                if not loop.is_closed() and not stream.ended.is_set():
                    loop.call_soon_threadsafe(stream.close)

    def _of_this_loop(self) -> "dict[Address, _Stream]":
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

    def _open(self, address: Address) -> "_Stream":
        """Begins to connect. What is asked meanwhile is sent after the greeting."""
        stream = _Stream()
        greetings = [*_greetings(self._topology.options), ("INFO", "server")]
        # It may take as long as any call waits, and go on for the next one.
        greeted = stream.ask(
            [packed(one) for one in greetings],
            CALL_DEADLINE_S,
            left_s=CALL_DEADLINE_S,
            is_numbered=False,
        )
        self._of_this_loop()[address] = stream
        keeping = self._keep(address, stream, greeted)
        # Not `create_task`: where tasks start eagerly it may have failed on return, and
        # what is asked then would wait until it is overdue.
        keeper = asyncio.Task(keeping, loop=asyncio.get_running_loop())
        _keepers.add(keeper)
        keeper.add_done_callback(_keepers.discard)
        return stream

    async def _keep(
        self, address: Address, stream: "_Stream", greeted: asyncio.Future[list[Any]]
    ) -> None:
        """Connects, and closes when the loop ends and cancels its tasks."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._connect(address, stream)
            *greetings, info = await greeted
            for reply in greetings:
                if isinstance(reply, exceptions.RedisError):
                    raise reply
            self._met(address, info)
            stream.go_on()
            await stream.ended.wait()
        except TimeoutError:
            stream.end(exceptions.TimeoutError(LATE))
        except ssl.SSLError as error:
            stream.end(exceptions.ConnectionError(str(error)))
        except OSError as error:
            stream.end(exceptions.ConnectionError(type(error).__name__))
        except exceptions.RedisError as error:
            stream.end(error)
        finally:
            stream.close()

    async def _connect(self, address: Address, stream: "_Stream") -> None:
        loop = asyncio.get_running_loop()
        kind = self._topology.connection_class
        if issubclass(kind, UnixDomainSocketConnection):
            await loop.create_unix_connection(lambda: stream, address[0])
            return
        host, port = address
        is_tls = issubclass(kind, SSLConnection)
        prepare = partial(_prepared, self._topology.options, address, is_tls=is_tls)
        places, context = await awaited_within(DEADLINE_S, prepare)
        for place in places:
            try:  # Those that are silent share the deadline.
                async with asyncio.timeout(DEADLINE_S / len(places)):
                    await loop.create_connection(
                        lambda: stream,
                        place,
                        port,
                        ssl=context,
                        server_hostname=host if is_tls else None,
                    )
            except OSError:  # A time that is over is one, too.
                if place == places[-1]:
                    raise
            else:
                return


LATE = "Timeout connecting to server"
"""As redis-py says it."""

_keepers: "set[asyncio.Task[None]]" = set()
"""Loops refer to their tasks weakly."""


@dataclass(slots=True)
class _Question:
    """Commands that were sent together, and what came back so far."""

    data: bytes
    count: int
    number: bytes | None
    """What the last reply has to repeat."""
    due: float
    deadline_s: float
    """How long a reply may take once it was asked for."""
    answer: "asyncio.Future[list[Any]]"
    replies: list[Any] = field(default_factory=list)


class _Stream(asyncio.Protocol):
    """One connection; see the module."""

    def __init__(self) -> None:
        self._reader = new_reader()
        self._questions: deque[_Question] = deque()
        self._numbers = itertools.count(1)
        self._unsent: list[_Question] = []
        self._greeted_at = 0.0
        self._is_greeted = False
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()

    def ask(
        self,
        commands: Sequence[bytes],
        deadline_s: float,
        *,
        left_s: float,
        is_numbered: bool = True,
    ) -> asyncio.Future[list[Any]]:
        number: bytes | None = None
        if is_numbered:
            number = b"%d" % next(self._numbers)
            commands = (*commands, packed((b"PING", number)))
        due = self._loop.time() + (deadline_s if self._is_greeted else left_s)
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        data = b"".join(commands)
        question = _Question(data, len(commands), number, due, deadline_s, answer)
        self._questions.append(question)
        self._unsent.append(question)
        if self._is_greeted and len(self._questions) == 1:
            self._send()  # Another turn of the loop takes a fifth of a call's time.
        elif self._is_greeted and len(self._unsent) == 1:
            self._loop.call_soon(self._send)
        if self._watch is None:  # One timer for all: it looks at the oldest.
            self._watch = self._loop.call_at(due, self._check)
        elif not self._is_greeted and due < self._watch.when():
            self._watch.cancel()
            self._watch = self._loop.call_at(due, self._check)
        return answer

    def go_on(self) -> None:
        """Sends what was asked before the greeting was answered, if it is in time."""
        self._is_greeted = True
        now = self._loop.time()
        for question in self._unsent:
            if question.due - now < now - self._greeted_at:
                self._questions.remove(question)
                _fail(question.answer, SlowConnection(LATE))
            question.due = min(question.due, now + question.deadline_s)
        self._unsent = list(self._questions)
        self._send()

    def close(self) -> None:
        self.end(exceptions.ConnectionError("the connection was closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by its class, but has all of its methods.
        self._transport = cast("asyncio.Transport", transport)
        if self.ended.is_set():
            self._transport.abort()
            return
        connection = transport.get_extra_info("socket")
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            for name, value in TCP_OPTIONS.items():
                connection.setsockopt(socket.IPPROTO_TCP, name, value)
        self._greeted_at = self._loop.time()
        self._transport.write(self._unsent.pop(0).data)  # The greeting.

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(exceptions.ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                if ends_connection(reply):
                    self.end(reply)
                    return
                question = self._questions[0]
                question.replies.append(reply)
                if len(question.replies) == question.count:
                    replies = _answers_to(question)
                    self._questions.popleft()
                    if not question.answer.done():  # Its task was cancelled.
                        question.answer.set_result(replies)
        except (hiredis.ProtocolError, IndexError):
            self.end(exceptions.ConnectionError("replies do not fit the questions"))

    def _send(self) -> None:
        if self._transport is not None:
            data = b"".join([question.data for question in self._unsent])
            self._unsent = []
            self._transport.write(data)

    def _check(self) -> None:
        """Ends the stream if its oldest question is overdue."""
        self._watch = None
        if not self._is_greeted:
            self._drop_overdue()
        if not self._questions:
            return
        due = self._questions[0].due
        if self._loop.time() >= due:
            is_open = self._transport is not None
            what = "the server did not answer in time" if is_open else LATE
            self.end(exceptions.TimeoutError(what))
        else:
            first = due if self._is_greeted else min(one.due for one in self._questions)
            self._watch = self._loop.call_at(first, self._check)

    def _drop_overdue(self) -> None:
        """Fails what was not asked yet and is overdue: others may wait for longer."""
        for question in self._unsent[:]:
            is_greeting = question.number is None
            if not is_greeting and self._loop.time() >= question.due:
                self._unsent.remove(question)
                self._questions.remove(question)
                _fail(question.answer, SlowConnection(LATE))

    def end(self, error: exceptions.RedisError) -> None:
        """Fails all questions and closes the connection."""
        if self._loop.is_closed():
            return  # Nobody is left who waits, and a transport cannot be closed.
        self.ended.set()
        questions, self._questions = self._questions, deque()
        self._fail_some(questions, error)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._transport is not None:
            self._transport.abort()

    def _fail_some(
        self, questions: deque[_Question], error: exceptions.RedisError
    ) -> None:
        """Tells a few tasks, then lets others run: each goes on at length."""
        for _ in range(min(TOLD_AT_ONCE, len(questions))):
            _fail(questions.popleft().answer, error)
        if questions:
            self._loop.call_soon(self._fail_some, questions, error)


def _answers_to(question: _Question) -> list[Any]:
    """Returns the replies that are known to be those of a question.

    Raises:
        IndexError: If they are those of another one.
    """
    if question.number is None:
        return question.replies
    *replies, number = question.replies
    if isinstance(number, Exception):  # Then the others may be anybody's.
        return [number] * len(replies)
    if number != question.number:
        raise IndexError
    return replies


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


def _prepared(
    options: dict[str, Any], address: Address, *, is_tls: bool
) -> tuple[list[str], ssl.SSLContext | None]:
    """Returns what a name stands for, and reads certificates. It may take long."""
    found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    places = [socket.getnameinfo(place, flags)[0] for *_, place in found]
    return list(dict.fromkeys(places)), tls_context(options) if is_tls else None
