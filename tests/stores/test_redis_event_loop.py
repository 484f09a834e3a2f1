"""An event loop with many agents goes on while Redis does not answer."""

import asyncio
import random  # noqa: TID251 - seeded, so that every run is alike
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from guardrails import Guard
from guardrails.errors import StoreUnavailable
from guardrails.stores import open_store
from guardrails.stores.redis.connection.waiting import THREAD
from guardrails.testing.conformance import charging, reserve
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server
from tests.servers.proxy import Fault, Proxy, always
from tests.servers.scripted import ScriptedServer

FIRST = next(iter(BINARIES.values()))

AGENTS = 200

PAUSE_SECONDS = 0.2
"""What a model call takes here, on average."""

CALLS = 6

BLOCKED_SECONDS_MAX = 0.05
"""How long nothing else may run on the loop: once, for a call that cannot await."""

SLACK_SECONDS = 0.1
"""What a busy machine may add. A store that was waited for would take 0.45."""

FAR_SECONDS = 0.06
"""How long a server far away takes: twice what a call may hold an event loop up."""

THREADS_MAX = 32
"""How many threads an event loop has at most, by default."""

Agent = Callable[[Guard, int], Awaitable[None]]


async def awaiting(guard: Guard, number: int) -> None:
    """Calls that can be awaited."""
    dice = random.Random(number)
    await asyncio.sleep(dice.random() * PAUSE_SECONDS)
    async with guard.session(session_id=f"{number}"):
        for _ in range(CALLS):
            async with guard.call(tool="t", cost_usd="0.001"):
                await asyncio.sleep(dice.random() * 2 * PAUSE_SECONDS)


async def inline(guard: Guard, number: int) -> None:
    """Calls that cannot, as in the callbacks of a framework."""
    dice = random.Random(number)
    await asyncio.sleep(dice.random() * PAUSE_SECONDS)
    with guard.session(session_id=f"{number}"):
        for _ in range(CALLS):
            with guard.call(tool="t", cost_usd="0.001"):
                await asyncio.sleep(dice.random() * 2 * PAUSE_SECONDS)


@dataclass
class Blocked:
    """Remembers for how long the loop waited in one piece."""

    seconds: list[float] = field(default_factory=list)

    async def watch(self) -> None:
        last = _waited_seconds()
        while True:
            await asyncio.sleep(0.001)
            now = _waited_seconds()
            self.seconds.append(now - last)
            last = now


def _waited_seconds() -> float:
    """Returns a clock that stands while this thread works, or could but for others.

    What is left is the time that it waited for something, also on a busy machine.
    """
    queued_seconds = 0.0
    with suppress(OSError):  # Only Linux tells.
        text = Path("/proc/thread-self/schedstat").read_text(encoding="ascii")
        queued_seconds = int(text.split()[1]) / 1e9
    return time.perf_counter() - time.thread_time() - queued_seconds


async def test_a_guard_is_built_on_an_event_loop_although_its_store_is_far_away(
    server: Server,
) -> None:
    with Proxy(server.port, always(Fault.DELAY), delay_seconds=FAR_SECONDS) as far:
        guard = Guard({}, store=far.url)
        far.play(always(Fault.PASS))
        guard.close()


async def test_connects_although_the_host_has_taken_all_threads_of_the_loop(
    server: Server,
) -> None:
    """Frameworks run tools in them. A name has to be looked up all the same."""
    loop, is_over = asyncio.get_running_loop(), threading.Event()
    tools = [loop.run_in_executor(None, is_over.wait) for _ in range(THREADS_MAX)]
    with closing(open_store(f"redis://localhost:{server.port}")) as store:
        try:
            await store.aexecute(reserve("h", charging()))
        finally:
            is_over.set()
            await asyncio.gather(*tools)


async def test_ends_with_its_loop_in_every_turn_of_connecting(server: Server) -> None:
    """A cancellation that comes with the answer of a thread must not be lost: the loop
    would wait for ever."""
    for turns in range(20):
        with closing(open_store(server.url)) as store:
            asking = asyncio.create_task(store.aexecute(reserve("h", charging())))
            for _ in range(turns):
                await asyncio.sleep(0)
                for thread in threading.enumerate():
                    if thread.name == THREAD:
                        thread.join()
            left = {asking, *asyncio.all_tasks()} - {asyncio.current_task()}
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=5)
            assert not left, turns


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks never start eagerly")
def test_says_at_once_that_nobody_listens_where_tasks_start_eagerly() -> None:
    """Connecting to a path has failed before the loop's next turn."""
    with asyncio.Runner() as runner, Server(FIRST) as server:
        loop = runner.get_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        with closing(open_store(server.unix_url)) as store:
            server.kill()
            with pytest.raises(StoreUnavailable, match="ConnectionError"):
                runner.run(store.aexecute(reserve("h", charging())))


