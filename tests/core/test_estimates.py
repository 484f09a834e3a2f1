"""Estimates: never below what is billed, and close once a prompt was billed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.estimates import (
    MESSAGE_OVERHEAD_TOKENS,
    OUTPUT_TOKENS_FLOOR,
    PREAMBLE_TOKENS_MAX,
    Anchor,
    PromptShape,
    input_tokens_max,
    output_tokens_max,
)
from guardrails.core.layers import Author, Piece
from guardrails.core.weights import MESSAGE_WEIGHT


def shape(*messages: int, replies: tuple[int, ...] = (), tools: int = 0) -> PromptShape:
    """Builds the shape of messages with these bounds; `replies` are the model's."""
    return PromptShape(
        tools_tokens_max=tools,
        message_tokens_max=messages,
        is_reply=tuple(index in replies for index in range(len(messages))),
    )


def test_without_a_billed_prompt_every_byte_may_be_a_token() -> None:
    """The tools and what a provider adds unseen are part of it."""
    assert input_tokens_max(shape(100, 50, tools=30)) == PREAMBLE_TOKENS_MAX + 180
    assert input_tokens_max(shape()) == PREAMBLE_TOKENS_MAX


def test_a_prompt_that_goes_on_costs_what_was_billed_and_what_is_new() -> None:
    """The model's own reply was billed as output, so only its frame is added."""
    anchor = Anchor(shape=shape(1000, 500, tools=30), billed_tokens=400)
    longer = shape(1000, 500, 700, 20, replies=(2,), tools=30)

    assert input_tokens_max(longer, anchor) == 400 + MESSAGE_OVERHEAD_TOKENS + 20


def test_a_message_of_a_person_is_counted_in_full() -> None:
    """Only a reply was billed before."""
    anchor = Anchor(shape=shape(1000), billed_tokens=400)

    assert input_tokens_max(shape(1000, 700), anchor) == 400 + 700


def test_a_second_reply_is_counted_in_full() -> None:
    """Only the reply that came right after the billed prompt was billed with it."""
    anchor = Anchor(shape=shape(1000), billed_tokens=400)
    longer = shape(1000, 700, 600, replies=(1, 2))

    assert input_tokens_max(longer, anchor) == 400 + MESSAGE_OVERHEAD_TOKENS + 600


def test_a_reply_of_another_model_is_counted_in_full() -> None:
    """The model wrote something else, or nothing: this was not in its bill."""
    asked = Piece(Author.PERSON, 900)
    anchor = Anchor(
        shape=replace(shape(1000), pieces=(asked,)),
        billed_tokens=400,
        written=Piece(Author.MODEL, 50, 7),
    )

    def bound(anchor: Anchor, *, text: int, calls: int) -> int:
        reply = Piece(Author.MODEL, MESSAGE_WEIGHT + text, calls)
        longer = shape(1000, 700, replies=(1,))
        return input_tokens_max(replace(longer, pieces=(asked, reply)), anchor)

    assert bound(anchor, text=50, calls=7) == 400 + MESSAGE_OVERHEAD_TOKENS
    assert bound(anchor, text=60, calls=7) == 400 + 700
    assert bound(anchor, text=50, calls=0) == 400 + 700
    assert bound(replace(anchor, written=None), text=50, calls=7) == 400 + 700


def test_another_prompt_of_the_same_length_is_bounded_by_its_bytes() -> None:
    """Digits have more tokens than as many letters."""
    letters = replace(shape(1000), pieces=(Piece(Author.PERSON, 250),))
    digits = replace(shape(1000), pieces=(Piece(Author.PERSON, 400),))
    anchor = Anchor(shape=letters, billed_tokens=260)

    assert input_tokens_max(letters, anchor) == 260
    assert input_tokens_max(digits, anchor) == input_tokens_max(digits)


def test_the_same_prompt_again_costs_what_it_was_billed_at_most() -> None:
    """Its output is counted along, which only makes the bound looser."""
    anchor = Anchor(shape=shape(1000), billed_tokens=400)

    assert input_tokens_max(shape(1000), anchor) == 400


@pytest.mark.parametrize(
    "changed",
    [
        shape(999, 500, 20, tools=30),
        shape(500, 20, tools=30),
        shape(1000, tools=30),
        shape(1000, 500, 20, tools=31),
        shape(1000, 20, 500, tools=30),
        shape(tools=30),
    ],
    ids=["edited", "trimmed at the start", "trimmed", "tools", "order", "empty"],
)
def test_a_history_that_was_changed_is_bounded_by_its_bytes(
    changed: PromptShape,
) -> None:
    """What was billed says nothing about another prompt."""
    anchor = Anchor(shape=shape(1000, 500, tools=30), billed_tokens=1)

    assert input_tokens_max(changed, anchor) == input_tokens_max(changed)


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1),
    st.integers(0, 500),
    st.data(),
)
def test_the_bound_is_never_below_what_is_billed(
    sizes: list[tuple[int, int]], tools: int, data: st.DataObject
) -> None:
    """A conversation is billed turn by turn, with any tokenizer below the bounds."""

    def at_most(bound: int) -> int:
        return data.draw(st.integers(0, bound))

    bounds: list[int] = []
    replies: list[int] = []
    truth = at_most(PREAMBLE_TOKENS_MAX) + at_most(tools)
    anchor = None
    for asked, answered in sizes:
        # A person's turn: its text and frame are within the bound of the message.
        bounds.append(asked + MESSAGE_OVERHEAD_TOKENS)
        truth += at_most(bounds[-1])
        prompt = shape(*bounds, replies=tuple(replies), tools=tools)
        assert truth <= input_tokens_max(prompt, anchor)
        output = at_most(answered)
        anchor = Anchor(shape=prompt, billed_tokens=truth + output)
        # The reply comes back as input: its output tokens, and a frame around it.
        replies.append(len(bounds))
        bounds.append(answered + MESSAGE_OVERHEAD_TOKENS)
        truth += output + at_most(MESSAGE_OVERHEAD_TOKENS)


@pytest.mark.parametrize(
    ("requested", "largest_seen", "is_strict", "bound"),
    [
        (None, 0, False, OUTPUT_TOKENS_FLOOR),
        (None, 10_000, False, 10_000),
        (None, 10_000, True, 10_000),
        (500, 0, False, 500),
        (500, 10_000, False, 500),
        (64_000, 0, False, OUTPUT_TOKENS_FLOOR),
        (64_000, 10_000, False, 10_000),
        (64_000, 0, True, 64_000),
        (0, 0, False, 0),
    ],
)
def test_output_is_bounded_by_the_request_or_by_experience(
    requested: int | None, largest_seen: int, is_strict: bool, bound: int
) -> None:
    """A model's default of 64,000 refuses no first call, unless it is strict."""
    found = output_tokens_max(
        requested=requested, largest_seen=largest_seen, is_strict=is_strict
    )
    assert found == bound
