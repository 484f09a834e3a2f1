"""What is booked for a model call: reported usage, an estimate, or nothing."""

import asyncio
import contextlib
from collections.abc import Iterator
from decimal import Decimal
from json import JSONDecodeError
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseLLM
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    message_chunk_to_message,
)
from langchain_core.messages.ai import OutputTokenDetails, UsageMetadata
from langchain_core.outputs import (
    ChatGenerationChunk,
    ChatResult,
    Generation,
    LLMResult,
)
from langchain_core.runnables import RunnableLambda

from guardrails import (
    BudgetExceeded,
    CallRefused,
    Event,
    PriceStatus,
    Session,
    TokenUsage,
)
from guardrails.core.calls import CallStatus
from guardrails_langchain.testing import ScriptedChatModel
from tests.integrations.langchain.rig import Rig, says

REPORTED = TokenUsage(input_tokens=1_000, output_tokens=50)
"""What a scripted model says that an answer used."""

REPORTED_NANO_USD = 1_000 * 2_500 + 50 * 10_000
"""gpt-4o: 2.50 USD per million input tokens, 10 USD per million output tokens."""


@pytest.fixture
def rig() -> Rig:
    """Real prices, and a limit that nothing here reaches."""
    return Rig(prices=None, max_cost_usd="1")


def only_event(session: Session) -> Event:
    """The one call of a session, with nothing left open beside it."""
    assert str(session.remaining) == str(Decimal(1) - session.spent)  # Nothing is held.
    (event,) = session.events()
    return event


def assert_estimated(event: Event, *, status: CallStatus) -> None:
    """At least the input was booked, and the record says that it is an estimate."""
    assert event.status is status
    assert event.charge.status is PriceStatus.ESTIMATED
    assert event.usage is not None
    assert event.usage.input_tokens > 0
    assert event.charge.cost_nano_usd
    assert event.charge.cost_nano_usd >= event.usage.input_tokens * 2_500


def assert_received(event: Event, text: str) -> None:
    """The output is that part of the answer which had come."""
    assert event.usage is not None
    assert event.usage.output_tokens == len(text)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_books_what_the_provider_reported(rig: Rig, is_streamed: bool) -> None:
    """To the last token, at the table's price."""
    model = rig.model(says())
    with rig.guard.session() as session:
        if is_streamed:
            assert len(list(model.stream("hi"))) > 1
        else:
            model.invoke("hi")

    event = only_event(session)
    assert (event.usage, event.status) == (REPORTED, CallStatus.OK)
    assert event.charge.cost_nano_usd == REPORTED_NANO_USD
    assert event.charge.status is PriceStatus.PRICED


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_books_what_the_provider_reported_in_asyncio(
    rig: Rig, is_streamed: bool
) -> None:
    """To the last token, at the table's price."""
    model = rig.model(says())
    async with rig.guard.session() as session:
        if is_streamed:
            assert len([chunk async for chunk in model.astream("hi")]) > 1
        else:
            await model.ainvoke("hi")

    assert only_event(session).charge.cost_nano_usd == REPORTED_NANO_USD


@pytest.mark.parametrize("is_streamed", [False, True])
def test_estimates_where_the_provider_reports_nothing(
    rig: Rig, is_streamed: bool
) -> None:
    """ChatOpenAI behind a proxy streams without usage: never booked as 0."""
    model = rig.model(says(), reports_usage=False)
    with rig.guard.session() as session:
        if is_streamed:
            list(model.stream("hi"))
        else:
            model.invoke("hi")

    event = only_event(session)
    assert_estimated(event, status=CallStatus.OK)
    assert event.usage is not None
    assert event.usage.output_tokens >= 5


@pytest.mark.parametrize(
    ("asked", "calls"),
    [
        ({}, 1),
        ({"service_tier": "default"}, 1),
        ({"service_tier": "flex"}, 1),
        ({"service_tier": "priority"}, 0),
        ({"service_tier": ["priority"]}, 1),
    ],
)
def test_reserves_at_the_tier_that_the_request_asks_for(
    asked: dict[str, Any], calls: int
) -> None:
    """gpt-5, 1.25 and 10 USD per million tokens, is twice as dear with priority."""
    rig = Rig(prices=None, max_cost_usd="0.005")
    model = rig.model(says(), model="gpt-5", max_tokens=300)
    with contextlib.suppress(BudgetExceeded), rig.guard.session():
        model.bind(**asked).invoke("hi")
    assert model.calls == calls


