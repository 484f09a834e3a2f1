"""Calls: what is about to happen, and what happened."""

import enum
from dataclasses import dataclass, field

from guardrails.core.estimates import PromptShape
from guardrails.core.layers import Piece
from guardrails.core.usage import TokenUsage

__all__ = ["CallKind", "CallStatus", "ModelCall", "Outcome", "ToolCall", "tool_name"]


class CallKind(enum.StrEnum):
    """The two kinds of steps."""

    MODEL = "model"
    TOOL = "tool"


class CallStatus(enum.StrEnum):
    """How a call ended."""

    OK = "ok"
    ERROR = "error"
    BROKEN_OFF = "broken_off"
    """Cancelled, or a stream that nobody read to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """A model call that is about to be made."""

    model: str
    provider: str | None = None
    """The provider or gateway id, such as `openai` or `aws`."""
    input_tokens_max: int = 0
    """An upper bound of the input, known without a tokenizer."""
    prompt: PromptShape | None = None
    """The sizes of the prompt, from which a closer bound follows."""
    billed_before: int | None = None
    """Of a prompt with parts that only the provider sees: the tokens of the rest that
    were billed before; `None` if there are no such parts."""
    output_tokens_max: int | None = None
    """The request's own bound on output; `None` when it sets none."""
    output_tokens_expected: int | None = None
    """What an answer of the form that is asked for may take; `None` of any other."""
    is_output_bound: bool = False
    """The model cannot write more than that bound: it is reserved as it stands."""
    thinks: bool = False
    """Whether it is asked to think, which is billed as output that nobody sees."""
    service_tier: str | None = None
    """The tier that the request asks for, such as `priority`."""

    kind: CallKind = field(default=CallKind.MODEL, init=False)

    @property
    def sound_tokens_max(self) -> int:
        """Bound of what of its prompt may be billed as sound."""
        return 0 if self.prompt is None else self.prompt.sound_tokens_max


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool call that is about to be made."""

    tool: str
    server: str | None = None
    """The MCP server or service that offers the tool."""
    call_id: str | None = None
    """The model's id of this call: a replay of the same id is no repetition."""
    arguments_digest: str | None = None
    """Fingerprint of the arguments; `None` excludes the call from loops."""
    cost_nano_usd: int | None = None
    """The price of this call as its caller knows it; the policy's price wins."""
    bytes_in: int | None = None

    kind: CallKind = field(default=CallKind.TOOL, init=False)

    @property
    def name(self) -> str:
        """`server/tool`, or the bare tool."""
        return tool_name(self.tool, self.server)


def tool_name(tool: str, server: str | None) -> str:
    """Returns `server/tool`, or the bare tool."""
    return f"{server}/{tool}" if server else tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a call turned out to be. No content: sizes, counts and digests."""

    status: CallStatus = CallStatus.OK
    error_type: str | None = None
    """The class name of the error, never its text."""
    usage: TokenUsage | None = None
    """As reported; `None` when the provider reported nothing."""
    is_input_unknown: bool = False
    """The report is of the output alone: the input was not 0, and is not known."""
    is_output_unknown: bool = False
    """The report is of a part of the answer: more of it may have been written."""
    model: str | None = None
    """The model that answered, often a dated snapshot of the one asked for."""
    output_tokens_max: int | None = None
    """Without a report, or with one of a part: an upper bound of the output that was
    received."""
    names_tier: bool = False
    """The answer names its service tier, be it the ordinary one."""
    has_fees: bool = False
    """The provider bills fees beside the tokens, which nobody reports."""
    has_drawn: bool = False
    """The model has made an image, and the report may not tell its tokens apart."""
    written: Piece | None = None
    """Sizes of what the model wrote; `None` when they are not known."""
    cost_nano_usd: int | None = None
    """The cost as reported by the provider or gateway, which beats any table."""
    result_digest: str | None = None
    """Fingerprint of a tool's result; `None` when it is not known."""
    bytes_out: int | None = None
    latency_ms: int | None = None
    is_unsent: bool = False
    """The provider refused the request, or never saw it: nothing was consumed."""
