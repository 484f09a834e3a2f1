"""A hundred recorded sessions of a real agent: every token, call and cent is booked.

Each session runs through a LangGraph agent with a checkpointer, one invocation for
each turn of the customer. Only the model and the tools' results are played back.
What the guard has booked is compared with a ledger that is computed from the file
alone. None of these sessions is a runaway, so none may be stopped as a loop.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from guardrails import Guard
from guardrails.core.accounts import Account
from guardrails.core.reporting.rollups import Spend
from guardrails.testing import FakeClock
from guardrails_langchain.testing import ScriptedChatModel

FILE = Path(__file__).parents[2] / "shared" / "data" / "airline-sessions.jsonl"

INPUT_USD = Decimal("2.50") / 1_000_000
OUTPUT_USD = Decimal("10.00") / 1_000_000
"""List prices of gpt-4o for one token (OpenAI, 2024-11 to date)."""

TOOL_USD = {
    "search_direct_flight": Decimal("0.005"),
    "search_onestop_flight": Decimal("0.01"),
    "book_reservation": Decimal("0.000000001"),
}
"""Invented: one nano-USD shows that nothing is rounded away."""

CONFIG = {
    "defaults": {"loop": {"action": "stop"}},
    "tools": {name: {"cost_per_call_usd": usd} for name, usd in TOOL_USD.items()},
}

pytestmark = [
    pytest.mark.timeout(180),  # Two thousand calls, twice.
    pytest.mark.skipif(
        not FILE.exists(),
        reason="the recorded sessions are not beside the repository",
    ),
]

Record = dict[str, Any]


def recorded() -> list[Record]:
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


# --- the ledger, from the file alone ----------------------------------------


@dataclass
class Sums:
    """What one session, or one tool, should come to."""

    usd: Decimal = Decimal(0)
    model_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass
class Expected:
    """What all sessions should come to."""

    total: Sums = field(default_factory=Sums)
    sessions: dict[str, Sums] = field(default_factory=dict)
    tools: Counter[str] = field(default_factory=Counter)


def tokens(text: str) -> int:
    """Estimates tokens: no usage was recorded."""
    return len(text.encode()) // 4


def written(message: Record) -> str:
    """What a message holds: its text, and the calls of tools."""
    calls = [
        [call["name"], json.loads(call["arguments"])]
        for call in message.get("tool_calls") or ()
    ]
    return (message["content"] or "") + json.dumps(calls)


def expected() -> Expected:
    result = Expected()
    for record in recorded():
        session = result.sessions[record["session"]] = Sums()
        prompt_tokens = 0
        for message in record["messages"]:
            size = tokens(written(message))
            for sums in (session, result.total):
                if message["role"] == "assistant":
                    sums.model_calls += 1
                    sums.input_tokens += prompt_tokens
                    sums.output_tokens += size
                    sums.usd += prompt_tokens * INPUT_USD + size * OUTPUT_USD
                elif message["role"] == "tool":
                    sums.tool_calls += 1
                    sums.usd += TOOL_USD.get(message["name"], 0)
            if message["role"] == "tool":
                result.tools[message["name"]] += 1
            prompt_tokens += size
    return result


# --- the agent, played back -------------------------------------------------


class Playback:
    """Plays one recorded session through an agent."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._messages: list[Record] = record["messages"]
        answers = [m for m in self._messages if m["role"] == "assistant"]
        self._answers = [answer(message) for message in answers]
        self._results = iter(
            [m["content"] or "" for m in self._messages if m["role"] == "tool"]
        )
        self.model = ScriptedChatModel(script=self._answer, max_tokens=None)

    def run(self, guard: Guard) -> None:
        """Lets the customer say what was said, turn by turn."""
        agent = guard.wrap(self._agent(), agent="airline-agent")
        config: Any = {"configurable": {"thread_id": self._record["session"]}}
        opening: list[BaseMessage] = [SystemMessage(self._messages[0]["content"])]
        for message, following in zip(self._messages, self._messages[1:], strict=False):
            # The simulated customer has the last word in most sessions.
            if message["role"] == "user" and following["role"] == "assistant":
                said = HumanMessage(message["content"])
                agent.invoke({"messages": [*opening, said]}, config, durability="exit")
                opening = []
        assert self.model.calls == len(self._answers)

    def _agent(self) -> Any:
        """Builds the usual loop; it ends with the recording, be it after a tool."""

        def call_model(state: MessagesState) -> dict[str, list[BaseMessage]]:
            return {"messages": [self.model.invoke(state["messages"])]}

        def goes_on(state: MessagesState) -> str:
            return END if self.model.calls == len(self._answers) else "model"

        graph = StateGraph(MessagesState)
        graph.add_node("model", call_model)
        graph.add_node("tools", ToolNode(self._tools()))
        graph.add_edge(START, "model")
        graph.add_conditional_edges("model", tools_condition)
        graph.add_conditional_edges("tools", goes_on, ["model", END])
        return graph.compile(checkpointer=InMemorySaver())

    def _tools(self) -> Sequence[BaseTool]:
        def result(**arguments: object) -> str:
            return next(self._results)

        names = {m["name"] for m in self._messages if m["role"] == "tool"}
        return [
            StructuredTool.from_function(
                result,
                name=name,
                description=name,
                args_schema={"type": "object", "properties": {}},
            )
            for name in sorted(names)
        ]

    def _answer(self, number: int, prompt: Sequence[BaseMessage]) -> AIMessage:
        """Answers as recorded; the usage is that of the prompt that has arrived."""
        message = self._answers[number]
        prompt_tokens = sum(tokens(written(arrived(each))) for each in prompt)
        answer_tokens = tokens(written(arrived(message)))
        usage = UsageMetadata(
            input_tokens=prompt_tokens,
            output_tokens=answer_tokens,
            total_tokens=prompt_tokens + answer_tokens,
        )
        return message.model_copy(update={"usage_metadata": usage})