@pytest.mark.parametrize("asked", [{}, {"model_kwargs": {"top_k": 4}}])
def test_reserves_at_the_speed_that_the_request_asks_for(asked: dict[str, Any]) -> None:
    """Anthropic's fast mode; what a model is made with is in a group of its own."""
    rig = Rig(prices=None, max_cost_usd="0.014")
    names = {"model": "claude-opus-4-8", "provider": "anthropic"}
    model = rig.model(says(), max_tokens=300, **names)
    with rig.guard.session():
        model.bind(**asked).invoke("hi")
    for fast in ({"speed": "fast"}, {"model_kwargs": {"speed": "fast"}}):
        with pytest.raises(BudgetExceeded), rig.guard.session():
            model.bind(**fast).invoke("hi")
    assert model.calls == 1


@pytest.mark.parametrize(
    ("named", "times", "status"),
    [
        ({}, 2, PriceStatus.ESTIMATED),
        ({"service_tier": "default"}, 1, PriceStatus.PRICED),
        ({"service_tier": "priority"}, 2, PriceStatus.PRICED),
    ],
)
def test_books_the_tier_that_was_asked_for_where_the_answer_names_none(
    rig: Rig, named: dict[str, Any], times: int, status: PriceStatus
) -> None:
    """As Anthropic's streams, of whose speed its integration says nothing."""
    answer = AIMessage("hello", response_metadata=named)
    model = rig.model(lambda number, messages: answer, model="gpt-5")
    with rig.guard.session() as session:
        model.bind(service_tier="priority").invoke("hi")

    charge = only_event(session).charge
    assert charge.cost_nano_usd == times * (1_000 * 1_250 + 50 * 10_000)
    assert charge.status is status


def test_books_a_call_that_was_cut_off_at_the_tier_that_was_asked_for(rig: Rig) -> None:
    model = rig.model(lambda number, messages: ReadTimeout(), model="gpt-5")
    with rig.guard.session() as session, pytest.raises(ReadTimeout):
        model.bind(service_tier="priority").invoke("hi")

    event = only_event(session)
    assert event.charge.cost_nano_usd == event.reserved_nano_usd


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_report_of_the_output_alone_leaves_the_input_to_be_bounded(
    rig: Rig, is_streamed: bool
) -> None:
    """So langchain-anthropic streams where only the start names the input."""
    model = rig.model(says(), input_tokens=0, output_tokens=50)
    with rig.guard.session() as session:
        if is_streamed:
            list(model.stream("hi"))
        else:
            model.invoke("hi")

    event = only_event(session)
    assert_estimated(event, status=CallStatus.OK)
    assert event.usage is not None
    assert event.usage.output_tokens == 50


def test_a_report_of_the_input_alone_leaves_the_output_to_be_bounded(rig: Rig) -> None:
    """The text that was received was not written for nothing."""
    model = rig.model(says("x" * 200), input_tokens=1_000, output_tokens=0)
    with rig.guard.session() as session:
        model.invoke("hi")

    event = only_event(session)
    assert_estimated(event, status=CallStatus.OK)
    assert event.usage is not None
    assert event.usage.output_tokens >= 200


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ({"reasoning_effort": "low"}, 2_000),
        ({"reasoning": {"effort": "high"}}, 2_000),
        ({"thinking": {"type": "enabled", "budget_tokens": 1_024}}, 2_000),
        ({"model_kwargs": {"thinking_budget": -1}}, 2_000),
        ({"additional_model_request_fields": {"thinking": {"type": "on"}}}, 2_000),
        ({"reasoning": {"effort": "none"}, "reasoning_effort": None}, 200),
        ({"thinking": {"type": "disabled"}, "reasoning_effort": "none"}, 200),
        ({}, 200),
    ],
)
def test_what_a_model_thinks_is_part_of_an_estimate(
    rig: Rig, asked: dict[str, Any], tokens: int
) -> None:
    """It is billed and not shown, so what was received is no bound."""
    model = rig.model(says("x" * 100), reports_usage=False, max_tokens=2_000)
    with rig.guard.session() as session:
        list(model.stream("hi", **asked))

    event = only_event(session)
    assert event.usage is not None
    assert tokens // 2 <= event.usage.output_tokens <= tokens


