"""Layers: all that was billed, split without the text, and close to the truth."""

from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrails.core.layers import (
    LAYERS,
    Author,
    BilledPrompt,
    Layer,
    Piece,
    TokenRates,
    apportioned,
    billed_prompt,
    layers_of,
)
from guardrails.core.usage import TokenUsage
from guardrails.core.weights import weight_of
from tests.core.talks import talk, tokens_of

RATES = TokenRates(input=300, cache_read=30, cache_write=375, output=1_500, reasoning=0)

pieces_strategy = st.lists(
    st.builds(
        Piece,
        st.sampled_from(Author),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.sampled_from([None, Layer.MEMORY_RETRIEVAL, Layer.MEMORY_SUMMARY]),
    ),
    min_size=1,
    max_size=12,
)


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    """Draws what a provider may bill, cached prefixes included."""
    read, written, fresh = (draw(st.integers(0, 10**6)) for _ in range(3))
    hidden, shown = (draw(st.integers(0, 10**5)) for _ in range(2))
    return TokenUsage(
        input_tokens=read + written + fresh,
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=hidden + shown,
        reasoning_tokens=hidden,
    )


rates_strategy = st.none() | st.builds(TokenRates, *[st.integers(0, 10**14)] * 5)


@settings(max_examples=300)
@given(
    data=st.data(),
    all_pieces=pieces_strategy,
    known=st.integers(0, 12),
    first=usages(),
    usage=usages(),
    cost=st.none() | st.integers(0, 10**12),
    rates=rates_strategy,
)
def test_the_parts_of_a_call_are_what_was_billed(
    *,
    data: st.DataObject,
    all_pieces: list[Piece],
    known: int,
    first: TokenUsage,
    usage: TokenUsage,
    cost: int | None,
    rates: TokenRates | None,
) -> None:
    """To the token and the nano-dollar, whatever a provider bills for what goes on."""
    tools = data.draw(st.integers(1, 10**5))
    written = data.draw(st.none() | st.just(Piece(Author.MODEL, 3, 5)))
    earlier = billed_prompt(
        first, tools=tools, pieces=all_pieces[:known], written=written, earlier=None
    )
    prompt = billed_prompt(
        usage,
        tools=tools,
        pieces=all_pieces,
        written=written,
        earlier=data.draw(st.sampled_from([None, earlier])),
    )
    parts = layers_of(usage, prompt, pieces=all_pieces, cost_nano_usd=cost, rates=rates)

    assert len(prompt.tokens) == 1 + 2 * len(all_pieces)
    assert min((*prompt.tokens, *prompt.reply)) >= 0
    assert _tokens(parts, "response") == usage.output_tokens
    assert _tokens(parts) == usage.total_tokens
    costs = [part.cost_nano_usd for part in parts]
    if cost is None:
        assert set(costs) <= {None}
    elif usage.total_tokens:
        assert sum(found or 0 for found in costs) == cost
    assert [part.layer for part in parts] == sorted(
        (part.layer for part in parts), key=LAYERS.index
    )


def _tokens(parts: object, group: str | None = None) -> int:
    assert isinstance(parts, tuple)
    return sum(part.tokens for part in parts if group in (None, part.layer.group))


def test_the_split_is_close_to_the_truth() -> None:
    """Within 2 points of the input per layer on average, over 40 sessions."""
    errors: list[float] = []
    for seed in range(40):
        earlier: BilledPrompt | None = None
        for turn in talk(seed):
            pieces = [message.piece for message in turn.messages]
            visible = tokens_of(turn.written.text) + tokens_of(turn.written.calls)
            usage = TokenUsage(
                input_tokens=turn.input_tokens,
                output_tokens=visible + turn.reasoning_tokens,
                reasoning_tokens=turn.reasoning_tokens,
            )
            earlier = billed_prompt(
                usage,
                tools=weight_of(turn.tools),
                pieces=pieces,
                written=turn.written.piece,
                earlier=earlier,
            )
            parts = layers_of(usage, earlier, pieces=pieces, cost_nano_usd=None)
            found = {part.layer: part.tokens for part in parts}
            errors += [
                abs(found.get(layer, 0) - tokens) / turn.input_tokens
                for layer, tokens in turn.shares.items()
            ]

    assert 0.001 < mean(errors) <= 0.02


def test_what_goes_on_from_a_billed_prompt_is_not_guessed_again() -> None:
    """The pieces keep their tokens, and the reply has those of its output."""
    asked = [Piece(Author.SYSTEM, 900), Piece(Author.PERSON, 100)]
    first = billed_prompt(
        TokenUsage(input_tokens=1_000, output_tokens=80, reasoning_tokens=30),
        tools=0,
        pieces=asked,
        written=Piece(Author.MODEL, 10, 40),
        earlier=None,
    )
    went_on = [
        *asked,
        Piece(Author.MODEL, 7_777, 7_777),
        Piece(Author.TOOL, 5),
        Piece(Author.PERSON, 15),
    ]
    second = billed_prompt(
        TokenUsage(input_tokens=1_450, output_tokens=10),
        tools=0,
        pieces=went_on,
        written=None,
        earlier=first,
    )

    assert first.tokens == (0, 900, 0, 100, 0)
    assert first.reply == (10, 40)
    assert second.tokens == (0, 900, 0, 100, 0, 10, 40, 100, 0, 300, 0)


