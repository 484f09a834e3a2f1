"""A network that loses every packet for a while: nothing of that time arrives late."""

import shutil
import subprocess
import sys

import pytest

from guardrails.stores.redis.connection.topology import RESENT_MS
from guardrails.stores.resilient.store import PROBE_MS

APART = ("unshare", "--map-root-user", "--net")
"""Runs a command in a network of its own, which it may cut."""

UP = ("ip", "link", "set", "lo", "up")

SCRIPT = """
import asyncio, subprocess, sys, time
from guardrails import CallRefused, Guard
from tests.servers.processes import Server, binaries
from tests.servers.waiting import until


def link(state):
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


async def on_a_loop(guard):
    async with guard.session(session_id="s"), guard.call(tool="t", cost_usd="0.01"):
        pass


def in_a_thread(guard):
    with guard.session(session_id="s"), guard.call(tool="t", cost_usd="0.01"):
        pass


link("up")
with Server(next(iter(binaries().values()))) as server, asyncio.Runner() as loop:
    guards = [
        Guard({}, store=server.url, max_cost_usd="1", on_store_error="closed")
        for _ in range(2)
    ]
    calls = [
        lambda: in_a_thread(guards[0]), lambda: loop.run(on_a_loop(guards[1]))
    ]
    for call in calls:
        call()
    link("down")
    for call in calls:
        try:
            call()
        except CallRefused:
            pass
    link("up")
    for guard in guards:
        until(lambda: not guard.store.is_degraded, "the recovery")
    time.sleep(2)  # The system has resent what it would.
    account = guards[0].account("s")
    print(account.held_nano_usd, account.steps)
    for guard in guards:
        guard.close()
"""


def can_be_apart() -> bool:
    """Whether this machine lets this user make a network."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return (
        subprocess.run((*APART, *UP), capture_output=True, check=False).returncode == 0
    )


def test_a_call_that_was_refused_in_a_partition_holds_nothing_afterwards() -> None:
    """The system resends what a closed connection has sent: the reservation must not
    arrive after it was given back."""
    if not can_be_apart():
        pytest.skip("this machine lets nobody make a network")
    ended = subprocess.run(
        (*APART, sys.executable, "-c", SCRIPT),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert ended.stdout.split() == ["0", "2"]


def test_nothing_is_resent_once_a_store_that_failed_is_asked_again() -> None:
    assert RESENT_MS < PROBE_MS
