"""Stopping from the command line: another process notices at its next call."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from guardrails import Guard, SessionStopped, TokenUsage
from guardrails.core.stops import AUDIT_MAX
from guardrails.stores import open_store
from tests.cli.conftest import Run
from tests.servers.fixtures import BINARIES
from tests.servers.processes import Server

AGENT = """
import asyncio, contextlib, sys
from guardrails import Guard, SessionStopped, TokenUsage

guard = Guard({}, store=sys.argv[1], mode=sys.argv[3])

def told(text):
    print(text, flush=True)
    return sys.stdin.readline()

async def calls():
    ask = lambda: guard.call(
        model="gpt-4o", provider="openai", input_tokens=4_000, max_output_tokens=0
    )
    while True:
        try:
            if sys.argv[2] == "async":
                async with ask() as call:
                    more = told("calling")
                    call.settle(TokenUsage(input_tokens=4_000))
            else:
                with ask() as call:
                    more = told("calling")
                    call.settle(TokenUsage(input_tokens=4_000))
        except SessionStopped as stop:
            more = told(f"{stop.reason}: {stop}")
        if more != "on\\n":
            return

with guard.session("planner", customer_id="acme", session_id="s-1"):
    with guard.session("worker", session_id="s-2"):
        if sys.argv[2] == "async":
            asyncio.run(calls())
        else:  # Without a loop, on whose thread a store has to answer at once.
            with contextlib.suppress(StopIteration):
                calls().send(None)
