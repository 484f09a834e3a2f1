"""A Redis that refuses or is away: tried again, given up in time, or named at once."""

import asyncio
import contextlib
import threading
import time
from contextlib import closing

import pytest

from guardrails.core.operations import Reserved, Verdict
from guardrails.errors import StoreUnavailable
from guardrails.ports import Store
from guardrails.stores import open_store
from guardrails.stores.redis.connection.waiting import THREAD
from guardrails.testing.conformance import charging, reserve
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server, free_port
from tests.servers.proxy import Fault, Proxy, always
from tests.servers.scripted import ScriptedServer
from tests.servers.waiting import until
from tests.stores.running import Run, account, in_thread, on_loop, runner

DEADLINE_SECONDS = 0.6
"""How long an operation may take, whatever the server does: a call waits for it."""

CREDENTIALS = "agent:s3cret"


@pytest.fixture(params=[in_thread, on_loop])
def run(request: pytest.FixtureRequest) -> Run:
    """Executes an operation: in this thread, or on an event loop."""
    return request.param


# --- The server refuses -----------------------------------------------------

PASSING = {
    "READONLY You can't write against a read only replica.": "replica",
    "LOADING Redis is loading the dataset in memory": "reading",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is 'no'.": "",
    "CLUSTERDOWN The cluster is down": "cluster",
    "TRYAGAIN Multiple keys request during rehashing of slot": "",
    "BUSY Redis is busy running a script.": "script",
    "NOREPLICAS Not enough good replicas to write.": "min-replicas-to-write",
    "ERR max number of clients reached": "maxclients",
    "ERR max number of clients + cluster connections reached": "maxclients",
    # What has no code: a script that was ended, and a slot that is being moved.
    "ERR Script killed by user with SCRIPT KILL. script: 2f8a, on @user_script:7.": "",
    "ERR Error running script (call to f_2f8a): @user_script:7: Script killed by user "
    "with SCRIPT KILL...": "",
    "ERR Script attempted to access a non local key in a cluster node script: 2f8a, "
    "on @user_script:7.": "being moved",
    "ERR Error running script (call to f_2f8a): @user_script:7: @user_script: 6: Lua "
    "script attempted to execute a command while the cluster is down": "CLUSTER INFO",
    # As scripts meet it, and as they do on Redis 6.2.
    "ERR READONLY You can't write. script: 2f8a, on @user_script:7.": "replica",
    "ERR Error running script (call to f_2f8a): @user_script:7: @user_script: 6: "
    "-READONLY You can't write against a read only replica.": "replica",
    "ERR Error running script (call to f_2f8a): @user_script:7: @user_script: 6: "
    "-NOREPLICAS Not enough good replicas to write.": "min-replicas-to-write",
}
"""What may be over in a moment, and a word of what to do if it is not."""

LASTING = {
    "OOM command not allowed when used memory > 'maxmemory'.": "maxmemory",
    "MISCONF Redis is configured to save RDB snapshots": "disk",
    "NOPERM User agent has no permissions to run the 'evalsha' command": "right",
    "NOAUTH Authentication required.": "password",
    "WRONGTYPE Operation against a key holding the wrong kind of value": "database",
    "ERR unknown command 'EVALSHA', with args beginning with: 'x'": "renamed",
    "ERR unknown command `SENTINEL`, with args beginning with: `x`": "no Sentinel",
    "ERR DB index is out of range": "/0",
    "ERR SELECT is not allowed in cluster mode": "redis+cluster://",
    "ERR This instance has cluster support disabled": "redis://",
    "ERR Error running script (call to f_2f8a): @user_script:7: @user_script: 6: "
    "-OOM command not allowed when used memory > 'maxmemory'.": "maxmemory",
    "ERR Error running script (call to f_2f8a): @user_script:7: @user_script: 6: "
    "-MISCONF Redis is configured to save RDB snapshots": "disk",
    "ERR Error running script (call to f_2f8a): @user_script:7: @user_script: 6: "
    "ACL failure in script: User agent has no permissions to run the 'zadd' command": (
        "+zadd"
    ),
    "ERR Error running script (call to f_2f8a): @user_script:7: @user_script: 6: "
    "The user executing the script can't access at least one of the keys mentioned in "
    "the command arguments": "~gr:*",
}
"""What only a person mends, and a word of how."""


def _code(text: str) -> str:
    return text.partition(" ")[0]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("refusal", PASSING, ids=_code)
def test_what_passes_is_tried_again_within_the_call(run: Run, refusal: str) -> None:
    errors = [f"-{refusal}\r\n".encode()] * 2
    with (
        ScriptedServer(errors) as server,
        closing(open_store(f"redis://127.0.0.1:{server.port}")) as store,
    ):
        reply = run(store, reserve("h", charging()))

    assert isinstance(reply, Reserved)
    assert reply.verdict is Verdict.ALLOW
    assert server.scripts == 3


