"""Fixtures for every test: its own environment, and nothing left behind."""

import asyncio
import contextlib
import gc
import inspect
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.waiting import until

# The first example loads what is loaded late; on a busy machine that takes seconds, and
# any other may wait for a core. What hangs is found by the time-out of its test.
settings.register_profile(
    "busy", suppress_health_check=[HealthCheck.too_slow], deadline=None
)
settings.load_profile("busy")

pytest_plugins = ("tests.servers.fixtures",)

THREAD_GRACE_SECONDS = 5.0
"""How long a thread that was told to end may take. One that was not never ends."""

OPEN_FILES = Path("/proc/self/fd")
"""What this process has open, where the system says so."""

LEDGER_ENDINGS = (".db", ".sqlite3", "-wal", "-shm", "-lock")


def pytest_collection_finish() -> None:
    """Has no collection of garbage look again at what is loaded for good.

    That is most of what there is, also in the child of a fork.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Hides the developer's own settings; ledger and journals are the test's own."""
    for name in list(os.environ):
        if name.startswith(("GUARDRAILS_", "MCPSPEND_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))


@pytest.fixture(autouse=True)
def no_thread_or_ledger_left_open() -> Iterator[None]:
    """Fails a test that leaves a thread running or a ledger's file open."""
    threads, files = set(threading.enumerate()), _open_ledgers()
    yield
    for thread in set(threading.enumerate()) - threads:
        # One that was told to start may not be there yet to be joined.
        until(lambda thread=thread: thread.ident is not None, "the start of a thread")
        thread.join(THREAD_GRACE_SECONDS)
        assert not thread.is_alive(), f"{thread.name} is still running"
    left = _open_ledgers() - files
    if left:
        gc.collect()  # A connection in a cycle is closed once that is collected.
        left = _open_ledgers() - files
    assert not left, f"still open: {sorted(left)}; close the guard or the store"


@pytest.fixture(autouse=True)
def no_task_left_pending(
    request: pytest.FixtureRequest, no_thread_or_ledger_left_open: None
) -> None:
    """Fails an asynchronous test that leaves a task pending."""
    # The loop ends with this fixture, so the threads are counted after it.
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_tasks_of_the_test")


@pytest.fixture
async def _tasks_of_the_test() -> AsyncIterator[None]:
    yield
    await asyncio.sleep(0)  # Lets callbacks run that are due already.
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"still pending: {left}"


def _open_ledgers() -> set[str]:
    found: set[str] = set()
    for entry in OPEN_FILES.glob("*") if OPEN_FILES.is_dir() else ():
        with contextlib.suppress(OSError):  # Closed since it was listed.
            target = str(entry.readlink())
            if target.removesuffix(" (deleted)").endswith(LEDGER_ENDINGS):
                found.add(f"{entry.name}: {target}")
    return found
