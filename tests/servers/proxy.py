"""A TCP proxy that does to a connection what networks do: loses, delays, cuts.

A request is what arrives from a client at once. A plan says, by the number of
the request, what becomes of it; so a test can name one, or draw from a seed.
"""

import asyncio
import contextlib
import enum
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

CHUNK_BYTES = 1 << 20

LINGER_NOT = struct.pack("ii", 1, 0)
"""Closing such a socket sends RST: the other side sees a reset."""


class Fault(enum.Enum):
    """What may become of a request."""

    PASS = "pass"
    DROP_REQUEST = "drop_request"
    """Nobody gets it; the connection stays."""
    DROP_REPLY = "drop_reply"
    """It is forwarded and answered; then the answer is lost and the connection cut."""
    DELAY = "delay"
    CLOSE = "close"
    """The connection is cut before it is forwarded."""
    RESET = "reset"
    """The same, by RST."""
    BLACK_HOLE = "black_hole"
    """Nothing on this connection is forwarded any more, and it stays."""


Plan = Callable[[int], Fault]


def always(fault: Fault) -> Plan:
    """Does the same to each request."""
    return lambda _: fault


def nth(number: int, fault: Fault) -> Plan:
    """Does it to one request, counted from 1 since the plan was set."""
    return lambda at: fault if at == number else Fault.PASS


def mix(seed: int, shares: Mapping[Fault, float]) -> Plan:
    """Draws: each fault with its probability; the rest passes."""
    dice = random.Random(seed)
    faults = [*shares, Fault.PASS]
    weights = [*shares.values(), 1 - sum(shares.values())]
    return lambda _: dice.choices(faults, weights)[0]


class Proxy:
    """Listens on a free port of the loopback, in front of a port.

    Args:
        port: Whom to forward to.
        plan: What to do; `play` changes it at any time.
        delay_seconds: How long `Fault.DELAY` takes.
    """

    def __init__(
        self, port: int, plan: Plan | None = None, *, delay_seconds: float = 0.005
    ) -> None:
        self.delay_seconds = delay_seconds
        self.faults: Counter[Fault] = Counter()
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._is_over = asyncio.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self.play(plan or always(Fault.PASS))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._address[1]}/0"

    def play(self, plan: Plan) -> None:
        """Follows another plan from now on, counting requests from 1."""
        self._plan, self._requests = plan, 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())  # Then it cancels the connections.

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listener)
        await self._is_over.wait()
        server.close()

    async def _connected(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        # asyncio of Python 3.11 complains of a handler that was cancelled.
        with contextlib.suppress(asyncio.CancelledError):
            await self._forward(client, to_client)

    async def _forward(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        to_server: asyncio.StreamWriter | None = None
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
            link = _Link(to_client, to_server)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._requested(client, link))
                tasks.create_task(link.replied(server))
        except* OSError:
            pass  # Somebody has cut it.
        finally:
            to_client.close()
            if to_server is not None:
                to_server.close()

    async def _requested(self, client: asyncio.StreamReader, link: "_Link") -> None:
        while data := await client.read(CHUNK_BYTES):
            self._requests += 1
            fault = Fault.BLACK_HOLE if link.is_dark else self._plan(self._requests)
            self.faults[fault] += 1
            match fault:
                case Fault.DROP_REQUEST:
                    continue
                case Fault.BLACK_HOLE:
                    link.is_dark = True
                    continue
                case Fault.CLOSE | Fault.RESET:
                    link.cut(is_reset=fault is Fault.RESET)
                case Fault.DELAY:
                    await asyncio.sleep(self.delay_seconds)
                case Fault.DROP_REPLY:
                    link.is_doomed = True
                case Fault.PASS:
                    pass
            link.to_server.write(data)
        raise ConnectionResetError


class _Link:
    """Both ways of one connection."""

    def __init__(
        self, to_client: asyncio.StreamWriter, to_server: asyncio.StreamWriter
    ) -> None:
        self.to_client, self.to_server = to_client, to_server
        self.is_doomed = self.is_dark = False

    async def replied(self, server: asyncio.StreamReader) -> None:
        while data := await server.read(CHUNK_BYTES):
            if self.is_doomed:
                self.cut(is_reset=False)
            self.to_client.write(data)
        raise ConnectionResetError

    def cut(self, *, is_reset: bool) -> None:
        if is_reset:
            connection = self.to_client.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        raise ConnectionResetError
