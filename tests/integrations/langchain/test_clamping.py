"""A model call that does not fit is asked for less, so that the last one still runs.

Output costs ten dollars per million tokens here and input nothing, so a cent is a
thousand tokens.
"""

import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRetryMiddleware
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from pydantic import Field

from guardrails import BudgetExceeded, CallRefused
from guardrails_langchain import GuardMiddleware
from guardrails_langchain.testing import ScriptedChatModel
from tests.integrations.langchain import modes
from tests.integrations.langchain.constructs import ASK, NO_WAIT
from tests.integrations.langchain.rig import Rig

CENT_TOKENS = 1_000
PRICE = {"input_per_1m_usd": 0, "output_per_1m_usd": 10}
MODELS = {"gpt-4o": PRICE, "gpt-4o-mini": PRICE}


def rig_of(*, config: Any = None, **limits: Any) -> Rig:
    config = {"tools": {}, "models": MODELS, **(config or {})}
    return Rig(config=config, prices=None, **limits)


def chatty(rig: Rig, **options: Any) -> ScriptedChatModel:
    """Calls a tool on every turn, and writes as much as it may: 3 cents."""
    options = {"max_tokens": 3 * CENT_TOKENS, **options}
    written = options["max_tokens"] or 3 * CENT_TOKENS
    return rig.model(rig.calls_tool(), output_tokens=written, **options)


def agent_of(rig: Rig, model: Any, *more: Any, **options: Any) -> Any:
    options = {"agent": "main", "session_id": "s-1", **options}
    middleware = [GuardMiddleware(rig.guard, **options), *more]
    return create_agent(model, [rig.tool()], middleware=middleware)


def asked_of(model: ScriptedChatModel) -> list[int | None]:
    return [request.get("max_tokens") for request in model.requests]


def spent_cents(rig: Rig) -> float:
    account = rig.guard.account("s-1")
    assert account is not None
    assert account.held_nano_usd == 0
    return account.posted_nano_usd / 10_000_000


@pytest.mark.parametrize("mode", [modes.invoke, modes.stream])
def test_the_last_call_is_lowered_to_what_is_left(mode: Any) -> None:
    """Five cents: three, then two, and not one token more."""
    rig = rig_of(max_cost_usd="0.05")
    model = chatty(rig)
    with pytest.raises(BudgetExceeded):
        mode(agent_of(rig, model), ASK, {})

    assert asked_of(model) == [None, 2 * CENT_TOKENS]
    assert spent_cents(rig) == 5
    assert not rig.record.started_after_stop()


@pytest.mark.parametrize("mode", [modes.ainvoke, modes.astream, modes.astream_events])
async def test_the_last_call_is_lowered_in_asyncio(
    mode: Callable[..., Awaitable[Any]],
) -> None:
    rig = rig_of(max_cost_usd="0.05")
    model = chatty(rig)
    with pytest.raises(BudgetExceeded):
        await mode(agent_of(rig, model), ASK, {})

    assert asked_of(model) == [None, 2 * CENT_TOKENS]
    assert spent_cents(rig) == 5


def test_a_call_is_refused_where_too_little_is_left() -> None:
    """255 tokens are left, which is below the least: 256."""
    rig = rig_of(max_cost_usd="0.03255")
    model = chatty(rig)
    with pytest.raises(BudgetExceeded) as caught:
        agent_of(rig, model).invoke(ASK)

    assert asked_of(model) == [None]
    assert str(caught.value.needed) == "0.00256"
    assert rig.guard.session(session_id="s-1").status == "budget_exceeded"


class CandidatesChatModel(ScriptedChatModel):
    """Writes two answers at once, each as long as the request lets it be."""

    n: int = 2

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**super()._identifying_params, "n": self.n}

    def _answer(
        self, messages: Sequence[BaseMessage], asked: Mapping[str, Any]
    ) -> AIMessage:
        each = min(self.output_tokens, asked.get("max_tokens", self.output_tokens))
        usage = UsageMetadata(
            input_tokens=0, output_tokens=self.n * each, total_tokens=self.n * each
        )
        answer = super()._answer(messages, asked)
        return answer.model_copy(update={"usage_metadata": usage})