@pytest.mark.parametrize("refusal", PASSING, ids=_code)
def test_what_does_not_pass_is_given_up_in_time(run: Run, refusal: str) -> None:
    with ScriptedServer(for_ever=f"-{refusal}\r\n".encode()) as server:
        text = refused_in_time(run, server.port)

    assert PASSING[refusal] in text
    assert server.scripts > 2


@pytest.mark.parametrize("refusal", LASTING, ids=_code)
def test_what_a_person_must_mend_is_said_at_once(run: Run, refusal: str) -> None:
    with ScriptedServer(for_ever=f"-{refusal}\r\n".encode()) as server:
        text = refused_in_time(run, server.port, tries=1)

    assert LASTING[refusal] in text
    assert server.scripts == 1


def test_a_server_that_is_full_in_a_script_is_named(run: Run, server: Server) -> None:
    """It says where in the script it was, and may have room again later."""
    with closing(open_store(server.url)) as store:
        run(store, reserve("1", charging()))
        server.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            with pytest.raises(StoreUnavailable) as caught:
                run(store, reserve("2", charging()))
        finally:
            server.ask("CONFIG", "SET", "maxmemory", "0")

    assert "Raise maxmemory" in str(caught.value)
    assert caught.value.may_return


def test_a_wrong_password_is_said_at_once(run: Run) -> None:
    wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    with ScriptedServer(greeting=wrong) as server:
        text = refused_in_time(run, server.port, tries=1)

    assert "password" in text
    assert server.asked.count(b"AUTH") == 1
    assert server.scripts == 0


FAREWELLS = {
    "DENIED Redis is running in protected mode because": ("requirepass", False),
    "ERR max number of clients reached": ("maxclients", True),
    "ERR max number of clients + cluster connections reached": ("maxclients", True),
}
"""What a server says before it closes a new connection, a word of what to do, and
whether it may be over without that."""


@pytest.mark.parametrize("password", ["", ":s3cret@"])
@pytest.mark.parametrize("farewell", FAREWELLS, ids=_code)
def test_says_why_a_server_closes_new_connections(
    run: Run, farewell: str, password: str
) -> None:
    word, may_return = FAREWELLS[farewell]
    with (
        ScriptedServer(farewell=f"-{farewell}\r\n".encode()) as server,
        closing(open_store(f"redis://{password}127.0.0.1:{server.port}")) as store,
        pytest.raises(StoreUnavailable) as caught,
    ):
        run(store, reserve("h", charging()))

    assert word in str(caught.value)
    assert caught.value.may_return is may_return


def test_follows_a_slot_that_is_elsewhere_for_now(run: Run) -> None:
    """ASK holds for one attempt: the next call goes to the slot's holder again."""
    with ScriptedServer() as new:
        ask = f"-ASK 1 127.0.0.1:{new.port}\r\n".encode()
        with (
            ScriptedServer([ask]) as old,
            closing(open_store(f"redis+cluster://127.0.0.1:{old.port}")) as store,
        ):
            for hold_id in ("1", "2"):
                run(store, reserve(hold_id, charging()))

    assert old.scripts == 2
    assert new.scripts == new.asked.count(b"ASKING") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "", "?"])
def test_follows_a_slot_that_has_moved(run: Run, host: str) -> None:
    """MOVED is remembered. A node without a name is on the host that was asked."""
    with ScriptedServer() as new:
        moved = f"-MOVED 1 {host}:{new.port}\r\n".encode()
        with (
            ScriptedServer(for_ever=moved) as old,
            closing(open_store(f"redis+cluster://127.0.0.1:{old.port}")) as store,
        ):
            for hold_id in ("1", "2"):
                run(store, reserve(hold_id, charging()))

    assert old.scripts == 1
    assert new.scripts == 2


@pytest.mark.parametrize("binary", BINARIES)
def test_scripts_that_the_server_forgot_are_loaded_in_the_call(
    run: Run, binary: str
) -> None:
    """Whether they were flushed, or the server has started again."""
    to = charging()
    with (
        Server(BINARIES[binary], appendonly="yes") as server,
        closing(open_store(server.url)) as store,
    ):
        run(store, reserve("1", to))
        server.ask("SCRIPT", "FLUSH")
        run(store, reserve("2", to))
        server.restart()
        run(store, reserve("3", to))
        steps = account(store).steps

    assert steps == 3


# --- The server is away -----------------------------------------------------


def test_a_server_that_is_down_is_named_in_time(run: Run) -> None:
    port = free_port()

    assert f"127.0.0.1:{port}" in refused_in_time(run, port)


