"""Estimates: upper bounds of a model call, known before it and without a tokenizer.

Every token of a byte-level vocabulary consumes at least one byte of UTF-8, so
the byte length of a text bounds its tokens from above. That bound is loose for
a long conversation, so once a provider has billed a prefix of it, the billed
number replaces the bytes of that prefix: exact where it is long, rigorous for
what was added.

Some of a prompt only its provider sees: a document by its URL, an earlier answer by its
id, what a search there has found. Of that nothing is known before the first bill.
"""

from dataclasses import dataclass

from guardrails.core.layers import BilledPrompt, Piece
from guardrails.core.weights import MESSAGE_WEIGHT

__all__ = [
    "MEDIA_PART_TOKENS_MAX",
    "MESSAGE_OVERHEAD_TOKENS",
    "OUTPUT_TOKENS_FLOOR",
    "OUTPUT_TOKENS_MIN",
    "UNSEEN_TOKENS_FLOOR",
    "Anchor",
    "PromptShape",
    "extends",
    "input_tokens_max",
    "output_tokens_max",
    "unseen_parts",
    "unseen_tokens_max",
]

MESSAGE_OVERHEAD_TOKENS = 8
"""Role and separators around one message; 3 or 4 in the published templates."""

PREAMBLE_TOKENS_MAX = 600
"""What a provider adds unseen, above all in front of tool definitions."""

MEDIA_PART_TOKENS_MAX = 4_800
"""One image, at the largest size that current vision models bill. The bytes of
its base64 text say nothing about its tokens."""

UNSEEN_TOKENS_FLOOR = 32_768
"""Reserved for each part of a prompt that only the provider sees: a document of some
dozen pages, or a dozen pages that a search has found. The whole context of a model, up
to a million tokens, would refuse every first call."""

OUTPUT_TOKENS_FLOOR = 4_096
"""Reserved for output where the request sets no bound of its own that is lower.
A model's own maximum, often 64,000, would refuse every first call."""

OUTPUT_TOKENS_MIN = 256
"""A bound on output is not lowered below this: room for a tool call or a short
answer. With less a model breaks off, and the call is paid for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptShape:
    """The sizes of a prompt, without its content."""

    tools_tokens_max: int = 0
    """Bound of the tool definitions that are sent along."""
    message_tokens_max: tuple[int, ...] = ()
    """Bound of each message, oldest first."""
    is_reply: tuple[bool, ...] = ()
    """Whether the model wrote the message; one entry per message."""
    tools_weight: int = 0
    """A guess of the size of the tool definitions, in the unit of the pieces."""
    pieces: tuple[Piece, ...] = ()
    """Guesses by layer, one entry per message; none if they are not known."""
    unseen_parts: int = 0
    """Parts of the messages that only the provider sees, such as documents by URL."""
    sound_tokens_max: int = 0
    """Bound of what may be billed as sound, of all that is bounded above."""
    has_tools_there: bool = False
    """Whether the provider runs tools itself, whose results only it sees."""
    is_continued: bool = False
    """Whether it goes on from a conversation that the provider keeps."""

    @property
    def has_unseen(self) -> bool:
        """Whether any of it only the provider sees."""
        return bool(self.unseen_parts or self.has_tools_there or self.is_continued)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A prompt that was billed, and for how much."""

    shape: PromptShape
    billed_tokens: int
    """Input plus output of that call."""
    prompt: BilledPrompt | None = None
    """How the bill was split; `None` if the pieces are not known."""
    written: Piece | None = None
    """What the model wrote; `None` if that is not known, or nothing."""


def input_tokens_max(shape: PromptShape, anchor: Anchor | None = None) -> int:
    """Bounds the input tokens of a prompt from above.

    The anchor counts only if this prompt extends the anchored one, message by
    message; a trimmed or edited history is bounded by its bytes again.
    """
    if anchor is not None and extends(shape, anchor.shape):
        known = len(anchor.shape.message_tokens_max)
        added = list(shape.message_tokens_max[known:])
        if added and shape.is_reply[known] and _is_written(shape, anchor):
            added[0] = MESSAGE_OVERHEAD_TOKENS  # Its text was billed as output.
        return anchor.billed_tokens + sum(added)
    return PREAMBLE_TOKENS_MAX + shape.tools_tokens_max + sum(shape.message_tokens_max)


def unseen_parts(shape: PromptShape, anchor: Anchor | None) -> int:
    """Counts what of a prompt only the provider sees, and no bill covers yet.

    Args:
        shape: The prompt.
        anchor: What was billed of a prompt that it extends.
    """
    billed = 0 if anchor is None else anchor.shape.unseen_parts
    return shape.unseen_parts - billed + shape.has_tools_there


def unseen_tokens_max(
    *,
    parts: int,
    largest_part: int,
    is_continued: bool,
    largest_call: int,
    seen_tokens: int,
    context_tokens: int | None,
) -> int:
    """Bounds what of a prompt only the provider sees.

    Args:
        parts: How many parts that is, beside a conversation that goes on.
        largest_part: The most that this agent and model were billed for one so far.
        is_continued: Whether there is such a conversation.
        largest_call: The most that they were billed for a call so far, answer and all.
        seen_tokens: The bound of the rest of the prompt.
        context_tokens: The most that the model reads, to reserve all of it.
    """
    if not parts and not is_continued:
        return 0
    expected = parts * max(UNSEEN_TOKENS_FLOOR, largest_part)
    if is_continued:
        expected += max(UNSEEN_TOKENS_FLOOR, largest_call)
    return max(expected, (context_tokens or 0) - seen_tokens)


def output_tokens_max(
    *,
    requested: int | None,
    largest_seen: int,
    is_strict: bool,
    expected: int | None = None,
) -> int:
    """Bounds the output tokens of a call that cannot be clamped.

    Args:
        requested: The request's own bound, if it sets one.
        largest_seen: The largest output of this agent and model so far.
        is_strict: Reserve the whole of `requested`.
        expected: What an answer of a known form may take.
    """
    floor = OUTPUT_TOKENS_FLOOR if expected is None else expected
    likely = max(floor, largest_seen)
    if requested is None:
        return likely
    return requested if is_strict else min(requested, likely)


def _is_written(shape: PromptShape, anchor: Anchor) -> bool:
    """Whether the reply after an anchored prompt is the one that was billed.

    Another model may have written it, or code. Without pieces nobody can tell.
    """
    known = len(anchor.shape.message_tokens_max)
    if not shape.pieces:
        return True
    reply, written = shape.pieces[known], anchor.written
    return written is not None and (reply.text - MESSAGE_WEIGHT, reply.calls) == (
        written.text,
        written.calls,
    )


def extends(shape: PromptShape, earlier: PromptShape) -> bool:
    """Whether a prompt begins with another one, as far as sizes tell."""
    known = len(earlier.message_tokens_max)
    return (
        shape.tools_tokens_max == earlier.tools_tokens_max
        and shape.message_tokens_max[:known] == earlier.message_tokens_max
        and shape.pieces[:known] == earlier.pieces
    )