@pytest.mark.parametrize("max_tokens", [3 * CENT_TOKENS, None])
def test_what_is_left_is_shared_by_all_candidates(max_tokens: int | None) -> None:
    """A bound on output is one on each: four cents are two answers of two.

    A model that says nothing of its maximum is taken to write 4,096 tokens in all.
    """
    rig = rig_of(max_cost_usd="0.04")
    model = chatty(rig, max_tokens=max_tokens, kind=CandidatesChatModel)
    with pytest.raises(BudgetExceeded):
        agent_of(rig, model).invoke(ASK)

    assert asked_of(model) == [2 * CENT_TOKENS]
    assert spent_cents(rig) == 4


def test_a_small_request_is_never_lowered_below_itself() -> None:
    """A request of 100 tokens asks for 100 or is refused."""
    rig = rig_of(max_cost_usd="0.0025")
    model = chatty(rig, max_tokens=100)
    with pytest.raises(BudgetExceeded):
        agent_of(rig, model).invoke(ASK)

    assert asked_of(model) == [None, None]
    assert spent_cents(rig) == 0.2


def test_lowering_can_be_switched_off() -> None:
    rig = rig_of(max_cost_usd="0.05")
    model = chatty(rig)
    with pytest.raises(BudgetExceeded):
        agent_of(rig, model, clamp=False).invoke(ASK)

    assert asked_of(model) == [None]


@pytest.mark.parametrize(
    ("provider", "key"),
    [
        ("anthropic", "max_tokens"),
        ("azure", "max_completion_tokens"),
        ("google_genai", "max_output_tokens"),
        ("mistral", "max_tokens"),
    ],
)
def test_each_integration_has_its_own_name_for_the_bound(
    provider: str, key: str
) -> None:
    rig = rig_of(max_cost_usd="0.05")
    model = chatty(rig, provider=provider, kind=NamesItsBound, key=key)
    with pytest.raises(BudgetExceeded):
        agent_of(rig, model).invoke(ASK)

    assert [one.get(key) for one in model.requests] == [None, 2 * CENT_TOKENS]
    assert spent_cents(rig) == 5


class NamesItsBound(ScriptedChatModel):
    """Takes a bound on output by one name alone."""

    key: str

    def _answer(
        self, messages: Sequence[BaseMessage], asked: Mapping[str, Any]
    ) -> AIMessage:
        answer = super()._answer(messages, asked)
        output = asked.get(self.key, self.max_tokens)
        usage = UsageMetadata(input_tokens=0, output_tokens=output, total_tokens=output)
        return answer.model_copy(update={"usage_metadata": usage})


class ResponsesChatModel(NamesItsBound):
    """Sends its own bound whatever is bound to it: ChatOpenAI by the Responses API."""

    key: str = "max_completion_tokens"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        named = {"include": [], self.key: self.max_tokens}
        return {**super()._identifying_params, **named}


def test_no_bound_of_the_model_itself_wins_over_what_is_left() -> None:
    rig = rig_of(max_cost_usd="0.05")
    model = chatty(rig, kind=ResponsesChatModel)
    with pytest.raises(BudgetExceeded):
        agent_of(rig, model).invoke(ASK)

    assert spent_cents(rig) == 5
    assert not rig.record.started_after_stop()


def test_what_is_reserved_is_the_bound_that_is_sent() -> None:
    rig = rig_of(max_cost_usd="0.05")
    model = chatty(rig, kind=ResponsesChatModel).bind(max_tokens=CENT_TOKENS)
    with pytest.raises(BudgetExceeded), rig.guard.session("main", session_id="s-1"):
        for _ in range(3):
            model.invoke("hi")

    assert spent_cents(rig) == 3


def test_nothing_is_guessed_about_a_provider_that_is_not_known() -> None:
    """The name of its bound on output is not known, so the call is refused."""
    rig = rig_of(max_cost_usd="0.05")
    model = chatty(rig, provider="somebody")
    with pytest.raises(BudgetExceeded):
        agent_of(rig, model).invoke(ASK)

    assert asked_of(model) == [None]