def test_a_bill_that_does_not_go_on_is_split_anew() -> None:
    """A provider that cut the history bills less than what was there before."""
    pieces = [Piece(Author.SYSTEM, 300), Piece(Author.PERSON, 100)]
    earlier = BilledPrompt(tokens=(0, 5_000, 0), reply=(10, 0))

    found = billed_prompt(
        TokenUsage(input_tokens=400),
        tools=0,
        pieces=pieces,
        written=None,
        earlier=earlier,
    )

    assert found.tokens == (0, 300, 0, 100, 0)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([Piece(Author.PERSON, 1, 0)], {"prompt.user": 1}),
        ([Piece(Author.MODEL, 1, 2)], {"prompt.user": 1, "tool.call": 2}),
        ([Piece(Author.SYSTEM, 1, 0)], {"prompt.system": 1}),
        (
            [
                Piece(Author.PERSON, 1),
                Piece(Author.MODEL, 2, 4),
                Piece(Author.TOOL, 8),
                Piece(Author.MODEL, 16),
                Piece(Author.PERSON, 32),
                Piece(Author.MODEL, 64, 128),
                Piece(Author.TOOL, 256),
            ],
            {
                "memory.history": 1 + 2 + 16,
                "tool.call": 4 + 128,
                "tool.result": 8 + 256,
                "prompt.user": 32 + 64,
            },
        ),
        (
            [
                Piece(Author.PERSON, 1),
                Piece(Author.PERSON, 2, 0, Layer.MEMORY_RETRIEVAL),
                Piece(Author.TOOL, 4, 0, Layer.MEMORY_RETRIEVAL),
                Piece(Author.SYSTEM, 8, 0, Layer.MEMORY_SUMMARY),
            ],
            {
                "prompt.user": 1,
                "memory.retrieval": 2,
                "tool.result": 4,
                "memory.summary": 8,
            },
        ),
    ],
)
def test_every_message_has_its_layer(
    pieces: list[Piece], expected: dict[str, int]
) -> None:
    """The turn begins with the last person; tools are tools in any turn."""
    usage = TokenUsage(input_tokens=sum(piece.text + piece.calls for piece in pieces))
    prompt = billed_prompt(usage, tools=0, pieces=pieces, written=None, earlier=None)
    parts = layers_of(usage, prompt, pieces=pieces, cost_nano_usd=None)

    assert {part.layer.value: part.tokens for part in parts} == expected


def test_code_can_say_what_the_turn_is_for() -> None:
    """A call that sums a history up is sent that history as a person's message."""
    pieces = [Piece(Author.SYSTEM, 10), Piece(Author.PERSON, 90)]
    usage = TokenUsage(input_tokens=100)
    prompt = billed_prompt(usage, tools=0, pieces=pieces, written=None, earlier=None)
    parts = layers_of(
        usage, prompt, pieces=pieces, cost_nano_usd=1_000, mark=Layer.MEMORY_SUMMARY
    )

    assert [(part.layer.value, part.cost_nano_usd) for part in parts] == [
        ("prompt.system", 100),
        ("memory.summary", 900),
    ]


def test_a_cached_prefix_makes_what_is_in_it_cheap() -> None:
    """The definitions of tools come first, so that a cache holds them first."""
    pieces = [Piece(Author.SYSTEM, 200), Piece(Author.PERSON, 100)]
    usage = TokenUsage(
        input_tokens=1_000,
        cache_read_tokens=700,
        cache_write_tokens=200,
        output_tokens=10,
    )
    prompt = billed_prompt(usage, tools=700, pieces=pieces, written=None, earlier=None)
    cost = 700 * 30 + 200 * 375 + 100 * 300 + 10 * 1_500
    parts = layers_of(usage, prompt, pieces=pieces, cost_nano_usd=cost, rates=RATES)

    assert {part.layer.value: part.cost_nano_usd for part in parts} == {
        "tool.schema": 700 * 30,
        "prompt.system": 200 * 375,
        "prompt.user": 100 * 300,
        "response.text": 10 * 1_500,
    }


def test_of_a_prompt_that_nobody_saw_only_the_answer_is_in_a_layer() -> None:
    usage = TokenUsage(input_tokens=100, output_tokens=20, reasoning_tokens=5)
    prompt = billed_prompt(usage, tools=0, pieces=(), written=None, earlier=None)
    parts = layers_of(usage, prompt, pieces=None, cost_nano_usd=1_200)

    assert [(part.layer.value, part.tokens, part.cost_nano_usd) for part in parts] == [
        ("response.text", 15, 150),
        ("response.reasoning", 5, 50),
    ]


def test_shares_go_to_the_largest_remainders() -> None:
    assert apportioned(10, [1, 1, 1]) == [4, 3, 3]
    assert apportioned(7, [0, 3, 1]) == [0, 5, 2]
    assert apportioned(5, [0, 0]) == [0, 0]
    assert apportioned(0, []) == []


def test_a_guess_knows_prose_from_data_and_looks_at_little_of_a_long_text() -> None:
    prose = "please find out when the order will arrive at this address, " * 20
    data = '{"id": 83625, "at": "2026-11-24T10:00:00Z", "price": 12.99}, ' * 20

    assert weight_of(prose) < 0.6 * weight_of(data)
    assert weight_of(data * 50) == pytest.approx(50 * weight_of(data), rel=0.02)
    assert 20 <= weight_of("東京は日本の首都です。") / 10 <= 100
