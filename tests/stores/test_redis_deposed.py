"""A master that becomes a replica keeps its connections; its name is another's by then.

So it is where clouds and balancers fail over: nothing closes, and no address changes.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from guardrails.core.operations import Reserved, Verdict
from guardrails.stores.redis import RedisStore
from guardrails.system.clock import SystemClock
from guardrails.testing.conformance import charging, reserve
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server
from tests.servers.proxy import Proxy
from tests.servers.waiting import until
from tests.stores.running import runner

AT_ONCE = 32


class Behind:
    """A master and its replica behind one name."""

    def __init__(self, master: Server, replica: Server, proxy: Proxy) -> None:
        self.master, self.replica, self.proxy = master, replica, proxy

    def fail_over(self) -> None:
        """Has both change their parts. The name is the new master's from now on."""
        until(self._is_in_step, "the replica")
        self.replica.ask("REPLICAOF", "NO", "ONE")
        self.master.ask("REPLICAOF", "127.0.0.1", self.replica.port)
        self.proxy.forward_to(self.replica.port)

    def _is_in_step(self) -> bool:
        sent = self.master.ask("INFO", "replication")
        got = self.replica.ask("INFO", "replication")
        is_up = got["master_link_status"] == "up"
        return is_up and sent["master_repl_offset"] == got["slave_repl_offset"]


@pytest.fixture(params=BINARIES)
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    binary = BINARIES[request.param]
    with (
        Server(binary, repl_diskless_sync_delay="0") as master,
        Server(binary, replicaof=f"127.0.0.1 {master.port}") as replica,
        Proxy(master.port) as proxy,
    ):
        yield Behind(master, replica, proxy)


def call(number: int) -> object:
    now_ms = SystemClock().now_ms()
    return reserve(f"h{number}", charging(session="s"), now_ms=now_ms)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("is_async", [False, True])
def test_the_first_call_finds_the_new_master(behind: Behind, is_async: bool) -> None:
    with (
        closing(RedisStore(behind.proxy.url)) as store,
        runner(is_async=is_async) as run,
    ):
        run(store, call(0))
        behind.fail_over()
        found = run(store, call(1))

    assert isinstance(found, Reserved)
    assert found.verdict is Verdict.ALLOW
    assert behind.replica.ask("HLEN", "gr:{default}:holds") == 2


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("is_async", [False, True])
def test_many_at_once_find_it(behind: Behind, is_async: bool) -> None:
    with closing(RedisStore(behind.proxy.url)) as store:
        if is_async:
            asyncio.run(_many_tasks(store, behind))
        else:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(store.execute, map(call, range(AT_ONCE))))
                behind.fail_over()
                second = map(call, range(AT_ONCE, 2 * AT_ONCE))
                list(pool.map(store.execute, second))

    assert behind.replica.ask("HLEN", "gr:{default}:holds") == 2 * AT_ONCE


async def _many_tasks(store: RedisStore, behind: Behind) -> None:
    await asyncio.gather(*(store.aexecute(call(n)) for n in range(AT_ONCE)))
    await asyncio.to_thread(behind.fail_over)
    second = range(AT_ONCE, 2 * AT_ONCE)
    await asyncio.gather(*(store.aexecute(call(n)) for n in second))
