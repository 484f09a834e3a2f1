"""What real integrations make of a provider's answers is its bill, to the nano-USD."""

import base64
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatResult
from langchain_google_genai import ChatGoogleGenerativeAI

from guardrails import Event, Guard, PriceStatus
from guardrails.core.calls import CallStatus
from guardrails.core.estimates import OUTPUT_TOKENS_FLOOR
from guardrails_langchain.testing import ScriptedChatModel
from tests.integrations.langchain.provider import (
    GEMINI,
    Answer,
    Provider,
    claude_says,
    claude_streams,
    claude_usage,
    gemini_draws,
    gemini_hears,
    gemini_says,
    gemini_streams,
    gemini_usage,
)

pytestmark = [
    # What a model costs stays as it is when it is not offered any more.
    pytest.mark.filterwarnings("ignore:The model 'claude:DeprecationWarning"),
    # Of the form of an answer, which is meant to be wrong.
    pytest.mark.filterwarnings("ignore:Pydantic serializer:UserWarning"),
]


def claude(provider: Provider) -> ChatAnthropic:
    return ChatAnthropic(  # pyright: ignore[reportCallIssue]
        model="claude-sonnet-4-5",
        base_url=provider.url,
        api_key="none",  # pyright: ignore[reportArgumentType]
        max_retries=0,
    )


def gemini(provider: Provider, model: str = GEMINI) -> ChatGoogleGenerativeAI:
    return ChatGoogleGenerativeAI(
        model=model, base_url=provider.url, google_api_key="none", max_retries=1
    )


@pytest.fixture
def guard() -> Iterator[Guard]:
    with contextlib.closing(Guard(store="memory://", max_cost_usd="50")) as guard:
        yield guard


def only_event(guard: Guard) -> Event:
    """The one call, whose cost its account has, with nothing left on hold."""
    (event,) = guard.session(session_id="s-1").events()
    account = guard.account("s-1")
    assert account is not None
    assert account.posted_nano_usd == event.charge.cost_nano_usd
    assert account.held_nano_usd == 0
    return event