print(guard.store.degraded_operations)
guard.close()
"""
"""An agent inside another that makes calls, each until it is told to go on."""

TARGETS = {
    "session": (("--session", "s-2"), "killed by ops"),
    "session around": (("--session", "s-1"), "killed by ops"),
    "agent": (("--agent", "worker"), "agent worker killed by ops"),
    "agent around": (("--agent", "planner"), "agent planner killed by ops"),
    "customer": (("--customer", "acme"), "customer acme killed by ops"),
    "all": (("--all",), "everything killed by ops"),
}


class Agent:
    """Another process that makes calls."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.calls = 0
        self.was_alone = False
        """Whether this machine was so busy that the store did not answer in time."""

    def says(self) -> str:
        """Waits until it calls or is stopped."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        self.calls += said == "calling"
        return said

    def goes_on(self) -> str:
        """Ends its call, and returns what it says to the next."""
        assert self._process.stdin is not None
        self._process.stdin.write("on\n")
        self._process.stdin.flush()
        return self.says()

    def goes_on_until(self, start: str) -> str:
        """Goes on until it says that; at once, unless it was alone."""
        for _ in range(1_000):
            said = self.goes_on()
            if said.startswith(start):
                return said
        raise AssertionError(f"never said {start}")

    def ends(self) -> None:
        said, _ = self._process.communicate("enough\n", timeout=30)
        assert self._process.returncode == 0
        self.was_alone = said.strip() != "0"


@contextmanager
def running(url: str, *, way: str = "sync", mode: str = "enforce") -> Iterator[Agent]:
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT, url, way, mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        agent = Agent(process)
        assert agent.says() == "calling"
        yield agent
        agent.ends()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(params=["sqlite", *BINARIES])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.sqlite3"
        return
    with Server(BINARIES[request.param]) as server:
        yield server.unix_url


@pytest.mark.parametrize(
    ("name", "way"),
    [*((name, "sync") for name in TARGETS), ("agent", "async"), ("all", "async")],
)
def test_a_running_agent_is_stopped_and_goes_on(
    command: Run, url: str, name: str, way: str
) -> None:
    """Its call in flight is booked, the next is refused; lifted, it goes on."""
    target, message = TARGETS[name]
    by = ("--by", "ops", "--store", url)
    with running(url, way=way) as agent:
        stopped = command("stop", *target, "--reason", "invoice dispute", *by)
        refused = agent.goes_on_until("killed")
        still = agent.goes_on()
        resumed = command("resume", *target, *by)
        agent.goes_on_until("calling")

    assert (stopped.code, resumed.code) == (0, 0)
    assert refused.startswith("killed: worker stopped: ")
    assert f"{message}: invoice dispute, after" in refused
    assert "To go on: guard.resume(" in refused
    assert still == refused
    if not agent.was_alone:
        assert agent.calls == booked(url) == 2


def test_an_agent_that_only_observes_goes_on(command: Run, url: str) -> None:
    """The stop is recorded, and nothing is refused."""
    with running(url, mode="observe") as agent:
        command("stop", "--all", "--reason", "drill", "--store", url)
        said = agent.goes_on()

    listed = json.loads(command("stops", "--json", "--store", url).out)
    assert said == "calling"
    assert [stop["reason"] for stop in listed["stops"]] == ["drill"]


def test_a_stop_for_a_time_says_until_when(command: Run, ledger: str) -> None:
    """The agent that is stopped says it too."""
    at = ("--store", ledger, "--by", "ops")
    done = command("stop", "--customer", "acme", "--for", "1h", "--reason", "why", *at)
    guard = Guard({}, store=ledger)
    with guard.session("support-agent", customer_id="acme"):
        with pytest.raises(SessionStopped, match="killed by ops until 2") as stopped:
            ask(guard)
    with guard.session("support-agent", customer_id="globex"):
        ask(guard)
    guard.close()

    until = done.out.partition(" until ")[2].partition(":")[0]
    assert done.code == 0
    assert done.out.startswith("customer acme is stopped by ops until 2")
    assert done.err == "To let it go on: guardrails resume --customer acme\n"
    assert f"until {until}" in str(stopped.value)


@pytest.mark.parametrize(
    ("option", "name", "meant"),
    [
        ("--session", "tikcet-7", "ticket-7"),
        ("--agent", "suport-agent", "support-agent"),
        ("--customer", "acne", "acme"),
    ],
)
def test_a_stop_that_holds_for_nobody_so_far_says_so(
    command: Run, url: str, option: str, name: str, meant: str
) -> None:
    """Its name may be misspelt, and the runaway goes on."""
    guard = Guard({}, store=url)
    with guard.session("support-agent", customer_id="acme", session_id="ticket-7"):
        ask(guard)
    guard.close()
    wrong, right = [
        command("stop", option, each, "--reason", "r", "--store", url)
        for each in (name, meant)
    ]

    assert "was booked in the last 7 days" in wrong.err
    assert wrong.err.endswith(f"Did you mean {meant}?\n")
    assert right.err == f"To let it go on: guardrails resume {option} {meant}\n"
    assert (wrong.code, right.code) == (0, 0)


def test_stops_are_listed_with_who_and_why(command: Run, ledger: str) -> None:
    """In 80 columns, the oldest first; a longer stop stays."""
    at = ("--store", ledger, "--by", "ops")
    command("stop", "--all", "--for", "2d", "--reason", "drill", *at)
    command("stop", "--session", "s-1", "--reason", "wrong customer", *at)
    shorter = command("stop", "--all", "--for", "1h", "--reason", "shorter", *at)
    table = command("stops", "--store", ledger)
    content = json.loads(command("stops", "--json", "--store", ledger).out)

    titles, first, second = table.out.splitlines()
    assert shorter.out.endswith(": drill\n")
    assert titles.split() == ["Stopped", "By", "Since", "UTC", "Until", "UTC", "Why"]
    assert first.split()[:2] == ["everything", "ops"]
    assert first.endswith("drill")
    assert second.startswith("session s-1")
    assert max(map(len, (titles, first, second))) <= 80
    assert content["schema_version"] == 1
    stop = content["stops"][1]
    assert (stop["kind"], stop["name"], stop["by"]) == ("session_id", "s-1", "ops")
    assert (stop["reason"], stop["until"]) == ("wrong customer", None)
    assert stop["since"].endswith("+00:00")


def test_the_log_says_what_people_did(command: Run, ledger: str) -> None:
    """Newest first, with the limits before and after a raise."""
    at = ("--store", ledger, "--by", "ops")
    command("stop", "--agent", "support-agent", "--reason", "loops", *at)
    command("resume", "--agent", "support-agent", "--reason", "mended", *at)
    guard = Guard({}, store=ledger, max_cost_usd="0.10")
    guard.raise_limit("s-1", max_cost_usd="2.00", by="lead", reason="big customer")
    guard.close()
    table = command("stops", "--log", "--store", ledger)
    content = json.loads(command("stops", "--log", "--json", "--store", ledger).out)

    raised, resumed, stopped = content["entries"]
    assert [one["action"] for one in (raised, resumed, stopped)] == [
        "raise",
        "resume",
        "stop",
    ]
    assert (raised["by"], raised["reason"]) == ("lead", "big customer")
    assert raised["limits"] == {"max_cost_usd": {"before": "0.1", "after": "2"}}
    assert (resumed["kind"], resumed["name"]) == ("agent", "support-agent")
    assert stopped["reason"] == "loops"
    lines = table.out.splitlines()
    assert "raise session s-1: max_cost_usd 0.1 > 2" in lines[1]
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    assert len(content["entries"]) <= AUDIT_MAX


def test_nothing_is_stopped_and_nobody_did_anything(command: Run, ledger: str) -> None:
    """Both are said, and are no error."""
    assert command("stops", "--store", ledger).out == "Nothing is stopped.\n"
    assert command("stops", "--log", "--store", ledger).out.startswith("Nobody has ")


def test_who_it_was_is_the_user_of_the_process(
    command: Run, ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a name is given."""
    monkeypatch.setenv("LOGNAME", "night-shift")
    done = command("stop", "--all", "--reason", "drill", "--store", ledger)

    assert "by night-shift" in done.out