def test_observing_lowers_nothing() -> None:
    rig = rig_of(max_cost_usd="0.05", mode="observe")
    model = rig.model(
        lambda number, _: (
            AIMessage("done") if number == 4 else rig.calls_tool()(number, _)
        ),
        max_tokens=3 * CENT_TOKENS,
        output_tokens=3 * CENT_TOKENS,
    )
    agent_of(rig, model).invoke(ASK)

    assert asked_of(model) == [None] * 5


def test_what_the_model_can_write_at_most_is_its_bound() -> None:
    """A request without one: the profile of the model has it."""
    rig = rig_of(max_cost_usd="0.08")
    model = chatty(rig, max_tokens=None, profile={"max_output_tokens": 6_000})
    with pytest.raises(BudgetExceeded):
        agent_of(rig, model).invoke(ASK)

    # 8 cents hold 6,000 tokens; 5 do not, and 4,096 are expected.
    assert asked_of(model) == [None, 4_096, 2_000]
    assert spent_cents(rig) == 8


def test_a_large_request_leaves_room_for_others() -> None:
    """64,000 tokens of 50,000: half of what is left, not all of it."""
    rig = rig_of(max_cost_usd="0.50", max_model_calls=1)
    model = chatty(rig, max_tokens=64_000)
    with pytest.raises(BudgetExceeded):
        agent_of(rig, model).invoke(ASK)

    assert asked_of(model) == [25_000]
    (event,) = rig.guard.session(session_id="s-1").events()[:1]
    assert event.reserved_nano_usd == 25 * 10_000_000


def test_tokens_are_lowered_to_a_limit_on_tokens() -> None:
    """The bound of the input counts too; what was billed before makes it close."""
    rig = rig_of(max_tokens=8_000)
    model = chatty(rig, input_tokens=10)
    with pytest.raises(BudgetExceeded):
        agent_of(rig, model).invoke(ASK)

    asked = asked_of(model)
    assert asked[0] is None
    assert asked[1] is not None
    assert asked[1] < 3 * CENT_TOKENS
    account = rig.guard.account("s-1")
    assert account is not None
    assert account.posted_tokens <= 8_000


def test_a_closing_call_is_lowered_to_the_reserve() -> None:
    """Work takes four of five cents; raised to ten, it leaves one again."""
    rig = rig_of(max_cost_usd="0.05", closing_reserve_usd="0.01", on_limit="finish")
    model = chatty(rig)
    agent = agent_of(rig, model)
    agent.invoke(ASK)
    assert asked_of(model) == [None, 1_000, 1_000]
    assert spent_cents(rig) == 5
    rig.guard.raise_limit("s-1", max_cost_usd="0.10")
    agent.invoke(ASK)

    assert asked_of(model)[3:] == [None, 1_000, 1_000]
    assert spent_cents(rig) == 10


def test_a_budget_that_only_alerts_lowers_nothing() -> None:
    alert = {"name": "all", "per": [], "every": "day", "max_cost_usd": 0.05}
    config = {"budgets": [{**alert, "action": "alert"}]}
    rig = rig_of(config=config, max_cost_usd="0.09")
    model = chatty(rig)
    with pytest.raises(BudgetExceeded):
        agent_of(rig, model).invoke(ASK)

    assert asked_of(model) == [None, None, None]


def test_thinking_is_not_lowered_away() -> None:
    """A provider refuses a bound that is not above the tokens for thinking."""

    class Thinker(ScriptedChatModel):
        thinking: Any = Field(default_factory=lambda: {"budget_tokens": 1_900})

    rig = rig_of(max_cost_usd="0.05")
    model = chatty(rig, kind=Thinker)
    with pytest.raises(BudgetExceeded):
        agent_of(rig, model).invoke(ASK)

    assert asked_of(model) == [None]


def test_a_retry_inside_cannot_swallow_it() -> None:
    """Neither is the attempt counted as a failure of the model."""
    rig = rig_of(max_cost_usd="0.05")
    model = chatty(rig)
    with pytest.raises(BudgetExceeded):
        agent_of(rig, model, ModelRetryMiddleware(**NO_WAIT)).invoke(ASK)

    assert asked_of(model) == [None, 2 * CENT_TOKENS]