class Foreign:
    """A transport that asyncio's class knows nothing of, as uvloop's."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


class ForeignLoop(asyncio.SelectorEventLoop):
    def _make_socket_transport(self, sock, protocol, *rest, **options):
        made = protocol.connection_made
        protocol.connection_made = lambda transport: made(Foreign(transport))
        return super()._make_socket_transport(sock, protocol, *rest, **options)


def test_connects_on_a_loop_that_is_not_of_asyncio(server: Server) -> None:
    with (
        asyncio.Runner(loop_factory=ForeignLoop) as runner,
        closing(open_store(server.url)) as store,
    ):
        runner.run(store.aexecute(reserve("h", charging())))


@pytest.mark.skipif(sys.platform != "linux", reason="has but one loopback address")
async def test_tries_each_address_of_a_name_in_one_call(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that says nothing, such as a route that is broken, does not use all time."""
    look_up = socket.getaddrinfo
    with (
        silent("127.0.0.2", server.port),
        closing(open_store(f"redis://two.test:{server.port}")) as store,
    ):
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda _, *rest, **options: [
                *look_up("127.0.0.2", *rest, **options),
                *look_up("127.0.0.1", *rest, **options),
            ],
        )
        await store.aexecute(reserve("h", charging()))


@contextmanager
def silent(host: str, port: int) -> Iterator[None]:
    """Takes no connection: as many as it may keep are waiting already."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield


async def test_an_awaited_call_to_a_silent_server_takes_less_than_half_a_second() -> (
    None
):
    """On a new connection, too, whose greeting is given no more time than the call."""
    with (
        ScriptedServer() as server,
        Proxy(server.port, always(Fault.BLACK_HOLE)) as proxy,
        closing(open_store(proxy.url)) as store,
    ):
        times: list[float] = []
        for _ in range(3):  # Machines are busy.
            started = time.perf_counter()
            with pytest.raises(StoreUnavailable):
                await store.aexecute(reserve("h", charging()))
            times.append(time.perf_counter() - started)

    assert min(times) < 0.49


@pytest.mark.parametrize("agent", [awaiting, inline])
async def test_agents_go_on_while_the_store_hangs(agent: Agent) -> None:
    """What blocks the loop is at most one short wait, and all is booked in the end."""
    with Server(FIRST) as server:
        await go_on_while_it_hangs(server, agent)


async def go_on_while_it_hangs(server: Server, agent: Agent) -> None:
    guard = Guard({}, store=server.url, max_cost_usd="10")
    blocked = Blocked()
    agents = [asyncio.create_task(agent(guard, n)) for n in range(AGENTS)]
    await asyncio.sleep(PAUSE_SECONDS * 2)
    watcher = asyncio.create_task(blocked.watch())
    with server.paused():
        await asyncio.sleep(PAUSE_SECONDS * 4)
        was_degraded = guard.store.is_degraded
    watcher.cancel()
    with suppress(asyncio.CancelledError):
        await watcher
    await asyncio.gather(*agents)
    while guard.store.is_degraded:
        await asyncio.sleep(0.01)
    accounts = [guard.account(f"{number}") for number in range(AGENTS)]
    await asyncio.to_thread(guard.close)

    assert was_degraded
    assert max(blocked.seconds) <= BLOCKED_SECONDS_MAX + SLACK_SECONDS
    assert [a.steps for a in accounts if a is not None] == [CALLS] * AGENTS


CLOSED_LOOP = """
import asyncio, sys
from guardrails import Guard
from guardrails.errors import StoreUnavailable
from guardrails.stores import open_store
from guardrails.stores.redis.connection.waiting import THREAD
from guardrails.testing.conformance import charging, reserve

guard = Guard({}, store=sys.argv[1], max_cost_usd="10")

async def call(seconds):
    async with guard.session(), guard.call(tool="t", cost_usd="0.001"):
        await asyncio.sleep(seconds)

loop = asyncio.new_event_loop()
loop.run_until_complete(call(0))
calling = loop.create_task(call(60))
loop.call_soon(loop.stop)
loop.run_forever()
loop.close()
"""


def test_a_loop_that_is_closed_with_a_call_in_flight_ends_quietly() -> None:
    """What holds the connection is destroyed with the process, and must not raise."""
    with Server(FIRST) as server:
        ended = subprocess.run(
            [sys.executable, "-c", CLOSED_LOOP, server.unix_url],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    assert "Exception ignored" not in ended.stderr
