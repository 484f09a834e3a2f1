"""Talks: generated sessions of an agent, and a tokenizer that knows the truth.

The tokenizer cuts texts as the byte-pair vocabularies in use do: short words with the
blank before them are one token, long ones several, digits go by three, marks by two.
"""

import json
import random  # noqa: TID251 - seeded, so that every run talks alike
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from guardrails.core.layers import Author, Layer, Piece
from guardrails.core.weights import MESSAGE_WEIGHT, weight_of

__all__ = ["Message", "Turn", "talk", "tokens_of"]

FRAME_TOKENS = 3
PREAMBLE_TOKENS = 40
"""What the provider adds unseen to tool definitions."""

_TOKENS = re.compile(r" ?[A-Za-z]{1,7}|[A-Za-z]{1,5}|\d{1,3}|[^\sA-Za-z\d]{1,2}|\s+")

_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "order",
    "customer",
    "please",
    "check",
    "refund",
    "invoice",
    "payment",
    "delivery",
    "address",
    "because",
    "yesterday",
    "information",
    "available",
    "shipping",
    "international",
    "account",
    "a",
    "be",
    "on",
    "with",
    "status",
    "answer",
    "question",
    "can",
    "you",
    "find",
    "out",
    "when",
    "it",
    "will",
    "arrive",
]


def tokens_of(text: str) -> int:
    """Returns the true number of tokens of a text."""
    return len(_TOKENS.findall(text))


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message as it is sent."""

    author: Author
    text: str = ""
    calls: str = ""

    @property
    def piece(self) -> Piece:
        """What an adapter says of it."""
        return Piece(
            self.author, MESSAGE_WEIGHT + weight_of(self.text), weight_of(self.calls)
        )

    @property
    def tokens(self) -> tuple[int, int]:
        """The truth: of its text with its frame, and of its calls."""
        return FRAME_TOKENS + tokens_of(self.text), tokens_of(self.calls)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One model call, and the truth about it."""

    tools: str
    messages: tuple[Message, ...]
    written: Message
    reasoning_tokens: int
    shares: dict[Layer, int] = field(default_factory=dict[Layer, int])
    """Tokens of input by layer."""

    @property
    def input_tokens(self) -> int:
        """What is billed."""
        return sum(self.shares.values())


def talk(seed: int, *, turns: int = 4) -> Iterator[Turn]:
    """Yields the model calls of one session: each person's turn uses tools."""
    dice = random.Random(seed)
    tools = json.dumps([_tool(dice) for _ in range(dice.randint(1, 8))])
    messages = [Message(author=Author.SYSTEM, text=_prose(dice, 40, 400))]
    for _ in range(turns):
        messages.append(Message(author=Author.PERSON, text=_prose(dice, 5, 120)))
        opened = len(messages) - 1
        for _ in range(dice.randint(0, 3)):
            call = Message(author=Author.MODEL, calls=_call(dice))
            yield _turn(dice, tools, messages, call, opened)
            messages += [call, Message(author=Author.TOOL, text=_result(dice))]
        answer = Message(author=Author.MODEL, text=_prose(dice, 10, 200))
        yield _turn(dice, tools, messages, answer, opened)
        messages.append(answer)


def _turn(
    dice: random.Random,
    tools: str,
    messages: list[Message],
    written: Message,
    opened: int,
) -> Turn:
    shares = {Layer.TOOL_SCHEMA: PREAMBLE_TOKENS + tokens_of(tools)}
    for index, message in enumerate(messages):
        text, calls = message.tokens
        if message.author is Author.TOOL:
            layer = Layer.TOOL_RESULT
        elif message.author is Author.SYSTEM:
            layer = Layer.PROMPT_SYSTEM
        else:
            is_now = index >= opened
            layer = Layer.PROMPT_USER if is_now else Layer.MEMORY_HISTORY
        shares[layer] = shares.get(layer, 0) + text
        shares[Layer.TOOL_CALL] = shares.get(Layer.TOOL_CALL, 0) + calls
    return Turn(
        tools=tools,
        messages=tuple(messages),
        written=written,
        reasoning_tokens=dice.choice([0, 0, dice.randint(10, 500)]),
        shares=shares,
    )


def _prose(dice: random.Random, least: int, most: int) -> str:
    words = dice.choices(_WORDS, k=dice.randint(least, most))
    return " ".join(
        f"{word}." if dice.random() < 0.1 else word for word in words
    ).capitalize()


def _tool(dice: random.Random) -> dict[str, object]:
    names = {
        word: {"type": "string", "description": _prose(dice, 3, 12)}
        for word in dice.sample(_WORDS, 3)
    }
    return {
        "name": "_".join(dice.sample(_WORDS, 2)),
        "description": _prose(dice, 5, 40),
        "parameters": {"type": "object", "properties": names},
    }


def _call(dice: random.Random) -> str:
    arguments = {word: dice.randint(0, 10**6) for word in dice.sample(_WORDS, 2)}
    return json.dumps({"name": dice.choice(_WORDS), "arguments": arguments})


def _result(dice: random.Random) -> str:
    if dice.random() < 0.3:
        return _prose(dice, 10, 300)
    rows = [
        {
            "id": dice.randint(1, 10**6),
            "name": dice.choice(_WORDS),
            "price": dice.randint(1, 10**5) / 100,
            "at": f"2026-11-{dice.randint(10, 28)}T10:00:00Z",
        }
        for _ in range(dice.randint(1, 30))
    ]
    return json.dumps(rows)