def test_who_has_thought_before_may_think_again(rig: Rig) -> None:
    """Also where nothing in the request says so."""
    thought = AIMessage(
        "so",
        usage_metadata=UsageMetadata(
            input_tokens=10,
            output_tokens=500,
            total_tokens=510,
            output_token_details=OutputTokenDetails(reasoning=450),
        ),
    )
    model = rig.model(
        lambda number, _: AIMessage("so") if number else thought,
        reports_usage=False,
        max_tokens=2_000,
    )
    with rig.guard.session() as session:
        model.invoke("hi")
        model.invoke("hi")

    usage = session.events()[-1].usage
    assert usage is not None
    assert usage.output_tokens == 2_000


@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_estimate_does_not_pass_what_the_request_allowed(
    rig: Rig, is_streamed: bool
) -> None:
    """The answer has more bytes than tokens; the reservation was for the tokens."""
    model = rig.model(says("x" * 1_000), reports_usage=False, max_tokens=40)
    with rig.guard.session() as session:
        if is_streamed:
            list(model.stream("hi"))
        else:
            model.invoke("hi")

    event = only_event(session)
    assert event.usage is not None
    assert event.usage.output_tokens == 40


def stopped_by_break(chunks: Iterator[object]) -> None:
    for _ in chunks:
        break


def stopped_by_close(chunks: Iterator[object]) -> None:
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("read", [stopped_by_break, stopped_by_close])
def test_books_a_stream_that_nobody_read_to_its_end(rig: Rig, read: object) -> None:
    """Providers bill what they sent: the input at least, and what was received."""
    assert callable(read)
    model = rig.model(says())
    with rig.guard.session() as session:
        read(model.stream("hi"))

    assert_estimated(only_event(session), status=CallStatus.BROKEN_OFF)


async def test_books_an_asynchronous_stream_that_was_closed(rig: Rig) -> None:
    """Closing tells LangChain, which tells the guard at once."""
    model = rig.model(says())
    async with rig.guard.session() as session:
        chunks = model.astream("hi")
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]

    assert_estimated(only_event(session), status=CallStatus.BROKEN_OFF)


async def test_books_an_asynchronous_stream_that_is_left_by_break(rig: Rig) -> None:
    """Nobody closes it in time, so that leaving the session books it."""
    model = rig.model(says())
    async with rig.guard.session() as session:
        async for _ in model.astream("hi"):
            break

    assert_estimated(only_event(session), status=CallStatus.BROKEN_OFF)
    assert_received(only_event(session), "hello")


def test_books_a_stream_that_is_left_open(rig: Rig) -> None:
    """A generator that outlives the session is booked when that is left."""
    model = rig.model(says())
    with rig.guard.session() as session:
        chunks = model.stream("hi")
        next(chunks)

    assert_estimated(only_event(session), status=CallStatus.BROKEN_OFF)
    assert_received(only_event(session), "hello")
    list(chunks)
    assert len(session.events()) == 1


def fails_at(usage: object) -> None:
    """What a parser of the last part raises."""
    if usage is not None:
        raise ValueError("unreadable")


def test_books_what_a_stream_has_reported_before_its_reader_failed(rig: Rig) -> None:
    """A name keeps the stream alive, so that leaving the session books it."""
    model = rig.model(says())
    failed = pytest.raises(ValueError, match="unreadable")
    with failed, rig.guard.session() as session:
        parts = model.stream("hi")
        for part in parts:
            fails_at(part.usage_metadata)

    event = only_event(session)
    assert (event.usage, event.status) == (REPORTED, CallStatus.BROKEN_OFF)
    assert event.charge.cost_nano_usd == REPORTED_NANO_USD
    assert event.charge.status is PriceStatus.PRICED


