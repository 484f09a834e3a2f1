"""Streams are stopped like anything else, and pass a guard unchanged."""

import inspect
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel

from guardrails import BudgetExceeded, SessionStopped
from tests.integrations.langchain.constructs import ASK, CONSTRUCTS
from tests.integrations.langchain.modes import ASYNC, SYNC
from tests.integrations.langchain.rig import Rig, says

TEXT = "hello there, dear reader"


def texts(chunks: list[Any]) -> list[str]:
    return [chunk.text for chunk in chunks if chunk.text]


def test_a_stream_is_the_same_with_and_without_a_guard() -> None:
    """Each word as it comes: nothing is held back to be counted."""
    rig = Rig(max_steps=9)
    model = rig.model(says(TEXT))
    alone = texts(list(model.stream("hi")))
    with rig.guard.session():
        guarded = texts(list(model.stream("hi")))

    assert guarded == alone == ["hello", " there,", " dear", " reader"]


async def test_a_stream_is_the_same_with_and_without_a_guard_in_asyncio() -> None:
    """Each word as it comes: nothing is held back to be counted."""
    rig = Rig(max_steps=9)
    model = rig.model(says(TEXT))
    alone = texts([chunk async for chunk in model.astream("hi")])
    async with rig.guard.session():
        guarded = texts([chunk async for chunk in model.astream("hi")])

    assert guarded == alone == ["hello", " there,", " dear", " reader"]


@pytest.mark.parametrize("mode", ["messages", "updates", "values"])
def test_an_agents_stream_gives_what_was_paid_for_before_it_stops(mode: str) -> None:
    """The stop comes after the last chunk that was paid for, not instead of it."""
    rig = Rig(max_steps=2)
    agent = create_agent(rig.model(rig.calls_tool()), [rig.tool()])
    chunks: list[Any] = []
    with rig.guard.session(), pytest.raises(BudgetExceeded):
        chunks.extend(agent.stream(ASK, stream_mode=mode))

    assert "found q0-0" in str(chunks)
    assert rig.record.runs == 2


async def test_events_that_nobody_reads_on_end_the_agent() -> None:
    """Closing them cancels the agent behind, and leaves nothing held or running."""
    rig = Rig(max_steps=50)
    agent = create_agent(rig.model(rig.calls_tool()), [rig.tool()])
    async with rig.guard.session(session_id="s-1") as session:
        events = agent.astream_events(ASK, version="v2")
        async for event in events:
            if event["event"] == "on_tool_start":
                break
        await events.aclose()
        runs = rig.record.runs

    account = rig.guard.account("s-1")
    assert account is not None
    assert (account.held_nano_usd, account.held_tokens) == (0, 0)
    assert session.steps == len(session.events())
    assert rig.record.runs == runs < 50


# --- the third version of the events, in langchain 1.3 and newer -------------

HAS_V3 = hasattr(BaseChatModel, "stream_events")


def stream_events(target: Any, value: Any) -> list[Any]:
    return list(target.stream_events(value, version="v3"))


async def astream_events(target: Any, value: Any) -> list[Any]:
    events = target.astream_events(value, version="v3")
    if inspect.iscoroutine(events):
        events = await events
    return [event async for event in events]


@pytest.mark.skipif(not HAS_V3, reason="this langchain has no version 3 of events")
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("max_steps", [3, 4])
@pytest.mark.parametrize(
    "construct", ["plain_model", "agent", "parallel_tools", "model_retry", "deep_agent"]
)
class TestThirdVersion:
    """Models report other hooks there, and produce in a task of their own."""

    def test_stops(self, construct: str, max_steps: int) -> None:
        """Nothing paid starts after the stop, which reaches the reader."""
        rig = Rig(max_steps=max_steps)
        built = CONSTRUCTS[construct](rig)
        with pytest.raises(BudgetExceeded), rig.guard.session() as session:
            for _ in range(max_steps + 1):
                stream_events(built.runnable, built.value)

        assert not rig.record.started_after_stop()
        assert session.steps == rig.record.runs == len(session.events()) == max_steps

    async def test_stops_in_asyncio(self, construct: str, max_steps: int) -> None:
        """Nothing paid starts after the stop, which reaches the reader."""
        rig = Rig(max_steps=max_steps)
        built = CONSTRUCTS[construct](rig)
        with pytest.raises(BudgetExceeded):
            async with rig.guard.session() as session:
                for _ in range(max_steps + 1):
                    await astream_events(built.runnable, built.value)

        assert not rig.record.started_after_stop()
        assert session.steps == rig.record.runs == len(session.events()) == max_steps


# --- guards that do not enforce ----------------------------------------------


@pytest.mark.parametrize("mode", SYNC)
@pytest.mark.parametrize("enforcement", ["observe", "off"])
def test_a_guard_that_only_watches_stops_nothing(mode: str, enforcement: str) -> None:
    """Every call is recorded, or none."""
    rig = Rig(mode=enforcement, max_steps=1)
    agent = create_agent(rig.model(rig.calls_once()), [rig.tool()])
    with rig.guard.session() as session:
        results = SYNC[mode](agent, ASK, {})

    assert not any(isinstance(result, SessionStopped) for result in results)
    assert rig.record.runs >= 3
    assert session.steps == (rig.record.runs if enforcement == "observe" else 0)


@pytest.mark.parametrize("mode", ASYNC)
@pytest.mark.parametrize("enforcement", ["observe", "off"])
async def test_a_guard_that_only_watches_stops_nothing_in_asyncio(
    mode: str, enforcement: str
) -> None:
    """Every call is recorded, or none."""
    rig = Rig(mode=enforcement, max_steps=1)
    agent = create_agent(rig.model(rig.calls_once()), [rig.tool()])
    async with rig.guard.session() as session:
        results = await ASYNC[mode](agent, ASK, {})

    assert not any(isinstance(result, SessionStopped) for result in results)
    assert session.steps == (rig.record.runs if enforcement == "observe" else 0)
