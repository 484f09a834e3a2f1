"""Whoever dies first: nothing is left behind, and each call is in the ledger once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from guardrails.stores.diagnosis import Status
from guardrails.stores.sqlite import SQLiteStore
from guardrails.stores.sqlite.diagnosis import diagnose
from tests.integrations.mcp_stdio.hosts import (
    WRAP,
    Host,
    call,
    children_of,
    clean_environment,
    marked,
    scripted,
)
from tests.servers.waiting import until

GONE_WITHIN_SECONDS = 6.0

HOST = (sys.executable, "-IS", str(Path(__file__).with_name("forwarding_host.py")))

AT_ONCE = 6
"""Cases that are under way at the same time: each has four processes or more."""


@dataclass
class Scene:
    """A host, both processes of the proxy, and a server."""

    host: Host
    supervisor: int
    proxy: int
    server: int
    sent: int
    """How many calls have reached the server."""


End = Callable[[Scene], None]


@dataclass(frozen=True)
class Case:
    """A way to die."""

    name: str
    end: End
    server: list[str] = field(default_factory=lambda: scripted("serve"))
    is_busy: bool = False
    has_host: bool = False
    """Whether the host is a process of its own."""
    code: int | None = None
    """What the supervisor exits with, where its host lives to see it."""


def close_input(scene: Scene) -> None:
    scene.host.close_input()


def send(*targets: str, number: int) -> End:
    """Sends a signal to some of the processes, in this order."""

    def end(scene: Scene) -> None:
        for target in targets:
            pid = getattr(scene, target)
            os.kill(pid.process.pid if isinstance(pid, Host) else pid, number)

    return end


def send_group(*numbers: int) -> End:
    def end(scene: Scene) -> None:
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(os.getpgid(scene.supervisor), number)

    return end


def stop_server_and(end: End) -> End:
    """Freezes the server first."""

    def stopped(scene: Scene) -> None:
        os.kill(scene.server, signal.SIGSTOP)
        end(scene)

    return stopped


def ask(tool: str, **arguments: int) -> End:
    """Calls a tool at which the server ends by itself."""

    def end(scene: Scene) -> None:
        scene.sent += 1
        scene.host.send(call(9, tool, arguments))

    return end


def close_output_of_server(scene: Scene) -> None:
    ask("writes_no_more")(scene)
    assert scene.host.next()["id"] == 9
    scene.host.close_input()


def close_both(scene: Scene) -> None:
    scene.host.close_output()
    scene.host.close_input()


def fill_and_kill_host(scene: Scene) -> None:
    """Kills a host that could not write all it had to, because nobody reads."""
    block = b"x" * 999 + b"\n"
    writer = threading.Thread(target=_fill, args=(scene.host, block))
    writer.start()
    with contextlib.suppress(AssertionError):
        until(lambda: not writer.is_alive(), "the pipes to be full", seconds=1.0)
    os.kill(scene.host.process.pid, signal.SIGKILL)
    writer.join()


def _fill(host: Host, block: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            host.send(block)


TERM, KILL, INT, HUP = signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP
STUBBORN, PARENT = scripted("stubborn"), scripted("parent")

CASES = (
    Case("the host closes our input", close_input, code=0),
    Case("it does so while a call hangs", close_both, is_busy=True, code=0),
    Case("a server ignores that", close_input, STUBBORN, code=-KILL),
    Case("TERM", send("supervisor", number=TERM), is_busy=True, code=-TERM),
    Case("INT", send("supervisor", number=INT), code=-INT),
    Case("HUP", send("supervisor", number=HUP), code=-HUP),
    Case(
        "a server ignores TERM", send("supervisor", number=TERM), STUBBORN, code=-KILL
    ),
    Case("KILL of the supervisor", send("supervisor", number=KILL), is_busy=True),
    Case("a server ignores it", send("supervisor", number=KILL), STUBBORN),
    Case("KILL of the proxy", send("proxy", number=KILL), is_busy=True, code=-KILL),
    Case("a server ignores it too", send("proxy", number=KILL), STUBBORN, code=-KILL),
    Case("TERM of the proxy", send("proxy", number=TERM), is_busy=True, code=-TERM),
    Case("KILL of both", send("supervisor", "proxy", number=KILL), is_busy=True),
    Case("the same in turn", send("proxy", "supervisor", number=KILL), STUBBORN),
    Case("TERM to the group", send_group(TERM), is_busy=True),
    Case("KILL to the group", send_group(KILL), is_busy=True),
    Case("TERM and KILL to the group", send_group(TERM, KILL), STUBBORN),
    Case("KILL to a group with a grandchild", send_group(KILL), PARENT),
    Case("KILL of the host", send("host", number=KILL), has_host=True),
    Case("KILL of a busy host", send("host", number=KILL), STUBBORN, True, True),
    Case("KILL of a host that waits to write", fill_and_kill_host, has_host=True),
    Case("the server exits", ask("exit", code=3), is_busy=True, code=3),
    Case("the server is killed", ask("die", signal=KILL), code=-KILL),
    Case("the server crashes", ask("die", signal=signal.SIGSEGV), code=-signal.SIGSEGV),
    Case("the server closes its output", close_output_of_server, code=9),
    Case("TERM, with a grandchild", send("supervisor", number=TERM), PARENT),
    Case("the input ends, with a grandchild", close_input, PARENT),
    Case("KILL of the wrapper", send("server", number=KILL), PARENT, code=-KILL),
    Case("KILL above a grandchild", send("supervisor", number=KILL), PARENT),
    Case("KILL of a proxy with one", send("proxy", number=KILL), PARENT, code=-KILL),
    Case("KILL of a host with one", send("host", number=KILL), PARENT, True, True),
    Case("TERM, one detached", send("supervisor", number=TERM), scripted("detached")),
    Case("KILL, one detached", send("proxy", number=KILL), scripted("detached")),
    Case("a stopped server", stop_server_and(close_input), code=-KILL),
    Case("a stopped one, TERM", stop_server_and(send("supervisor", number=TERM))),
    Case("a stopped one, KILL", stop_server_and(send("supervisor", number=KILL))),
)


def play(case: Case, folder: Path) -> None:
    """Kills, and looks what is left after six seconds."""
    folder.mkdir()
    count = folder / "count"
    environ = clean_environment(folder, COUNT_FILE=str(count))
    command = [*(HOST if case.has_host else ()), *WRAP, "--server=srv", *case.server]
    with Host(command, environ=environ, cwd=folder, start_new_session=True) as host:
        scene = staged(case, host)
        before = marked(host.mark)
        if case.end is fill_and_kill_host:
            os.kill(scene.server, signal.SIGSTOP)

        case.end(scene)

        gone = f"the end of {case.name}"
        until(lambda: not marked(host.mark), gone, seconds=GONE_WITHIN_SECONDS)
        code = host.process.wait(1)
        assert case.code is None or code == case.code, f"{case.name}: {code}"
        until(lambda: not zombies(before), f"the burial after {case.name}")
    sent = len(count.read_bytes().splitlines())
    assert sent == scene.sent, f"{case.name}: {sent} calls reached the server"
    check_ledger(folder / "ledger.sqlite3", case.name, calls=sent)


def staged(case: Case, host: Host) -> Scene:
    """Waits until a call was answered, and perhaps another one is under way."""
    assert host.ask(call(1))["id"] == 1
    supervisor = host.process.pid
    if case.has_host:
        supervisor = next(iter(children_of(supervisor)))
    proxy = next(iter(children_of(supervisor)))
    server = next(iter(children_of(proxy)))
    scene = Scene(host, supervisor, proxy, server, sent=1)
    if case.is_busy:
        count = Path(host.environ["COUNT_FILE"])
        host.send(call(2, "hang"))
        scene.sent = 2
        until(lambda: len(count.read_bytes().splitlines()) == 2, "the second call")
    return scene


def zombies(pids: list[int]) -> list[int]:
    """Returns those of some processes that are dead, and not buried by one of us."""
    ours = {os.getpid(), *pids}
    return [
        pid
        for parent in ours
        for pid, state in children_of(parent).items()
        if pid in pids and state == "Z"
    ]


def check_ledger(path: Path, name: str, *, calls: int) -> None:
    """Each call that the server got is settled, or still held."""
    with contextlib.closing(SQLiteStore(path)) as store:
        failing = [one.text for one in diagnose(store) if one.status is Status.FAIL]
        assert not failing, f"{name}: {failing}"
        with store.reading() as connection:
            [(settled,)] = connection.execute("SELECT count(*) FROM events")
            [(held,)] = connection.execute(
                "SELECT count(*) FROM holds WHERE state = 'open'"
            )
    assert settled + held == calls, f"{name}: {settled} settled and {held} held"


def test_nothing_is_left_behind_whoever_dies_first(tmp_path: Path) -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 20
    with ThreadPoolExecutor(AT_ONCE) as pool:
        plays = [
            pool.submit(play, case, tmp_path / str(number))
            for number, case in enumerate(CASES)
        ]
    failures = [str(play.exception()) for play in plays if play.exception()]
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_signal_before_the_server_has_started_ends_it(
    tmp_path: Path, number: int
) -> None:
    environ = clean_environment(tmp_path)
    command = [*WRAP, "cat"]
    with Host(command, environ=environ, cwd=tmp_path) as host:
        until(lambda: children_of(host.process.pid), "the proxy")
        host.process.send_signal(number)

        assert host.wait() == -number
        until(lambda: not marked(host.mark), "the end of all")