async def test_books_what_a_stream_has_reported_before_it_was_left(rig: Rig) -> None:
    """Nobody closes it in time, so that leaving the session books it."""
    model = rig.model(says())
    async with rig.guard.session() as session:
        async for part in model.astream("hi"):
            if part.usage_metadata is not None:
                break

    assert only_event(session).charge.cost_nano_usd == REPORTED_NANO_USD


class RunningChatModel(ScriptedChatModel):
    """Says with each part all that was used until then, as xAI and vLLM do."""

    def _chunks(self, *asked: Any) -> list[ChatGenerationChunk]:
        chunks = super()._chunks(*asked)
        for number, chunk in enumerate(chunks, start=1):
            output = self.output_tokens if number == len(chunks) else number
            chunk.message = chunk.message.model_copy(
                update={
                    "usage_metadata": UsageMetadata(
                        input_tokens=self.input_tokens,
                        output_tokens=output,
                        total_tokens=self.input_tokens + output,
                    )
                }
            )
        return chunks


@pytest.mark.parametrize("ended", [{"finish_reason": "stop"}, {}])
def test_a_report_that_runs_along_counts_once(rig: Rig, ended: dict[str, Any]) -> None:
    """LangChain adds them up: that of the whole answer, and each before it."""
    answer = AIMessage("hello there, dear reader", response_metadata=ended)
    model = rig.model(lambda number, messages: answer, kind=RunningChatModel)
    with rig.guard.session() as session:
        list(model.stream("hi"))

    event = only_event(session)
    assert event.usage == REPORTED
    is_whole = event.charge.status is PriceStatus.PRICED
    assert is_whole is bool(ended)  # Without a reason it may have been cut off.


def test_a_report_that_runs_along_counts_once_where_it_is_left(rig: Rig) -> None:
    model = rig.model(says(), kind=RunningChatModel)
    with rig.guard.session() as session:
        for part in model.stream("hi"):
            if "dear" in part.text:
                break

    event = only_event(session)
    assert event.usage is not None
    assert event.usage.input_tokens == 1_000
    assert_received(event, "hello there, dear")


def test_does_not_bill_what_langchains_cache_answers(rig: Rig) -> None:
    """LangChain reports the usage of the first call again; nothing was sent."""
    model = rig.model(says(), cache=InMemoryCache())
    with rig.guard.session() as session:
        first, second = model.invoke("hi"), model.invoke("hi")

    assert first.content == second.content
    assert rig.provider_calls == session.steps == 1
    assert only_event(session).charge.cost_nano_usd == REPORTED_NANO_USD


async def test_does_not_bill_what_langchains_cache_answers_in_asyncio(rig: Rig) -> None:
    """LangChain reports the usage of the first call again; nothing was sent."""
    model = rig.model(says(), cache=InMemoryCache())
    async with rig.guard.session() as session:
        await model.ainvoke("hi")
        await model.ainvoke("hi")

    assert rig.provider_calls == session.steps == len(session.events()) == 1


class ReportingChatModel(ScriptedChatModel):
    """Reports beside its answers, as the integrations of most providers do."""

    async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        result = self._generate(messages)
        return result.model_copy(update={"llm_output": {"model_name": self.model}})


@pytest.mark.parametrize("reports", ["nothing more", "an output", "a stream"])
async def test_bills_the_call_whose_answer_the_cache_gave_to_others(
    rig: Rig, reports: str
) -> None:
    """What was paid, and others are given before it has ended, shows no cost either.

    `InMemoryCache` keeps the very object that the call returns, and langchain-core
    (1.8.3) writes the `total_cost` of 0 into that.
    """
    answer = AIMessage("yes", id=None if reports == "nothing more" else "chatcmpl-1")
    model = rig.model(
        lambda number, messages: answer,
        kind=ReportingChatModel if reports == "an output" else ScriptedChatModel,
        cache=InMemoryCache(),
    )
    asked = {"stream": True} if reports == "a stream" else {}
    async with rig.guard.session() as session:
        answers = await asyncio.gather(*(model.ainvoke("hi", **asked) for _ in "123"))

    assert [str(one.content) for one in answers] == ["yes"] * 3
    assert rig.provider_calls == session.steps == len(session.events()) == 1
    assert session.events()[0].charge.cost_nano_usd == REPORTED_NANO_USD


