"""Models that answer typed questions are guarded, though told of as chains."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, Field

from guardrails import BudgetExceeded, Guard, PriceStatus, TokenUsage
from guardrails.core.calls import CallStatus
from guardrails_langchain import GuardMiddleware
from guardrails_langchain.callbacks.decisions import decision_call, outcome_of_decision
from tests.integrations.langchain.constructs import ASK
from tests.integrations.langchain.rig import CENT, Rig, says

decisions = pytest.importorskip("langchain_core.decisions")
middleware = pytest.importorskip("langchain.agents.middleware")

USED = {"input_tokens": 900, "output_tokens": 7, "total_tokens": 907}
QUESTION = {
    "state": "The cat sat on the mat.",
    "questions": {"cat": decisions.Noul(instructions="Is there a cat?")},
}


class Decides(decisions.BaseDecisionModel):
    """Says yes, or the first choice, and counts how often it was asked."""

    model: str = "gpt-4o"
    usage: Any = USED
    asked: list[int] = Field(default_factory=list)
    on_ask: Callable[[], object] = lambda: None

    @property
    def _provider(self) -> str:
        return "openai"

    def _classify(self, state: Any, questions: Any) -> Any:
        self.asked.append(1)
        self.on_ask()
        return decisions.ClassifierResponse(
            model=self.model,
            answers={name: _answer(one) for name, one in questions.items()},
            usage=self.usage,
        )


def _answer(question: Any) -> Any:
    if isinstance(question, decisions.Choice):
        first = next(iter(question.criteria))
        return decisions.ChoiceAnswer(
            type="choice", choice=first, probabilities={first: 1.0}, confidence=1.0
        )
    return decisions.NoulAnswer(type="noul", noul=0.0, confidence=1.0)


def only_event(guard: Guard, session_id: str = "s-1") -> Any:
    (event,) = guard.session(session_id=session_id).events()
    return event


def test_what_it_reports_is_booked() -> None:
    rig = Rig(prices=None, max_cost_usd="1")
    with rig.guard.session("main", session_id="s-1"):
        Decides().invoke(QUESTION)

    event = only_event(rig.guard)
    assert event.usage == TokenUsage(input_tokens=900, output_tokens=7)
    assert (event.model, event.provider) == ("gpt-4o", "openai")
    assert event.charge.status is PriceStatus.PRICED
    assert event.charge.cost_nano_usd == 900 * 2_500 + 7 * 10_000


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "batch", "stream"])
def test_it_is_stopped_at_the_limit(mode: str) -> None:
    rig = Rig(max_cost_usd="0.03")
    model = Decides()
    calls: dict[str, Callable[[], Any]] = {
        "invoke": lambda: model.invoke(QUESTION),
        "ainvoke": lambda: asyncio.run(model.ainvoke(QUESTION)),
        "batch": lambda: model.batch([QUESTION]),
        "stream": lambda: list(model.stream(QUESTION)),
    }
    with pytest.raises(BudgetExceeded), rig.guard.session("main", session_id="s-1"):
        for _ in range(9):
            calls[mode]()

    assert len(model.asked) == 3
    account = rig.guard.account("s-1")
    assert account is not None
    assert (account.posted_nano_usd, account.held_nano_usd) == (3 * CENT, 0)


def test_a_stop_comes_before_it() -> None:
    """Also where a fallback swallows the stop of another model."""
    rig = Rig(max_steps=1)
    model = Decides()
    swallowing = RunnableLambda(lambda _: rig.model(says()).invoke("hi"))
    chain = swallowing.with_fallbacks([model])
    with pytest.raises(BudgetExceeded), rig.guard.session("main"):
        for _ in range(2):
            chain.invoke(QUESTION)

    assert not model.asked


@pytest.mark.filterwarnings("ignore:The middleware:DeprecationWarning")
@pytest.mark.parametrize("is_first", [True, False])
def test_that_of_a_router_is_its_agents_to_pay(*, is_first: bool) -> None:
    """Its hook is a node of its own, outside of the middleware's scope."""
    rig = Rig(max_steps=9)
    model = Decides()
    answering = rig.model(says())
    router = middleware.ModelRouterMiddleware(
        choices={"one": middleware.ModelChoice(model=answering, criteria="all")},
        instructions="Which one?",
        classifier=model,
    )
    guarding = GuardMiddleware(rig.guard, agent="main", session_id="s-1")
    order = [guarding, router] if is_first else [router, guarding]
    create_agent(answering, middleware=order).invoke(ASK)

    events = rig.guard.session(session_id="s-1").events()
    assert len(model.asked) == 1
    assert [event.model for event in events] == ["gpt-4o", "gpt-4o"]
    assert {event.attribution.agent for event in events} == {"main"}