def answer(message: Record) -> AIMessage:
    calls = [
        {"name": call["name"], "args": json.loads(call["arguments"]), "id": call["id"]}
        for call in message.get("tool_calls") or ()
    ]
    return AIMessage(message["content"] or "", tool_calls=calls)


def arrived(message: BaseMessage) -> Record:
    """Returns a message of LangChain as it would have been recorded."""
    calls = message.tool_calls if isinstance(message, AIMessage) else ()
    return {
        "content": message.content,
        "tool_calls": [
            {"name": call["name"], "arguments": json.dumps(call["args"])}
            for call in calls
        ],
    }


# --- the comparison ---------------------------------------------------------


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def guard(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guard]:
    """A guard that has seen all sessions."""
    urls = {
        "memory": "memory://",
        "sqlite": tmp_path_factory.mktemp("airline") / "ledger.sqlite3",
    }
    guard = Guard(CONFIG, store=urls[request.param], clock=FakeClock())
    for record in recorded():
        Playback(record).run(guard)
    assert not guard.engine.failures
    yield guard
    guard.close()


@pytest.fixture(scope="module")
def ledger() -> Expected:
    return expected()


def spend(guard: Guard, by: str) -> dict[str | None, Spend]:
    now_ms = guard.engine.clock.now_ms()
    found = guard.store.history.spend(
        project_id="default", by=by, since_ms=now_ms, until_ms=now_ms
    )
    return {each.name: each for each in found}


def sums_of_account(account: Account | None) -> tuple[object, ...]:
    assert account is not None
    return (
        Decimal(account.posted_nano_usd).scaleb(-9),
        account.model_calls,
        account.tool_calls,
        account.steps,
        account.posted_tokens,
    )


def sums_of_spend(spend: Spend) -> Sums:
    return Sums(
        usd=Decimal(spend.total_nano_usd).scaleb(-9),
        model_calls=spend.model_calls,
        tool_calls=spend.tool_calls,
        input_tokens=spend.input_tokens,
        output_tokens=spend.output_tokens,
    )


def test_the_ledger_of_every_session_is_right_to_the_nano_dollar(
    guard: Guard, ledger: Expected
) -> None:
    booked = {name: sums_of_account(guard.account(name)) for name in ledger.sessions}

    assert booked == {
        name: (
            sums.usd,
            sums.model_calls,
            sums.tool_calls,
            sums.model_calls + sums.tool_calls,
            sums.input_tokens + sums.output_tokens,
        )
        for name, sums in ledger.sessions.items()
    }


def test_nothing_is_left_held(guard: Guard, ledger: Expected) -> None:
    accounts = [cast("Account", guard.account(name)) for name in ledger.sessions]

    assert {account.held_nano_usd for account in accounts} == {0}
    assert {account.unconfirmed_nano_usd for account in accounts} == {0}


def test_the_report_by_session_is_right(guard: Guard, ledger: Expected) -> None:
    found = spend(guard, "session_id")

    assert {
        name: sums_of_spend(each) for name, each in found.items()
    } == ledger.sessions


def test_the_report_by_tool_is_right(guard: Guard, ledger: Expected) -> None:
    found = spend(guard, "tool")

    assert {name: each.tool_calls for name, each in found.items()} == ledger.tools
    for name, calls in ledger.tools.items():
        usd = Decimal(found[name].tool_nano_usd).scaleb(-9)
        assert usd == calls * TOOL_USD.get(name, Decimal(0))


def test_the_sum_of_everything_is_right(guard: Guard, ledger: Expected) -> None:
    (total,) = spend(guard, "agent").values()

    assert sums_of_spend(total) == ledger.total
    assert total.name == "airline-agent"
    assert total.failed_calls == 0


def test_no_healthy_session_is_stopped_as_a_loop(
    guard: Guard, ledger: Expected
) -> None:
    stops = [
        name
        for name in ledger.sessions
        if (account := guard.account(name)) is None or account.stop is not None
    ]

    assert not stops
    assert len(ledger.sessions) == 100
