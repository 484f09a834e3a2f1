"""The closing reserve: also where a limit was raised, work leaves it alone."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guardrails import BudgetExceeded, Guard
from tests.servers.processes import Server, binaries


def in_code(guard: Guard) -> None:
    with guard.call(tool="search", cost_usd="0.01"):
        pass


def in_asyncio(guard: Guard) -> None:
    async def call() -> None:
        async with guard.call(tool="search", cost_usd="0.01"):
            pass

    asyncio.run(call())


def as_a_tool(guard: Guard) -> None:
    @guard.tool(cost_usd="0.01")
    async def search() -> None: ...

    asyncio.run(search())


@pytest.fixture(params=["memory", "sqlite", "a server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "a server":
        with Server(next(iter(binaries().values()))) as server:
            yield server.url
        return
    ledger = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    yield "memory://" if request.param == "memory" else ledger


@pytest.mark.parametrize("call", [in_code, in_asyncio, as_a_tool])
def test_work_leaves_the_reserve_of_a_raised_limit(
    store: str, call: Callable[[Guard], None]
) -> None:
    """A raised limit of $0.10 keeps the reserve of $0.02: eight calls for a cent."""
    session = {"max_cost_usd": "0.05", "closing_reserve_usd": "0.02"}
    rules = {"session": session, "on_limit": "finish", "loop": {"action": "warn"}}
    guard = Guard({"defaults": rules}, store=store, project_id=call.__name__)
    with guard.session("worker") as worker:
        guard.raise_limit(worker.session_id, max_cost_usd="0.10")
        for _ in range(8):
            call(guard)
        with pytest.raises(BudgetExceeded) as stopped:
            call(guard)
        steps = worker.steps
    guard.close()

    assert steps == 8
    assert str(stopped.value.allowed) == "0.08"
    way_on = f"guard.raise_limit('{worker.session_id}', max_cost_usd=...)"
    assert str(stopped.value).endswith(f"To go on: {way_on}")