class Refused(Exception):
    """The provider's client raises it for an answer with an error status."""

    status_code = 429


class Failed(Exception):
    """Says nothing about whether the provider did the work."""


def test_does_not_bill_what_the_provider_refused(rig: Rig) -> None:
    """A status of 400 or more: the request was not served. It stays a step."""
    model = rig.model(lambda number, messages: Refused("slow down"))
    with rig.guard.session() as session, pytest.raises(Refused):
        model.invoke("hi")

    event = only_event(session)
    assert (event.status, event.error_type) == (CallStatus.ERROR, "Refused")
    assert (event.charge.cost_nano_usd, session.steps) == (0, 1)


def test_bills_a_failure_that_may_have_been_served(rig: Rig) -> None:
    """Nobody knows whether the provider did the work: the input is booked."""
    model = rig.model(lambda number, messages: Failed("no such field"))
    with rig.guard.session() as session, pytest.raises(Failed):
        model.invoke("hi")

    assert_estimated(only_event(session), status=CallStatus.ERROR)


class APITimeoutError(Exception):
    """As the clients of OpenAI and Anthropic call it, whatever has caused it."""


class ReadTimeout(TimeoutError):
    """As requests and httpx call it."""


class RemoteProtocolError(Exception):
    """As httpx calls a connection that was closed instead of an answer."""


class ClientPayloadError(Exception):
    """As aiohttp calls an answer that ends too early, or cannot be unpacked."""


class ContentLengthError(Exception):
    """What has caused it: an error of aiohttp's own parser, and no answer."""

    code = 400


class DecodingError(Exception):
    """As httpx calls an answer that cannot be unpacked."""


def of_closed_loop() -> RuntimeError:
    """What a connection of an earlier `asyncio.run` raises when it is used again."""
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError) as caught:
        loop.call_soon(print)
    return caught.value


def of_other_loop() -> RuntimeError:
    """What one of another thread's event loop raises."""
    loop = asyncio.new_event_loop()
    future = loop.create_future()

    async def wait() -> None:
        await future

    with pytest.raises(RuntimeError) as caught:
        asyncio.run(wait())
    loop.close()
    return caught.value


class ConnectTimeout(TimeoutError):
    """As they call it before anything was sent."""


class GatewayTimeout(Exception):
    """A proxy waits no longer, and the provider may."""

    status_code = 504


def caused_by(cause: Exception, error: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        APITimeoutError("Request timed out."),
        ReadTimeout(),
        TimeoutError(),
        GatewayTimeout(),
        caused_by(ReadTimeout(), Failed("connection lost")),
        caused_by(RemoteProtocolError(), Failed("connection lost")),
        ConnectionResetError(),
        caused_by(ContentLengthError(), ClientPayloadError()),
        caused_by(DecodingError(), Failed("connection lost")),
        JSONDecodeError("no JSON", "<html>", 0),
        of_closed_loop(),
        caused_by(of_other_loop(), Failed("connection lost")),
    ],
)
def test_a_call_for_whose_answer_nobody_waited_is_billed_in_full(
    rig: Rig, error: Exception
) -> None:
    """Else an agent that tries again and again spends without an end."""
    model = rig.model(lambda number, messages: error)
    with rig.guard.session() as session, pytest.raises(type(error)):
        model.invoke("hi")

    event = only_event(session)
    assert event.charge.cost_nano_usd == event.reserved_nano_usd
    assert event.charge.status is PriceStatus.ESTIMATED


def test_an_error_of_the_program_itself_is_not_billed_in_full(rig: Rig) -> None:
    error = RuntimeError("There is no current event loop in thread 'main'.")
    model = rig.model(lambda number, messages: error)
    with rig.guard.session() as session, pytest.raises(RuntimeError):
        model.invoke("hi")

    event = only_event(session)
    assert event.charge.cost_nano_usd < event.reserved_nano_usd


