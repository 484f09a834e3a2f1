"""A TCP proxy that does to a connection what networks do: loses, delays, cuts.

A request is what arrives from a client at once. A plan says, by the number of
the request, what becomes of it; so a test can name one, or draw from a seed.
"""

import asyncio
import enum
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

CHUNK_BYTES = 1 << 20
NO_LINGER = struct.pack("ii", 1, 0)
"""Closing such a socket sends RST: the other side sees a reset."""


class Fault(enum.Enum):
    """What may become of a request."""

    PASS = "pass"
    DELAY = "delay"
    DROP_REQUEST = "nobody gets it; the connection stays"
    DROP_REPLY = "it is answered; the answer is lost, the connection cut"
    CLOSE = "the connection is cut before it is forwarded"
    RESET = "the same, by RST"
    BLACK_HOLE = "from it on nothing comes through either way; the connection stays"


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
        self._clients: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._thread = threading.Thread(target=self._run, name="proxy")
        host, self.port = self._listener.getsockname()
        self.url: str = f"redis://{host}:{self.port}/0"
        self.play(plan or always(Fault.PASS))

    def play(self, plan: Plan) -> None:
        """Follows another plan from now on, counting requests from 1."""
        self._plan, self._requests = plan, 0

    def forward_to(self, port: int) -> None:
        """Forwards new connections to another port; those that are open stay."""
        self._target = port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())  # Then it cancels the connections.

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listener)
        await self._is_over.wait()
        server.close()
        for client in self._clients:  # A task that never ran would not do so.
            client.close()

    def _connected(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        self._clients.append(to_client)
        task = self._loop.create_task(self._connect(client, to_client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        link = _Link([to_client])
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
            link.writers.append(to_server)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward(client, to_server, link))
                tasks.create_task(_answer(server, to_client, link))
        except* (OSError, asyncio.CancelledError):
            pass  # Somebody has cut it, or all is over.
        finally:
            for writer in link.writers:
                writer.close()

    async def _forward(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, link: "_Link"
    ) -> None:
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
                case Fault.CLOSE:
                    break
                case Fault.RESET:
                    to_client = link.writers[0].get_extra_info("socket")
                    to_client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                    break
                case Fault.DELAY:
                    await asyncio.sleep(self.delay_seconds)
                case Fault.DROP_REPLY:
                    link.is_doomed = True
                case Fault.PASS:
                    pass
            server.write(data)
        raise ConnectionResetError  # Ends the other direction too.


async def _answer(
    server: asyncio.StreamReader, client: asyncio.StreamWriter, link: "_Link"
) -> None:
    while data := await server.read(CHUNK_BYTES):
        if link.is_doomed:
            break
        if not link.is_dark:
            client.write(data)
    raise ConnectionResetError


@dataclass
class _Link:
    """What is known of one connection."""

    writers: list[asyncio.StreamWriter]
    is_doomed: bool = False
    is_dark: bool = False
