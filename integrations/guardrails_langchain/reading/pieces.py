"""Pieces: who wrote each message of LangChain, and a guess of its size. No content."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from guardrails.core.layers import INPUT_LAYERS, Author, Layer, Piece
from guardrails.core.weights import MEDIA_PART_WEIGHT, MESSAGE_WEIGHT, weight_of
from guardrails_langchain.reading.prompts import (
    TOOL_CALL_BLOCKS,
    calls_bytes,
    is_medium,
    kind_of,
    part_tokens_max,
)

__all__ = [
    "DEFINITION_BYTE_WEIGHT",
    "instruction",
    "piece_of",
    "pieces_of",
    "written_by",
]

DEFINITION_BYTE_WEIGHT = 25
"""Of one byte of a tool's definition, in hundredths of a token."""

JSON_BYTE_WEIGHT = 35
"""Of one byte of arguments and blocks. Numbers and keys have 0.43 tokens per byte,
sentences fewer."""

_AUTHORS = {
    "AIMessageChunk": Author.MODEL,
    "ai": Author.MODEL,
    "assistant": Author.MODEL,
    "developer": Author.SYSTEM,
    "function": Author.TOOL,
    "human": Author.PERSON,
    "system": Author.SYSTEM,
    "tool": Author.TOOL,
}
"""By the type of a message, or the role of one without a type of its own."""

_MARKS = {layer.value: layer for layer in INPUT_LAYERS}


def pieces_of(
    messages: Sequence[BaseMessage], prompts: Sequence[str] | None
) -> tuple[Piece, ...]:
    """Returns a piece per message, or per prompt of a completion model."""
    texts = [
        Piece(Author.PERSON, MESSAGE_WEIGHT + weight_of(text)) for text in prompts or ()
    ]
    return (*map(piece_of, messages), *texts)


def piece_of(message: BaseMessage) -> Piece:
    """Returns the piece of one message."""
    # For every message of the history before every call: see `content_tokens_max`.
    get = message.__dict__.get
    content, calls = get("content"), get("tool_calls")
    if type(content) is str:
        text = weight_of(content) if content else 0
    else:
        text = _blocks_weight(content, has_calls=bool(calls))
    kind = message.type
    if kind == "chat":
        kind = str(get("role"))
    author = _AUTHORS.get(kind, Author.PERSON)
    extras = get("additional_kwargs")
    return Piece(
        author,
        MESSAGE_WEIGHT + text,
        calls_bytes(calls) * JSON_BYTE_WEIGHT if calls else 0,
        _mark(extras) if extras else None,
    )


def instruction(text: str) -> HumanMessage:
    """Returns a message to the model that no person has written, and opens no turn."""
    return HumanMessage(text, additional_kwargs={"layer": Layer.PROMPT_SYSTEM.value})


def written_by(result: LLMResult) -> Piece | None:
    """Returns the piece that a model wrote, all candidates together."""
    pieces = [
        piece_of(generation.message)
        if isinstance(generation, ChatGeneration)
        else Piece(Author.MODEL, weight_of(generation.text))
        for candidates in result.generations
        for generation in candidates
    ]
    text = sum(max(0, piece.text - MESSAGE_WEIGHT) for piece in pieces)
    calls = sum(piece.calls for piece in pieces)
    return Piece(Author.MODEL, text, calls) if text + calls else None


def _mark(extras: Mapping[str, object]) -> Layer | None:
    """Returns what a message is marked as; LangChain marks its own summaries."""
    if extras.get("lc_source") == "summarization":
        return Layer.MEMORY_SUMMARY
    mark = extras.get("layer")
    return _MARKS.get(mark) if isinstance(mark, str) else None


def _blocks_weight(content: Any, *, has_calls: bool) -> int:
    blocks = cast("list[object]", content) if isinstance(content, list) else [content]
    total = 0
    for block in blocks:
        if isinstance(block, str):
            total += weight_of(block)
        elif isinstance(block, dict):
            total += _block_weight(cast("dict[str, Any]", block), has_calls=has_calls)
    return total


def _block_weight(block: dict[str, Any], *, has_calls: bool) -> int:
    if has_calls and kind_of(block) in TOOL_CALL_BLOCKS:
        return 0  # The message has it as a call as well.
    text = block.get("text")
    if is_medium(block):
        return MEDIA_PART_WEIGHT
    if isinstance(text, str):
        return weight_of(text)
    return part_tokens_max(block) * JSON_BYTE_WEIGHT