class Asks(AgentMiddleware):
    """Asks a model of its own around each call of the agent's."""

    def __init__(self, model: ScriptedChatModel, *, is_forgiving: bool = False) -> None:
        super().__init__()
        self._model = model
        self._forgives: tuple[type[Exception], ...] = ()
        if is_forgiving:
            self._forgives = (Exception,)

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        with contextlib.suppress(*self._forgives):
            self._model.invoke("Is this all right?")
        return handler(request)


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-4o-mini"])
def test_a_model_inside_that_nobody_lowers_is_not_taken_to_be_lowered(
    name: str,
) -> None:
    """It would write for ten cents, where there are two."""
    rig = rig_of(max_cost_usd="0.02")
    inner = chatty(rig, model=name, max_tokens=10 * CENT_TOKENS)
    outer = rig.model(lambda number, messages: AIMessage("done"))
    with pytest.raises(BudgetExceeded):
        agent_of(rig, outer, Asks(inner)).invoke(ASK)

    assert inner.calls == 0
    assert spent_cents(rig) == 0


def test_a_model_inside_that_does_not_fit_raises_no_bound_of_the_agents_own() -> None:
    rig = rig_of(max_cost_usd="0.08")
    inner = chatty(rig, max_tokens=10 * CENT_TOKENS)
    inner.output_tokens = CENT_TOKENS
    outer = rig.model(lambda number, messages: AIMessage("done"))
    agent_of(rig, outer, Asks(inner)).invoke(ASK)

    assert asked_of(outer) == [300]
    assert spent_cents(rig) == 1.05


class Chooses(AgentMiddleware):
    """Has another model answer."""

    def __init__(self, model: ScriptedChatModel) -> None:
        super().__init__()
        self._model = model

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(model=self._model))


def test_a_model_that_is_chosen_inside_is_lowered() -> None:
    rig = rig_of(max_cost_usd="0.05")
    asked, chosen = rig.model(rig.calls_tool()), chatty(rig, model="gpt-4o-mini")
    with pytest.raises(BudgetExceeded):
        agent_of(rig, asked, Chooses(chosen)).invoke(ASK)

    assert asked_of(asked) == []
    assert asked_of(chosen) == [None, 2 * CENT_TOKENS]
    assert spent_cents(rig) == 5


BOUNDS = {"max_completion_tokens", "max_output_tokens", "max_tokens"}


class RefusesOtherNames(NamesItsBound):
    """Fails on a bound on output by a name of another provider, as some do."""

    def _answer(
        self, messages: Sequence[BaseMessage], asked: Mapping[str, Any]
    ) -> AIMessage:
        others = BOUNDS.intersection(asked) - {self.key}
        if others:
            raise TypeError(f"unexpected: {others}")
        return super()._answer(messages, asked)


@pytest.mark.parametrize(
    ("provider", "key"),
    [
        ("anthropic", "max_tokens"),
        ("azure", "max_completion_tokens"),
        ("google_genai", "max_output_tokens"),
    ],
)
@pytest.mark.parametrize("outer", ["openai", "google_genai", "azure"])
def test_a_model_of_another_provider_is_lowered_by_its_own_name(
    outer: str, provider: str, key: str
) -> None:
    """Chosen inside, once the request was lowered for the model that was asked."""
    rig = rig_of(max_cost_usd="0.05")
    asked = chatty(rig, provider=outer, kind=ResponsesChatModel)
    chosen = chatty(rig, provider=provider, kind=RefusesOtherNames, key=key)
    with pytest.raises(BudgetExceeded):
        agent_of(rig, asked, Chooses(chosen)).invoke(ASK)

    assert asked.calls == 0
    assert [one.get(key) for one in chosen.requests] == [None, 2 * CENT_TOKENS]
    assert spent_cents(rig) == 5


def test_a_model_of_a_provider_that_is_not_known_is_asked_without_a_bound() -> None:
    """No name of another provider reaches it: it is refused, or asked as it is."""
    rig = rig_of(max_cost_usd="0.05")
    asked = chatty(rig)
    chosen = chatty(
        rig, provider="somebody", kind=RefusesOtherNames, key="n", max_tokens=None
    )
    with pytest.raises(BudgetExceeded):
        agent_of(rig, asked, Chooses(chosen)).invoke(ASK)

    assert all(not BOUNDS.intersection(one) for one in chosen.requests)
    assert spent_cents(rig) <= 5


