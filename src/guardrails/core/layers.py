"""Layers: what the tokens of a model call were for, from sizes alone.

A provider bills input and output as two numbers. What is known beside them is who
wrote each piece of the prompt, and a guess of its size: that splits the bill, and
keeps no text. Once a prompt was billed, only what was added to it is guessed: the
pieces before it keep their tokens, and the model's reply has those of its output.
The cost follows the order on the wire, in which a provider's cache holds a prefix:
tool definitions, then messages. Both add up to what was billed, to the token and
the nano-dollar; how they are split is an estimate.
"""

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from guardrails.core.usage import TokenUsage

__all__ = [
    "INPUT_LAYERS",
    "LAYERS",
    "LAYER_GROUPS",
    "Author",
    "BilledPrompt",
    "Layer",
    "LayerPart",
    "Piece",
    "TokenRates",
    "apportioned",
    "billed_prompt",
    "layers_of",
]


class Layer(enum.StrEnum):
    """What tokens are for: what would have to change to need fewer of them."""

    PROMPT_SYSTEM = "prompt.system"
    """Instructions: messages of the system or the developer."""
    PROMPT_USER = "prompt.user"
    """The current turn: from the last message of a person on."""
    TOOL_SCHEMA = "tool.schema"
    """Definitions of tools and of the shape of answers."""
    TOOL_CALL = "tool.call"
    """Calls that the model made before, with their arguments."""
    TOOL_RESULT = "tool.result"
    """What tools returned, in this turn or an earlier one."""
    MEMORY_HISTORY = "memory.history"
    """What was said in earlier turns."""
    MEMORY_RETRIEVAL = "memory.retrieval"
    """What was looked up, as far as it is marked."""
    MEMORY_SUMMARY = "memory.summary"
    """Summaries of earlier turns, as far as they are marked."""
    RESPONSE_TEXT = "response.text"
    RESPONSE_REASONING = "response.reasoning"
    """Hidden reasoning."""
    RESPONSE_TOOL_CALL = "response.tool_call"

    @property
    def group(self) -> str:
        """`prompt`, `tool`, `memory` or `response`."""
        return self.value.partition(".")[0]


LAYERS = tuple(Layer)
"""In the order in which stores keep them. Later versions add at the end."""

INPUT_LAYERS = tuple(layer for layer in LAYERS if layer.group != "response")

LAYER_GROUPS = ("prompt", "tool", "memory", "response")


class Author(enum.IntEnum):
    """Who wrote a message."""

    SYSTEM = 0
    PERSON = 1
    MODEL = 2
    TOOL = 3


