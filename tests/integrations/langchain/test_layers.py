"""Layers of an agent's calls: what LangChain sends is told apart, and adds up."""

from decimal import Decimal
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from guardrails import ConfigurationError, Event, Session, TokenUsage, layer
from guardrails.core.layers import Author, Layer, Piece
from guardrails_langchain import GuardMiddleware
from guardrails_langchain.reading.pieces import piece_of
from tests.integrations.langchain.rig import Rig, says


@pytest.fixture
def rig() -> Rig:
    """Real prices, and a limit that nothing here reaches."""
    return Rig(prices=None, max_cost_usd="100")


def tokens_by_layer(event: Event) -> dict[str, int]:
    """Checks that the parts add up, and returns them."""
    assert event.usage is not None
    assert event.layers is not None
    output = [part for part in event.layers if part.layer.group == "response"]
    assert sum(part.tokens for part in output) == event.usage.output_tokens
    assert sum(part.tokens for part in event.layers) == event.usage.total_tokens
    costs = [part.cost_nano_usd or 0 for part in event.layers]
    assert sum(costs) == event.charge.cost_nano_usd
    return {part.layer.value: part.tokens for part in event.layers}


def models_of(session: Session) -> list[dict[str, int]]:
    return [tokens_by_layer(e) for e in session.events() if e.kind.value == "model"]


def test_an_agent_of_two_turns_is_told_apart(rig: Rig) -> None:
    """What a person said before is history, and a tool's result stays a tool's."""
    agent: Any = create_agent(
        rig.model(rig.calls_once()),
        tools=[rig.tool()],
        system_prompt="You help people with their orders. " * 20,
        middleware=[GuardMiddleware(rig.guard)],
    )
    with rig.guard.session("support") as session:
        said = agent.invoke({"messages": [HumanMessage("Where is my order? " * 5)]})
        agent.invoke({"messages": [*said["messages"], HumanMessage("And the other?")]})
    first, second, *_, last = models_of(session)

    assert {"prompt.system", "prompt.user", "response.tool_call"} == set(first)
    assert first["prompt.system"] > first["prompt.user"]
    assert {"tool.call", "tool.result", "response.text"} <= set(second)
    assert "memory.history" not in second
    assert {"memory.history", "tool.result"} <= set(last)

    rows = {row.names[0]: row for row in rig.guard.spend(by=["layer"])}
    assert sum(row.usd for row in rows.values()) == sum(
        (row.model_usd for row in rig.guard.spend(by=["project_id"])), Decimal(0)
    )
    assert rows["prompt.system"].input_tokens == sum(
        found.get("prompt.system", 0) for found in (first, second, *_, last)
    )
    assert None not in rows


def test_definitions_of_tools_are_a_layer(rig: Rig) -> None:
    """They are sent beside the messages, with every call."""
    tool = {"name": "find", "description": "Finds orders. " * 20, "parameters": {}}
    model = rig.model(says()).bind(tools=[tool])
    with rig.guard.session() as session:
        model.invoke("hi")
    (found,) = models_of(session)

    assert found["tool.schema"] > found["prompt.user"]


def test_a_call_without_a_prompt_has_layers_of_its_answer_alone(rig: Rig) -> None:
    """Its input has no name; code around it can give it one."""
    usage = TokenUsage(input_tokens=900, output_tokens=100)
    with rig.guard.session() as session:
        with rig.guard.call(model="gpt-4o", provider="openai") as call:
            call.settle(usage)
        with (
            layer("memory.summary"),
            rig.guard.call(model="gpt-4o", provider="openai") as call,
        ):
            call.settle(usage)
    first, second = session.events()
    rows = {row.names[0]: row for row in rig.guard.spend(by=["layer"])}

    assert [part.layer.value for part in first.layers or ()] == ["response.text"]
    assert tokens_by_layer(second) == {"memory.summary": 900, "response.text": 100}
    assert rows[None].input_tokens == rows["memory.summary"].input_tokens == 900
    assert rows[None].usd == Decimal("0.00225")


def test_code_says_what_a_turn_is_for(rig: Rig) -> None:
    """Of the model calls inside, and no longer after it."""
    model = rig.model(says())
    with rig.guard.session() as session:
        with layer("memory.retrieval"):
            model.invoke([SystemMessage("Rank these."), HumanMessage("one, two")])
        model.invoke([SystemMessage("Rank these."), HumanMessage("one, two")])
    inside, after = models_of(session)

    assert {"prompt.system", "memory.retrieval", "response.text"} == set(inside)
    assert {"prompt.system", "prompt.user", "response.text"} == set(after)


@pytest.mark.parametrize("name", ["memory", "response.text", "", None, 7])
def test_a_layer_that_there_is_not_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"layer: .* Use one of prompt"):
        layer(name).__enter__()


def test_layers_are_not_kept_with_other_names(rig: Rig) -> None:
    for asked in (
        {"by": ["layer", "agent"]},
        {"by": ["layer"], "where": {"agent": "a"}},
        {"by": ["agent"], "where": {"layer": "a"}},
    ):
        with pytest.raises(ConfigurationError, match=r"layer.* Ask by layer alone"):
            rig.guard.spend(**asked)


@pytest.mark.parametrize(
    ("message", "author", "mark"),
    [
        (SystemMessage("x"), Author.SYSTEM, None),
        (HumanMessage("x"), Author.PERSON, None),
        (AIMessage("x"), Author.MODEL, None),
        (ToolMessage("x", tool_call_id="1"), Author.TOOL, None),
        (ChatMessage("x", role="developer"), Author.SYSTEM, None),
        (ChatMessage("x", role="assistant"), Author.MODEL, None),
        (ChatMessage("x", role="someone"), Author.PERSON, None),
        (
            HumanMessage("x", additional_kwargs={"layer": "memory.retrieval"}),
            Author.PERSON,
            Layer.MEMORY_RETRIEVAL,
        ),
        (
            HumanMessage("x", additional_kwargs={"lc_source": "summarization"}),
            Author.PERSON,
            Layer.MEMORY_SUMMARY,
        ),
        (
            HumanMessage("x", additional_kwargs={"layer": ["odd"]}),
            Author.PERSON,
            None,
        ),
    ],
)
def test_a_message_is_known_by_who_wrote_it(
    message: BaseMessage, author: Author, mark: Layer | None
) -> None:
    assert piece_of(message) == Piece(author, 400 + 22, 0, mark)


@pytest.mark.parametrize(
    ("content", "weight"),
    [
        ([{"type": "text", "text": "word"}, "word"], 2 * 88),
        ([{"type": "image_url", "image_url": {"url": "data:..."}}], 100_000),
        ([{"type": "tool_use", "id": "1", "name": "find", "input": {}}], 0),
        ([], 0),
        ("", 0),
    ],
)
def test_blocks_count_by_what_they_are(content: Any, weight: int) -> None:
    """A block that repeats a call of a tool counts with the calls."""
    call = {"name": "find", "args": {"q": "x"}, "id": "1"}
    piece = piece_of(AIMessage(content, tool_calls=[call]))

    assert piece.text == 400 + weight
    assert piece.calls > 0