def test_a_server_that_never_answers_is_given_up_in_time(run: Run) -> None:
    """On the connection that there was, and on new ones."""
    with (
        ScriptedServer() as server,
        Proxy(server.port) as proxy,
        closing(open_store(proxy.url)) as store,
    ):
        run(store, reserve("h", charging()))
        proxy.play(always(Fault.BLACK_HOLE))
        given_up_in_time(run, store)


def test_a_slow_server_is_given_up_in_time(run: Run) -> None:
    with (
        ScriptedServer() as server,
        Proxy(server.port, always(Fault.DELAY), delay_seconds=2) as proxy,
        closing(open_store(proxy.url)) as store,
    ):
        given_up_in_time(run, store)


def test_a_server_that_is_slow_to_everything_is_given_up_in_time(run: Run) -> None:
    """Each answer is in time, but a call needs six of them."""
    forgotten = b"-NOSCRIPT No matching script.\r\n"
    with (
        ScriptedServer([forgotten] * 9) as server,
        Proxy(server.port, always(Fault.DELAY), delay_seconds=0.15) as proxy,
        closing(open_store(proxy.url.replace("//", f"//{CREDENTIALS}@"))) as store,
    ):
        given_up_in_time(run, store)


def test_an_answer_in_many_pieces_is_given_up_in_time(run: Run) -> None:
    """Each piece is in time, but together they would take longer than a call may."""
    with (
        ScriptedServer(drip_seconds=0.02) as server,
        closing(open_store(f"redis://127.0.0.1:{server.port}")) as store,
    ):
        given_up_in_time(run, store)


def test_an_answer_in_many_pieces_holds_no_event_loop_up() -> None:
    async def held_up() -> float:
        started = time.perf_counter()
        with pytest.raises(StoreUnavailable):
            store.execute(reserve("h", charging()))
        return time.perf_counter() - started

    with (
        ScriptedServer(drip_seconds=0.02) as server,
        closing(open_store(f"redis://127.0.0.1:{server.port}")) as store,
    ):
        times = [asyncio.run(held_up()) for _ in range(3)]  # Machines are busy.

    assert min(times) < 0.1


def test_a_connection_that_took_too_long_is_there_for_the_next_call() -> None:
    with (
        ScriptedServer() as server,
        Proxy(server.port, always(Fault.DELAY), delay_seconds=0.18) as proxy,
        # Three answers: to the password, the database, and who it is.
        closing(open_store(f"redis://{CREDENTIALS}@127.0.0.1:{proxy.port}/1")) as store,
    ):
        with pytest.raises(StoreUnavailable):
            in_thread(store, reserve("h", charging()))
        until(lambda: not _is_opening(), "the connections")
        opened = server.asked.count(b"AUTH")
        proxy.play(always(Fault.PASS))
        in_thread(store, reserve("h", charging()))

    assert server.asked.count(b"AUTH") == opened


@pytest.mark.parametrize("is_async", [False, True])
def test_a_server_far_away_is_reached_once_it_is_connected_to(is_async: bool) -> None:
    """Greeting, password and question together take longer than a call may."""
    # Once more if it was later still: machines are busy.
    assert 1 in (_connections_until_reached(is_async=is_async) for _ in range(3))


def _connections_until_reached(*, is_async: bool) -> int:
    with (
        ScriptedServer() as server,
        Proxy(server.port, always(Fault.DELAY), delay_seconds=0.17) as proxy,
        closing(open_store(f"redis://{CREDENTIALS}@127.0.0.1:{proxy.port}")) as store,
        runner(is_async=is_async) as run,
    ):
        for number in range(3):
            with contextlib.suppress(StoreUnavailable):
                reply = run(store, reserve(f"{number}", charging()))
                assert isinstance(reply, Reserved)
                return server.asked.count(b"AUTH")
    return 0


def _is_opening() -> bool:
    return any(thread.name == THREAD for thread in threading.enumerate())


# --- Helpers ----------------------------------------------------------------


def refused_in_time(run: Run, port: int, *, tries: int = 2) -> str:
    """Returns what is said of a server that this store cannot use."""
    url = f"redis://{CREDENTIALS}@127.0.0.1:{port}/0"
    with closing(open_store(url)) as store:
        text = given_up_in_time(run, store, tries=tries)
    assert "s3cret" not in text
    return text


def given_up_in_time(run: Run, store: Store, *, tries: int = 2) -> str:
    """Returns the error's text. Once more if it was late: machines are busy."""
    for _ in range(tries):
        started = time.perf_counter()
        with pytest.raises(StoreUnavailable) as caught:
            run(store, reserve("h", charging()))
        seconds = time.perf_counter() - started
        if seconds < DEADLINE_SECONDS:
            return str(caught.value)
    pytest.fail(f"it took {seconds} s")