def test_a_call_that_could_not_connect_in_time_costs_nothing(rig: Rig) -> None:
    error = caused_by(ConnectTimeout(), APITimeoutError("Request timed out."))
    model = rig.model(lambda number, messages: error)
    with rig.guard.session() as session, pytest.raises(APITimeoutError):
        model.invoke("hi")

    assert only_event(session).charge.cost_nano_usd == 0


@pytest.mark.parametrize(
    "block",
    [
        {"type": "code_interpreter_call", "id": "1"},
        {"type": "file_search_call", "id": "1"},
        {"type": "image_generation_call", "id": "1", "result": "AAAA"},
        {"type": "server_tool_use", "id": "1", "name": "code_execution", "input": {}},
        {"type": "server_tool_call", "id": "1", "name": "file_search", "args": {}},
        {"type": "compaction", "content": "what was said"},
    ],
)
def test_a_cost_without_the_fees_of_tools_is_a_part(
    rig: Rig, block: dict[str, Any]
) -> None:
    """What containers and searches of files cost is in no report."""
    answer = AIMessage([{"type": "text", "text": "done"}, block])
    model = rig.model(lambda number, messages: answer)
    with rig.guard.session() as session:
        model.invoke("hi")

    charge = only_event(session).charge
    assert charge.status is PriceStatus.PARTIAL
    assert charge.cost_nano_usd == REPORTED_NANO_USD


@pytest.mark.parametrize(
    "reported",
    [
        {"usage": {"inference_geo": "us"}},
        {"usage": {"iterations": [{"type": "advisor_message"}]}},
        {"token_usage": {"num_sources_used": 4}},
    ],
)
def test_a_cost_without_a_surcharge_is_a_part(
    rig: Rig, reported: dict[str, Any]
) -> None:
    """Anthropic's for work in one country and an advisor, and xAI's for sources."""
    answer = AIMessage("done", response_metadata=reported)
    model = rig.model(lambda number, messages: answer)
    with rig.guard.session() as session:
        model.invoke("hi")

    assert only_event(session).charge.status is PriceStatus.PARTIAL


def test_an_answer_that_is_written_in_the_background_is_billed_in_full(
    rig: Rig,
) -> None:
    """It is fetched from the provider later, and nobody tells what it used."""
    queued = AIMessage("", response_metadata={"status": "queued"})
    model = rig.model(lambda number, messages: queued, reports_usage=False)
    with rig.guard.session() as session:
        model.invoke("hi")

    event = only_event(session)
    assert event.charge.cost_nano_usd == event.reserved_nano_usd
    assert event.charge.status is PriceStatus.ESTIMATED


def test_counts_every_retry_that_reaches_the_provider(rig: Rig) -> None:
    """Each is a call of its own, and a step of its own."""

    def script(number: int, messages: object) -> AIMessage | Exception:
        return AIMessage("done") if number == 2 else Refused("slow down")

    model = rig.model(script).with_retry(wait_exponential_jitter=False)
    with rig.guard.session() as session:
        model.invoke("hi")

    assert rig.provider_calls == session.steps == 3
    assert [event.status for event in session.events()] == [
        CallStatus.ERROR,
        CallStatus.ERROR,
        CallStatus.OK,
    ]


BATCH = [[HumanMessage(text)] for text in ("one", "two", "three")]


def test_a_batch_that_is_refused_as_a_whole_holds_nothing() -> None:
    """`generate` reports all starts before the first call: none was sent."""
    rig = Rig(max_model_calls=2)
    model = rig.model(says())
    with rig.guard.session(session_id="s-1"):
        with pytest.raises(BudgetExceeded):
            model.generate(BATCH)
        account = rig.guard.account("s-1")

    assert account is not None
    assert (account.steps, account.held_nano_usd, rig.provider_calls) == (0, 0, 0)
    assert account.posted_nano_usd == 0