def test_resuming_says_what_still_stands_in_the_way(command: Run, ledger: str) -> None:
    """Resuming a customer does not lift the stop of everything."""
    for target in (("--all",), ("--customer", "acme")):
        command("stop", *target, "--reason", "drill", "--store", ledger)
    first = command("resume", "--customer", "acme", "--store", ledger)
    again = command("resume", "--customer", "acme", "--store", ledger)
    unknown = command("resume", "--session", "nobody", "--store", ledger)

    assert (first.code, again.code, unknown.code) == (0, 0, 1)
    assert first.out == "customer acme goes on.\n"
    assert first.err == "Other stops are in force: guardrails stops\n"
    assert again.out == "customer acme was not stopped.\n"
    assert unknown.err == "guardrails: session nobody is not known.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("stop", "--reason", "r"), 2, "name one thing: --session"),
        (("stop", "--all", "--agent", "a", "--reason", "r"), 2, "name one thing"),
        (("stop", "--all"), 2, "--reason"),
        (("stop", "--agent", "a*", "--reason", "r"), 2, "'a*' is a pattern"),
        (("stop", "--customer", "", "--reason", "r"), 2, "customer_id"),
        (("stop", "--all", "--for", "soon", "--reason", "r"), 2, "--for: 'soon'"),
        (("stop", "--all", "--for", "0s", "--reason", "r"), 2, "--for: '0s' is"),
        (("stop", "--all", "--for", "9999d", "--reason", "r"), 2, "at most"),
        (("stop", "--all", "--reason", "r" * 300), 2, "reason: "),
        (("stop", "--all", "--reason", "r", "--store", "memory://"), 2, "memory://"),
        (("stop", "--all", "--reason", "r", "--store", "redis://h:1/0"), 4, "redis"),
        (("resume",), 2, "name one thing"),
    ],
)
def test_what_is_wrong_is_said(
    command: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """With the exit code of its kind, and nothing on stdout."""
    done = command(*arguments)

    assert done.code == code
    assert message in done.err
    assert done.out == ""


def test_names_cannot_move_the_cursor(command: Run, ledger: str) -> None:
    """They come from outside."""
    guard = Guard({}, store=ledger)
    guard.stop(customer_id="a\u202eb", reason="[bold]\u2066x", by="o\u200fps")
    guard.close()
    out = command("stops", "--store", ledger).out

    assert "[bold]" in out
    assert not {"\u202e", "\u2066", "\u200f"} & set(out)


def booked(url: str) -> int:
    """Returns how many calls the inner session has settled."""
    with closing(open_store(url)) as store:
        found = store.history.events(project_id="default", session_id="s-2", limit=99)
        return len(found)


def ask(guard: Guard) -> None:
    with guard.call(model="gpt-4o", provider="openai", input_tokens=10) as call:
        call.settle(TokenUsage(input_tokens=10))