def test_one_that_asks_another_model_is_counted_once() -> None:
    rig = Rig(max_steps=9)
    inner = rig.model(says())
    model = Decides(on_ask=lambda: inner.invoke("hi"))
    with rig.guard.session("main", session_id="s-1") as session:
        model.invoke(QUESTION)

    assert only_event(rig.guard).usage.output_tokens == inner.output_tokens
    assert session.steps == 1


def test_one_that_fails_is_booked() -> None:
    rig = Rig(prices=None, max_cost_usd="1")

    def fail() -> None:
        raise TimeoutError

    with rig.guard.session("main", session_id="s-1"), pytest.raises(TimeoutError):
        Decides(on_ask=fail).invoke(QUESTION)

    event = only_event(rig.guard)
    assert event.status is CallStatus.ERROR
    assert event.charge.cost_nano_usd == event.reserved_nano_usd > 0


@pytest.mark.parametrize("usage", [None, {"input_tokens": 0, "output_tokens": 0}])
def test_one_that_reports_nothing_is_estimated(usage: Any) -> None:
    rig = Rig(prices=None, max_cost_usd="1")
    with rig.guard.session("main", session_id="s-1"):
        Decides(usage=usage).invoke(QUESTION)

    event = only_event(rig.guard)
    assert event.charge.status is PriceStatus.ESTIMATED
    assert event.usage.input_tokens > len(QUESTION["state"])
    assert event.usage.output_tokens > 0


class Usage(BaseModel):
    """As langchain-openai has it."""

    input_tokens: int | None = None
    output_tokens: int | None = None


class Response(BaseModel):
    """As langchain-openai has it."""

    model: str = "gpt-6"
    usage: Usage


def test_reads_an_answer_of_openai() -> None:
    answer = Response(usage=Usage(input_tokens=80, output_tokens=4))
    outcome = outcome_of_decision(answer)
    assert outcome.usage == TokenUsage(input_tokens=80, output_tokens=4)
    assert outcome.model == "gpt-6"
    assert outcome_of_decision(Response(usage=Usage())).usage is None
    assert outcome_of_decision("no answer").usage is None


@pytest.mark.parametrize(
    ("state", "least"),
    [
        ("x" * 500, 500),
        (HumanMessage("x" * 500), 500),
        ([HumanMessage("x" * 200), AIMessage("x" * 300)], 500),
        (
            {"messages": [HumanMessage("x" * 300)], "call": {"args": {"q": "x" * 200}}},
            500,
        ),
        ([[[[[[[[["x" * 500]]]]]]]]], 500),
        (object(), 0),
    ],
)
def test_all_that_is_asked_is_bounded(state: Any, least: int) -> None:
    call = decision_call({**QUESTION, "state": state}, {"ls_model_name": "gpt-4o"})
    asked = len("Is there a cat?")
    assert least + asked <= call.input_tokens_max < least + 10_000


def test_its_answers_are_bounded_by_their_questions() -> None:
    """They are no texts of any length, and a small budget has room for many."""
    rig = Rig(prices=None, max_cost_usd="0.02")
    with rig.guard.session("main", session_id="s-1"):
        Decides(model="gpt-4o").invoke(QUESTION)

    reserved = only_event(rig.guard).reserved_nano_usd
    assert reserved is not None
    assert reserved < 1_000 * 10_000  # 4,096 tokens would not have fitted.


def test_long_questions_have_long_answers() -> None:
    labels = {f"label {number}": "x" * 40 for number in range(20)}
    choice = decisions.Choice(instructions="Which one?", criteria=labels)
    questions = {"one": decisions.Noul(instructions="Is it?"), "two": choice}
    asked = {"state": "x", "questions": questions}
    call = decision_call(asked, {"ls_model_name": "gpt-4o"})
    assert sum(map(len, labels)) * 2 < (call.output_tokens_expected or 0) < 4_096
    asked = {"state": "x", "questions": {f"{n}": choice for n in range(99)}}
    call = decision_call(asked, {"ls_model_name": "gpt-4o"})
    assert call.output_tokens_expected == 4_096


def test_longer_answers_are_expected_once_they_were_seen() -> None:
    """A model may think before it answers, and is billed for it."""
    rig = Rig(prices=None, max_cost_usd="1")
    long = {"input_tokens": 900, "output_tokens": 3_000, "total_tokens": 3_900}
    with rig.guard.session("main", session_id="s-1") as session:
        for _ in range(2):
            Decides(usage=long).invoke(QUESTION)

    first, second = (event.reserved_nano_usd or 0 for event in session.events())
    assert first < 3_000 * 10_000 < second


def test_an_image_counts_as_one() -> None:
    image = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + "A" * 500_000},
    }
    call = decision_call({"state": HumanMessage([image])}, {"ls_model_name": "gpt-4o"})
    assert 0 < call.input_tokens_max < 100_000