def test_a_model_that_is_chosen_inside_keeps_a_smaller_bound_of_its_own() -> None:
    rig = rig_of(max_cost_usd="0.025")
    asked = chatty(rig)
    chosen = chatty(rig, model="gpt-4o-mini", max_tokens=CENT_TOKENS // 2)

    class FallsBack(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            with contextlib.suppress(ZeroDivisionError):
                return handler(request)
            return handler(request.override(model=chosen))

    def fail(runs: int) -> None:
        if runs == 1:
            raise ZeroDivisionError

    rig.on_model_run = fail
    with pytest.raises(BudgetExceeded):
        agent_of(rig, asked, FallsBack()).invoke(ASK)

    assert asked_of(asked)[0] is not None
    assert asked_of(chosen)[0] == CENT_TOKENS // 2


@pytest.mark.parametrize("own", [None, CENT_TOKENS // 2, 3 * CENT_TOKENS])
def test_a_bound_stays_where_a_middleware_inside_has_settings_of_its_own(
    own: int | None,
) -> None:
    """It may ask for less, and for no more."""
    rig = rig_of(max_cost_usd="0.05")
    asked = chatty(rig)
    settings = {"temperature": 0} | ({"max_tokens": own} if own else {})

    class Sets(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            if rig.record.entries.count("model"):
                request = request.override(model_settings=settings)
            return handler(request)

    with pytest.raises(BudgetExceeded):
        agent_of(rig, asked, Sets()).invoke(ASK)

    assert asked_of(asked)[1] == min(own or 2 * CENT_TOKENS, 2 * CENT_TOKENS)
    assert all(one["temperature"] == 0 for one in asked.requests[1:])
    assert spent_cents(rig) == 5


def test_settings_of_the_request_are_those_of_the_model_that_is_chosen() -> None:
    """What the program itself has set comes back where the bound was put instead."""
    rig = rig_of(max_cost_usd="0.05")
    asked = chatty(rig)
    chosen = chatty(rig, provider="google_genai", kind=NamesItsBound, key="max_output")
    settings = {"max_tokens": 3 * CENT_TOKENS, "temperature": 0}

    class Sets(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(model_settings=settings))

    middleware = [
        Sets(),
        GuardMiddleware(rig.guard, agent="main", session_id="s-1"),
        Chooses(chosen),
    ]
    with pytest.raises(BudgetExceeded):
        create_agent(asked, [rig.tool()], middleware=middleware).invoke(ASK)

    assert all(one.items() >= settings.items() for one in chosen.requests)


def test_an_answer_is_not_paid_twice_where_a_model_inside_did_not_fit() -> None:
    """Whoever asks may do without the answer."""
    rig = rig_of(max_cost_usd="0.02")
    inner = chatty(rig, max_tokens=10 * CENT_TOKENS)
    outer = rig.model(lambda number, messages: AIMessage("done"))
    agent_of(rig, outer, Asks(inner, is_forgiving=True)).invoke(ASK)

    assert (inner.calls, outer.calls) == (0, 1)


def test_threads_on_one_budget_never_pass_it() -> None:
    """Each is lowered to what the others leave, or waits for its turn in vain."""
    shared = {"name": "all", "per": [], "every": "total", "max_cost_usd": 0.20}
    rig = rig_of(config={"budgets": [shared]})
    model = chatty(rig)
    ends: list[BaseException] = []

    def work(number: int) -> None:
        agent = agent_of(rig, model, session_id=f"s-{number}")
        try:
            agent.invoke(ASK)
        except (BudgetExceeded, CallRefused) as end:
            ends.append(end)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    spent = sum(event.charge.cost_nano_usd or 0 for event in all_events(rig))
    assert len(ends) == 6
    assert 0.197e9 < spent <= 0.20e9


def all_events(rig: Rig) -> list[Any]:
    return [
        event
        for number in range(6)
        for event in rig.guard.session(session_id=f"s-{number}").events()
    ]