class Piece(NamedTuple):
    """One message: who wrote it, and guesses of its sizes in any one unit."""

    author: Author
    text: int
    """Of all that is no call of a tool."""
    calls: int = 0
    """Of calls of tools, with their arguments."""
    mark: Layer | None = None
    """What it is for, if somebody said so. Calls and results of tools stay those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPart:
    """What one layer has of a call. An estimate; the parts of a call add up."""

    layer: Layer
    tokens: int
    cost_nano_usd: int | None
    """`None` if the cost of the call is not known."""


class TokenRates(NamedTuple):
    """What a token costs, in any one unit."""

    input: int
    cache_read: int
    cache_write: int
    output: int
    reasoning: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledPrompt:
    """A prompt that was billed, split into its pieces, and what it was answered."""

    tokens: tuple[int, ...]
    """Of the tool definitions, then of text and calls of each message."""
    reply: tuple[int, int]
    """Output that comes back in the next prompt: text, and calls of tools."""


def billed_prompt(
    usage: TokenUsage,
    *,
    tools: int,
    pieces: Sequence[Piece],
    written: Piece | None,
    earlier: BilledPrompt | None,
) -> BilledPrompt:
    """Splits what was billed for a prompt and its answer.

    Args:
        usage: As billed.
        tools: The guess of the tool definitions' size.
        pieces: The messages, in their order.
        written: What the model wrote; `None` if that is not known.
        earlier: The prompt that this one goes on from, with the same first messages.
    """
    guesses = [tools]
    for piece in pieces:
        guesses += (piece.text, piece.calls)
    visible = usage.output_tokens - usage.reasoning_tokens
    sizes = (written.text, written.calls) if written is not None else (1, 0)
    text, calls = apportioned(visible, sizes if sum(sizes) else (1, 0))
    tokens = _extended(usage.input_tokens, guesses, pieces, earlier)
    if tokens is None:
        tokens = apportioned(usage.input_tokens, guesses)
    return BilledPrompt(tokens=tuple(tokens), reply=(text, calls))


def _extended(
    billed: int,
    guesses: Sequence[int],
    pieces: Sequence[Piece],
    earlier: BilledPrompt | None,
) -> list[int] | None:
    """Splits what was added to an earlier prompt; `None` if the bill says otherwise.

    A provider may have dropped reasoning or cut the history: then what was added was
    billed less than what it holds.
    """
    if earlier is None:
        return None
    known = len(earlier.tokens)
    added = billed - sum(earlier.tokens)
    first = (known - 1) // 2
    has_reply = first < len(pieces) and pieces[first].author is Author.MODEL
    reply = earlier.reply if has_reply else ()
    rest = guesses[known + len(reply) :]
    left = added - sum(reply)
    if left < 0 or (left and not sum(rest)):
        return None
    return [*earlier.tokens, *reply, *apportioned(left, rest)]


def layers_of(
    usage: TokenUsage,
    prompt: BilledPrompt,
    *,
    pieces: Sequence[Piece] | None,
    cost_nano_usd: int | None,
    rates: TokenRates | None = None,
    mark: Layer | None = None,
) -> tuple[LayerPart, ...]:
    """Returns the layers of a call that have tokens, in the order of `LAYERS`.

    Args:
        usage: As billed.
        prompt: The bill by piece.
        pieces: The messages; `None` if the prompt is not known. Its input then is in
            no layer, and the parts add up to less than the call.
        cost_nano_usd: Of the call, with all that is billed beside its tokens.
        rates: What its tokens cost. Without them, all cost the same.
        mark: What the messages of this turn are for, if not for the prompt, and of a
            prompt that is not known all of it.
    """
    segments: list[tuple[Layer | None, int]] = [(mark, usage.input_tokens)]
    if pieces is not None:
        layers = _layers(pieces, mark)
        segments = list(zip(layers, prompt.tokens, strict=True))
    text, calls = prompt.reply
    answer = (
        (Layer.RESPONSE_TEXT, text),
        (Layer.RESPONSE_REASONING, usage.reasoning_tokens),
        (Layer.RESPONSE_TOOL_CALL, calls),
    )
    tokens: dict[Layer | None, int] = {}
    for layer, count in segments:
        tokens[layer] = tokens.get(layer, 0) + count
    worth = {} if rates is None else _input_worth(segments, tokens, usage, rates)
    for layer, count in answer:
        tokens[layer] = tokens.get(layer, 0) + count
        if rates is not None:
            is_hidden = layer is Layer.RESPONSE_REASONING
            value = count * (rates.reasoning if is_hidden else rates.output)
            worth[layer] = worth.get(layer, 0) + value
    if not any(worth.values()):
        worth = tokens
    costs: Sequence[int | None] = [None] * len(tokens)
    if cost_nano_usd is not None and any(worth.values()):
        costs = apportioned(cost_nano_usd, list(worth.values()))
    found = {
        layer: LayerPart(layer=layer, tokens=count, cost_nano_usd=cost)
        for (layer, count), cost in zip(tokens.items(), costs, strict=True)
        if layer is not None and count
    }
    return tuple([found[layer] for layer in LAYERS if layer in found])


def apportioned(total: int, weights: Sequence[int]) -> list[int]:
    """Splits a number in proportion to weights, by the largest remainder.

    Returns:
        One number per weight. They add up to the total, unless no weight is above 0:
        then all are 0.
    """
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    shares = [divmod(total * weight, whole) for weight in weights]
    found = [share for share, _ in shares]
    missing = total - sum(found)
    if missing:
        by_remainder = sorted(range(len(shares)), key=lambda i: -shares[i][1])
        for index in by_remainder[:missing]:
            found[index] += 1
    return found


def _layers(pieces: Sequence[Piece], mark: Layer | None) -> Iterator[Layer]:
    """Yields the layer of the tool definitions, then two per message."""
    turn = next((i for i in reversed(range(len(pieces))) if _opens_turn(pieces[i])), 0)
    yield Layer.TOOL_SCHEMA
    for index, piece in enumerate(pieces):
        if piece.author is Author.TOOL:
            yield Layer.TOOL_RESULT
        elif piece.mark is not None:
            yield piece.mark
        elif piece.author is Author.SYSTEM:
            yield Layer.PROMPT_SYSTEM
        else:
            is_now = index >= turn
            yield (mark or Layer.PROMPT_USER) if is_now else Layer.MEMORY_HISTORY
        yield Layer.TOOL_CALL


def _opens_turn(piece: Piece) -> bool:
    """What a program puts into the words of a person is marked."""
    return piece.author is Author.PERSON and piece.mark is None


def _input_worth(
    segments: Iterable[tuple[Layer | None, int]],
    tokens: Mapping[Layer | None, int],
    usage: TokenUsage,
    rates: TokenRates,
) -> dict[Layer | None, int]:
    """Returns what the input of each layer costs.

    Walks the prompt: first what was cached, then what was written to the cache.
    """
    worth = {layer: count * rates.input for layer, count in tokens.items()}
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    for layer, count in segments:
        if not read and not written:
            break
        from_cache = min(count, read)
        to_cache = min(count - from_cache, written)
        read -= from_cache
        written -= to_cache
        worth[layer] += from_cache * (rates.cache_read - rates.input)
        worth[layer] += to_cache * (rates.cache_write - rates.input)
    return worth
