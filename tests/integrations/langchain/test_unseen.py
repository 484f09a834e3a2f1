"""What of a prompt only its provider sees is part of what is reserved."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata

from guardrails import BudgetExceeded
from guardrails.core.estimates import UNSEEN_TOKENS_FLOOR, PromptShape
from guardrails_langchain.reading.shapes import prompt_shape
from guardrails_langchain.reading.translate import model_call
from tests.integrations.langchain.rig import FlatPrices, Rig, Script

PDF = "https://example.com/report.pdf"
CONTEXT_TOKENS = 128_000
"""What gpt-4o reads, by genai-prices."""
SEARCH = {"type": "web_search"}
ASKED = [HumanMessage("Go on.")]
STRICT = {"defaults": {"estimate": "strict"}}


def bills(*input_tokens: int, output_tokens: int = 50) -> Script:
    """A model whose calls are billed so many tokens."""

    def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage:
        billed = input_tokens[min(number, len(input_tokens) - 1)]
        usage = UsageMetadata(
            input_tokens=billed,
            output_tokens=output_tokens,
            total_tokens=billed + output_tokens,
        )
        return AIMessage("so it is", usage_metadata=usage)

    return script


@pytest.mark.parametrize(
    "block",
    [
        {"type": "file", "url": PDF, "mime_type": "application/pdf"},
        {"type": "file", "source_type": "url", "url": PDF},
        {"type": "file", "source_type": "id", "id": "file-1"},
        {"type": "file", "file_id": "file-1"},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "input_file", "file_url": PDF},
        {"type": "document", "source": {"type": "url", "url": PDF}},
        {"type": "document", "source": {"type": "file", "file_id": "file-1"}},
        {"document": {"format": "pdf", "source": {"s3Location": {"uri": "s3://b/k"}}}},
        {"type": "media", "mime_type": "video/mp4", "file_uri": "gs://bucket/film"},
        {"type": "video", "url": "https://example.com/film"},
    ],
)
def test_a_document_that_is_only_named_may_be_long(block: Mapping[str, Any]) -> None:
    """Also in what a tool has answered."""
    inside = [{"type": "tool_result", "content": [dict(block)]}]
    messages = [
        HumanMessage([dict(block), "Sum this up."]),
        ToolMessage([dict(block)], tool_call_id="c-1"),
        HumanMessage(inside),
    ]
    shape = prompt_shape(messages=[messages], prompts=None, invocation_params=None)

    assert shape.unseen_parts == len(messages)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a"}},
        {"type": "file", "file_id": "file-1", "mime_type": "image/png"},
        {"type": "file", "url": "data:application/pdf;base64,JVBERi0x"},
        {"type": "file", "base64": "JVBERi0x", "mime_type": "application/pdf"},
        {"type": "document", "source": {"type": "text", "data": "Our terms: " + PDF}},
        {"type": "text", "text": PDF},
    ],
)
def test_what_is_seen_or_an_image_is_bounded_as_it_is(block: Mapping[str, Any]) -> None:
    messages = [HumanMessage([dict(block)]), HumanMessage(PDF)]
    shape = prompt_shape(messages=[messages], prompts=None, invocation_params=None)

    assert shape.unseen_parts == 0


@pytest.mark.parametrize(
    ("params", "is_continued"),
    [
        ({"previous_response_id": "resp_1"}, True),
        ({"extra_body": {"conversation": "conv_1"}}, True),
        ({"conversation": {"id": "conv_1"}}, True),
        ({"prompt": {"id": "pmpt_1"}}, True),
        ({"cached_content": "cachedContents/1"}, True),
        ({"previous_response_id": None, "conversation": None}, False),
        ({"prompt": "Say so.", "model_kwargs": {"seed": 1}}, False),
    ],
)
def test_what_a_request_goes_on_from(
    params: Mapping[str, Any], is_continued: bool
) -> None:
    shape = prompt_shape(messages=[ASKED], prompts=None, invocation_params=params)

    assert shape.is_continued == is_continued


@pytest.mark.parametrize(
    ("tools", "has_tools_there"),
    [
        ([{"type": "web_search_20250305", "name": "web_search"}], True),
        ([{"google_search": {}}, {"code_execution": {}}], True),
        ([{"type": "function", "function": {"name": "add"}}, {"type": "mcp"}], True),
        ([{"type": "function", "function": {"name": "web_search"}}], False),
        ([{"name": "search", "input_schema": {"type": "object"}}], False),
        ([{"type": "bash_20250124", "name": "bash"}], False),
        ([{"enterprise_web_search": {}}], True),
        ([{"systemTool": {"name": "nova_grounding"}}], True),
        ([{1: "a number is no name"}], False),
    ],
)
@pytest.mark.parametrize("group", [None, "toolConfig"])
def test_which_tools_a_provider_runs(
    tools: list[Mapping[str, Any]], has_tools_there: bool, group: str | None
) -> None:
    asked: dict[str, Any] = {"tools": tools}
    params = asked if group is None else {group: asked}
    shape = prompt_shape(messages=[ASKED], prompts=None, invocation_params=params)

    assert shape.has_tools_there == has_tools_there


def test_no_server_of_tools_is_none() -> None:
    params: dict[str, Any] = {"mcp_servers": [], "tools": []}
    shape = prompt_shape(messages=[ASKED], prompts=None, invocation_params=params)

    assert not shape.has_unseen


def test_what_a_model_was_made_with_counts_too() -> None:
    """LangChain does not pass all of it on with each call."""
    google = pytest.importorskip("langchain_google_genai")
    anthropic = pytest.importorskip("langchain_anthropic")
    server = {"type": "url", "url": "http://127.0.0.1:9", "name": "files"}
    models = [
        google.ChatGoogleGenerativeAI(
            model="gemini-2.5-flash", google_api_key="none", cached_content="kept/1"
        ),
        anthropic.ChatAnthropic(
            model="claude-sonnet-4-5", api_key="none", mcp_servers=[server]
        ),
    ]
    shapes: list[PromptShape | None] = []

    class Start(BaseCallbackHandler):
        raise_error = True

        def on_chat_model_start(
            self, serialized: Any, messages: Any, **kwargs: Any
        ) -> Any:
            call = model_call(
                serialized=serialized,
                messages=messages,
                prompts=None,
                invocation_params=kwargs["invocation_params"],
                metadata=kwargs["metadata"],
            )
            shapes.append(call.prompt)
            raise InterruptedError

    for model in models:
        with pytest.raises(InterruptedError):
            model.invoke("Go on.", {"callbacks": [Start()]})

    assert [shape and shape.is_continued for shape in shapes] == [True, False]
    assert [shape and shape.has_tools_there for shape in shapes] == [False, True]


def test_answers_that_go_on_from_earlier_ones_pass_no_limit() -> None:
    """Each is billed all before it, of which its own message says nothing."""
    said, output_tokens, billed = 9_000, 2_000, 60_000
    growing = range(billed, 3_000_000, said + output_tokens)
    rig = Rig(prices=None, max_cost_usd="1.50")
    model = rig.model(bills(*growing, output_tokens=output_tokens), max_tokens=2_000)
    with rig.guard.session() as session:
        model.invoke("x" * billed)
        with pytest.raises(BudgetExceeded):
            while True:
                model.invoke("x" * said, previous_response_id="resp_1")

    assert session.steps >= 4
    assert session.spent <= Decimal("1.50")
    for event in session.events():
        assert event.charge.cost_nano_usd is not None
        assert event.charge.cost_nano_usd <= event.reserved_nano_usd


def test_a_document_by_its_url_counts_until_it_is_billed() -> None:
    """Then the bill says how long it is, of the next one and in the history."""
    rig = Rig(prices=None, max_cost_usd="10")
    model = rig.model(bills(60_000, 60_100, 60_000))
    asked = HumanMessage([{"type": "file", "url": PDF}, "Sum this up."])
    with rig.guard.session() as session:
        answer = model.invoke([asked])
        model.invoke([asked, answer, HumanMessage("Why?")])
        model.invoke([HumanMessage([{"type": "file", "url": PDF}])])
    first, second, third = (
        (event.reserved_nano_usd - 300 * 10_000) // 2_500 for event in session.events()
    )

    assert UNSEEN_TOKENS_FLOOR < first < UNSEEN_TOKENS_FLOOR + 10_000
    assert 60_050 <= second < 60_200
    assert third >= 60_000


def test_strictly_all_that_the_model_reads_is_reserved() -> None:
    """Unless it was billed before."""
    rig = Rig(config=STRICT, prices=None, max_cost_usd="10")
    model = rig.model(bills(60_000))
    asked = HumanMessage([{"type": "file", "url": PDF}])
    with rig.guard.session() as session:
        answer = model.invoke([asked])
        model.invoke([asked, answer, HumanMessage("Why?")])
        model.invoke("Go on.", previous_response_id="resp_1")
    first, again, continued = (event.reserved_nano_usd for event in session.events())

    assert first == continued == CONTEXT_TOKENS * 2_500 + 300 * 10_000
    assert again < first // 2


class ForgetfulPrices(FlatPrices):
    """A price book that fails when it is asked how much a model reads."""

    def context_tokens(
        self, *, provider: str | None, model: str, now_ms: int
    ) -> int | None:
        raise KeyError(model)


@pytest.mark.parametrize("prices", [FlatPrices(), ForgetfulPrices()])
def test_how_much_a_model_reads_need_not_be_known(prices: FlatPrices) -> None:
    """A part is reserved then, and the call is made."""
    rig = Rig(config=STRICT, prices=prices, max_tokens=2 * UNSEEN_TOKENS_FLOOR)
    model = rig.model(bills(1_000))
    with rig.guard.session() as session:
        model.invoke("Go on.", previous_response_id="resp_1")
        with pytest.raises(BudgetExceeded):
            model.invoke("Go on.", previous_response_id="resp_1", tools=[SEARCH])

    assert session.steps == 1