async def test_a_batch_that_is_refused_in_asyncio_holds_nothing() -> None:
    """The same for `agenerate`."""
    rig = Rig(max_model_calls=2)
    model = rig.model(says())
    async with rig.guard.session(session_id="s-1"):
        with pytest.raises(BudgetExceeded):
            await model.agenerate(BATCH)
        account = rig.guard.account("s-1")

    assert account is not None
    assert (account.steps, account.held_nano_usd, rig.provider_calls) == (0, 0, 0)


def test_a_refused_batch_keeps_the_hold_of_a_call_beside_it() -> None:
    """A stream that is open in the same run is being paid for, whatever follows."""
    rig = Rig(max_cost_usd="0.03")
    model = rig.model(says())

    def work(value: str) -> int:
        chunks = model.stream(value)
        next(chunks)
        with pytest.raises(CallRefused):  # One cent is held, so only two are left.
            model.generate(BATCH)
        return len(list(chunks))

    with rig.guard.session(session_id="s-1") as session:
        RunnableLambda(work).invoke("hi")

    assert rig.provider_calls == session.steps == len(session.events()) == 1
    assert str(session.spent) == "0.01"


def test_books_a_batch_that_passes() -> None:
    """Each of its prompts is a call."""
    rig = Rig(max_model_calls=3)
    model = rig.model(says())
    with rig.guard.session() as session:
        model.generate(BATCH)

    assert rig.provider_calls == session.steps == len(session.events()) == 3


@pytest.mark.parametrize("is_streamed", [False, True])
def test_bounds_a_reply_by_its_bill_only_if_it_was_billed(
    rig: Rig, is_streamed: bool
) -> None:
    """A long reply of another model, in a thread of both, was in no bill of this."""
    model = rig.model(says("word " * 1_000), max_tokens=10)
    first, second = HumanMessage("hi"), HumanMessage("go on")
    with rig.guard.session() as session:
        if is_streamed:
            chunks = list(model.stream([first]))
            reply = message_chunk_to_message(sum(chunks[1:], chunks[0]))
        else:
            reply = model.invoke([first])
        for earlier in (reply, AIMessage("x" * 6_000)):
            model.invoke([first, earlier, second])
            model.invoke([first])  # The last bill is of the beginning again.

    begun, own, _, foreign, _ = [event.reserved_nano_usd for event in session.events()]
    assert own < begun + 1_000 * 2_500
    assert foreign > own + 4_900 * 2_500


class Completions(BaseLLM):
    """Asks for all prompts at once, and has one report for all of them."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-3.5-turbo-instruct"}

    def _generate(
        self,
        prompts: list[str],
        stop: Any = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        return LLMResult(
            generations=[[Generation(text="done")] for _ in prompts],
            llm_output={
                "token_usage": {name: n * len(prompts) for name, n in usage.items()}
            },
        )


async def test_books_once_what_a_batch_of_completions_used(rig: Rig) -> None:
    """LangChain leaves the report of the whole batch to its first prompt."""
    model = Completions(cache=False)
    with rig.guard.session() as session:
        await model.ainvoke("alone")
        model.batch(["one", "two", "three"])
        await model.abatch(["four", "five"])

    used = [event.usage.input_tokens for event in session.events() if event.usage]
    assert used == [100, 300, 0, 0, 200, 0]
    assert {event.charge.status for event in session.events()} == {PriceStatus.PRICED}
    assert str(session.spent) == str(Decimal("0.00017") * 6)
    assert str(session.remaining) == str(1 - session.spent)


class SilentCompletions(Completions):
    """Says of no batch what it has used."""

    def _generate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        found = super()._generate(prompts, *args, **kwargs)
        return found.model_copy(update={"llm_output": {}})


def test_each_completion_of_a_batch_without_a_report_is_estimated(rig: Rig) -> None:
    with rig.guard.session() as session:
        SilentCompletions(cache=False).batch(["one", "two", "three"])

    costs = [event.charge.cost_nano_usd or 0 for event in session.events()]
    assert len(costs) == 3
    assert min(costs) > 0
    assert {e.charge.status for e in session.events()} == {PriceStatus.ESTIMATED}
