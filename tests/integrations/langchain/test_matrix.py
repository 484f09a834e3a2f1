"""The matrix: nothing paid starts after a stop, however LangChain is used."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from guardrails import CallRefused, Session, SessionStopped
from tests.integrations.langchain.constructs import CONSTRUCTS, TOOLLESS
from tests.integrations.langchain.modes import ASYNC, SYNC
from tests.integrations.langchain.rig import Rig

SESSION = "s-1"
ROUNDS = 12
"""Runs in which every construct reaches its limit."""


def steps_3() -> Rig:
    """Ends an agent in its second model call."""
    return Rig(max_steps=3)


def steps_4() -> Rig:
    """Ends an agent in its third tool call."""
    return Rig(max_steps=4)


def steps_6() -> Rig:
    """Ends what is nested, or a fan-out half way."""
    return Rig(max_steps=6)


def cost() -> Rig:
    return Rig(max_cost_usd="0.052")


def shared() -> Rig:
    budget = {"name": "c", "per": ["customer_id"], "every": "month", "max_steps": 5}
    return Rig(config={"budgets": [budget]})


def loop() -> Rig:
    rig = Rig(config={"defaults": {"loop": {"repeats": 3, "action": "stop"}}})
    rig.repeats = True
    return rig


def killed() -> Rig:
    """A person stops the session while its third model call is being answered."""
    rig = Rig()

    def stop(runs: int) -> None:
        if runs == 3:
            rig.guard.stop(SESSION, by="ops")

    rig.on_model_run = stop
    return rig


STOPS: dict[str, Callable[[], Rig]] = {
    build.__name__: build
    for build in (steps_3, steps_4, steps_6, cost, shared, loop, killed)
}

CELLS = [
    (construct, stop)
    for construct in CONSTRUCTS
    for stop in STOPS
    if stop != "loop" or construct not in TOOLLESS
]


def surfaced(results: list[Any]) -> bool:
    """Whether a batch handed over a stop among its results."""
    return any(isinstance(result, SessionStopped) for result in results)


def check(rig: Rig, session: Session, *, has_surfaced: bool) -> None:
    """What holds in every cell once the session is left."""
    account = rig.guard.account(SESSION)
    assert account is not None
    assert has_surfaced
    assert rig.record.has_stopped
    assert not rig.record.started_after_stop(), rig.record.entries
    assert rig.record.entries.count("model") == rig.provider_calls
    assert account.steps == rig.record.runs == len(session.events())
    assert (account.held_nano_usd, account.held_tokens) == (0, 0)
    assert rig.guard.engine.failures == 0


@pytest.mark.parametrize(("construct", "stop"), CELLS)
@pytest.mark.parametrize("mode", SYNC)
def test_nothing_paid_starts_after_a_stop(
    mode: str, construct: str, stop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Sync: the stop reaches the caller, and models and tools stay unused."""
    rig = STOPS[stop]()
    built = CONSTRUCTS[construct](rig)
    has_surfaced = False
    with rig.guard.session("main", customer_id="acme", session_id=SESSION) as session:
        for _ in range(ROUNDS):
            try:
                has_surfaced = surfaced(SYNC[mode](built.runnable, built.value, {}))
            except SessionStopped:
                has_surfaced = True
            except CallRefused:
                continue  # Only held by calls beside it; the next is refused for good.
            if has_surfaced:
                break
        # A stop is sticky: whatever is tried next is not paid for either.
        with contextlib.suppress(SessionStopped, CallRefused):
            SYNC[mode](built.runnable, built.value, {})

    check(rig, session, has_surfaced=has_surfaced)
    assert "Error in" not in caplog.text


@pytest.mark.parametrize(("construct", "stop"), CELLS)
@pytest.mark.parametrize("mode", ASYNC)
async def test_nothing_paid_starts_after_a_stop_in_asyncio(
    mode: str, construct: str, stop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Async: the stop reaches the caller, and models and tools stay unused."""
    rig = STOPS[stop]()
    built = CONSTRUCTS[construct](rig)
    has_surfaced = False
    async with rig.guard.session(
        "main", customer_id="acme", session_id=SESSION
    ) as session:
        for _ in range(ROUNDS):
            try:
                has_surfaced = surfaced(
                    await ASYNC[mode](built.runnable, built.value, {})
                )
            except SessionStopped:
                has_surfaced = True
            except CallRefused:
                continue  # Only held by calls beside it; the next is refused for good.
            if has_surfaced:
                break
        with contextlib.suppress(SessionStopped, CallRefused):
            await ASYNC[mode](built.runnable, built.value, {})

    check(rig, session, has_surfaced=has_surfaced)
    assert "Error in" not in caplog.text