@pytest.mark.parametrize(
    "usage",
    [
        claude_usage(),
        claude_usage(500, read=400, written_5m=60, written_1h=40),
        claude_usage(250_000),
        claude_usage(1_000, read=210_000),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_claude_is_booked_as_billed(
    guard: Guard, usage: dict[str, Any], is_streamed: bool
) -> None:
    says = claude_streams if is_streamed else claude_says
    with Provider(says(usage)) as provider, guard.session(session_id="s-1"):
        asked(claude(provider), is_streamed=is_streamed)

    event = only_event(guard)
    assert event.charge.cost_nano_usd == provider.bill_nano_usd
    assert event.charge.status is PriceStatus.PRICED


@pytest.mark.parametrize(
    "answer",
    [
        gemini_says(gemini_usage()),
        gemini_says(gemini_usage(thoughts=100, cached=400)),
        gemini_says(gemini_usage(by_tools=500)),
        gemini_says(gemini_usage(250_000)),
        gemini_says(gemini_usage(), queries=["a", "b"]),
        gemini_streams(gemini_usage(output=3), gemini_usage(output=9, thoughts=70)),
    ],
)
def test_gemini_is_booked_as_billed(guard: Guard, answer: Answer) -> None:
    with Provider(answer) as provider, guard.session(session_id="s-1"):
        asked(gemini(provider), is_streamed=bool(answer.parts))

    event = only_event(guard)
    assert event.charge.cost_nano_usd == provider.bill_nano_usd
    assert event.charge.status is PriceStatus.PRICED


def asked(model: BaseChatModel, *, is_streamed: bool) -> None:
    if is_streamed:
        list(model.stream("hi"))
    else:
        model.invoke("hi")


# --- what LangChain does not tell apart ---------------------------------------------

SPEECH = {
    "type": "media",
    "mime_type": "audio/mp3",
    "data": base64.b64encode(bytes(16 * 700)).decode(),
}


@pytest.mark.parametrize(
    "sound", [SPEECH, {**SPEECH, "data": None, "file_uri": "files/speech"}]
)
def test_what_may_be_sound_is_booked_as_sound(
    guard: Guard, sound: dict[str, Any]
) -> None:
    """Gemini reports how much was; its integration does not hand that on."""
    sound = {name: value for name, value in sound.items() if value is not None}
    question = HumanMessage([{"type": "text", "text": "Who speaks?"}, sound])
    answer = gemini_hears(text=400, sound=600, output=200)
    with Provider(answer) as provider, guard.session(session_id="s-1"):
        gemini(provider, "gemini-2.5-flash").invoke([question])

    event = only_event(guard)
    assert event.charge.status is PriceStatus.ESTIMATED
    assert event.charge.cost_nano_usd is not None
    assert event.charge.cost_nano_usd >= provider.bill_nano_usd
    assert event.charge.cost_nano_usd == 1_000 * 1_000 + 200 * 2_500
    assert (event.reserved_nano_usd or 0) >= event.charge.cost_nano_usd


def test_text_alone_is_not_booked_as_sound(guard: Guard) -> None:
    answer = gemini_hears(text=400, sound=0, output=200)
    with Provider(answer) as provider, guard.session(session_id="s-1"):
        gemini(provider, "gemini-2.5-flash").invoke("hi")

    event = only_event(guard)
    assert event.charge.cost_nano_usd == provider.bill_nano_usd
    assert event.charge.status is PriceStatus.PRICED


def test_an_image_is_booked_as_an_image(guard: Guard) -> None:
    """It costs twelve times as much as text, which its report may say it is."""
    answer = gemini_draws(prompt=1_000, thoughts=50, image=1_290)
    with Provider(answer) as provider, guard.session(session_id="s-1"):
        gemini(provider, "gemini-2.5-flash-image").invoke("hi")

    event = only_event(guard)
    assert event.charge.cost_nano_usd == provider.bill_nano_usd
    assert event.charge.status is PriceStatus.ESTIMATED


# --- what was left midway ---------------------------------------------------------

RUNNING = [gemini_usage(output=number * 3) for number in range(1, 6)]


def leave(model: BaseChatModel) -> None:
    for _ in model.stream("hi"):
        break


def test_a_running_report_of_a_stream_that_was_left_is_an_estimate(
    guard: Guard,
) -> None:
    """Gemini goes on until it notices, and bills what it has written by then."""
    with Provider(gemini_streams(*RUNNING)) as provider:
        with guard.session(session_id="s-1"):
            leave(gemini(provider))

    event = only_event(guard)
    assert event.status is CallStatus.BROKEN_OFF
    assert event.charge.status is PriceStatus.ESTIMATED
    assert event.usage is not None
    assert event.usage.input_tokens == 1_000  # Of that the report is certain.
    assert event.usage.output_tokens >= len("word 0 ")


def test_a_running_report_of_a_stream_that_broke_is_an_estimate(guard: Guard) -> None:
    with Provider(gemini_streams(*RUNNING, sent=2)) as provider:
        with contextlib.suppress(Exception), guard.session(session_id="s-1"):
            list(gemini(provider).stream("hi"))

    event = only_event(guard)
    assert event.charge.status is PriceStatus.ESTIMATED
    assert event.usage is not None
    assert event.usage.input_tokens == 1_000
    assert event.usage.output_tokens >= len("word 0 word 1 ")


def test_a_running_report_of_a_stream_that_ended_too_early_is_an_estimate(
    guard: Guard,
) -> None:
    """As one that a proxy ends in order: the model has not said that it has ended."""
    answer = gemini_streams(*RUNNING)
    with Provider(replace(answer, parts=answer.parts[:2])) as provider:
        with guard.session(session_id="s-1"):
            list(gemini(provider).stream("hi"))

    event = only_event(guard)
    assert event.status is CallStatus.OK
    assert event.charge.status is PriceStatus.ESTIMATED
    assert event.usage is not None
    assert event.usage.output_tokens >= len("word 0 word 1 ")


@pytest.mark.parametrize("last", [1, 5])
def test_a_stream_that_said_that_it_has_finished_is_booked_as_billed(
    guard: Guard, last: int
) -> None:
    """Also if its reader leaves before its end."""
    with Provider(gemini_streams(*RUNNING[:last])) as provider:
        with guard.session(session_id="s-1"):
            for part in gemini(provider).stream("hi"):
                if part.response_metadata.get("finish_reason"):
                    break

    event = only_event(guard)
    assert event.charge.cost_nano_usd == provider.bill_nano_usd
    assert event.charge.status is PriceStatus.PRICED


# --- answers of a wrong form --------------------------------------------------------


@pytest.mark.parametrize(
    "members",
    [
        {"content": None},
        {"usage": {**claude_usage(), "input_tokens": "1000", "output_tokens": "200"}},
    ],
)
def test_an_answer_that_cannot_be_read_is_booked_by_its_report(
    guard: Guard, members: dict[str, Any]
) -> None:
    """The integration fails on it as it would before anything was sent."""
    answer = claude_says(claude_usage(), **members)
    with Provider(answer) as provider, guard.session(session_id="s-1"):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            claude(provider).invoke("hi")

    event = only_event(guard)
    assert event.status is CallStatus.ERROR
    assert event.charge.cost_nano_usd == provider.bill_nano_usd


def test_an_answer_that_cannot_be_read_and_reports_nothing_is_booked_in_full(
    guard: Guard,
) -> None:
    answer = claude_says(claude_usage(), content=None, usage=None)
    with Provider(answer) as provider, guard.session(session_id="s-1"):
        with pytest.raises(TypeError):
            claude(provider).invoke("hi")

    event = only_event(guard)
    assert event.usage is not None
    assert event.usage.output_tokens == OUTPUT_TOKENS_FLOOR  # All that was reserved.
    assert event.charge.status is PriceStatus.ESTIMATED


def test_a_message_that_cannot_be_sent_is_not_booked_in_full(guard: Guard) -> None:
    """Its error is of the same kind, but there is no answer."""
    with Provider() as provider, guard.session(session_id="s-1"):
        with pytest.raises((TypeError, ValueError, KeyError)):
            claude(provider).invoke([HumanMessage([{"text": "no type"}])])

    event = only_event(guard)
    assert not provider.requests
    assert event.charge.cost_nano_usd < (event.reserved_nano_usd or 0)


class _Own(ScriptedChatModel):
    """A model of somebody's own, which fails on what it is about to send."""

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        data = {"messages": [message.content for message in messages]}
        data["options"] = kwargs["options"]
        raise AssertionError("there are none")


def test_a_request_that_cannot_be_sent_is_no_answer(guard: Guard) -> None:
    model = _Own(script=lambda *_: AIMessage("?"), model="gpt-4o", provider="openai")
    with guard.session(session_id="s-1"), pytest.raises(KeyError):
        model.invoke("hi")

    event = only_event(guard)
    assert event.charge.cost_nano_usd < (event.reserved_nano_usd or 0)
