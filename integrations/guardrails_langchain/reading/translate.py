"""Translate: LangChain's objects to calls and outcomes. No policy, no I/O.

Nothing here raises, and nothing that is returned holds content: sizes, counts,
names and keyed digests only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    Generation,
    LLMResult,
)

from guardrails.core.attribution import clean_name
from guardrails.core.calls import CallStatus, ModelCall, Outcome
from guardrails.core.fingerprints import fingerprint
from guardrails.core.plain import size_bytes
from guardrails.sessions.outcomes import BREAKS, text_of
from guardrails_langchain.reading.answers import (
    Answer,
    get,
    is_finished,
    is_pending,
    model_of,
    says_why_it_ends,
)
from guardrails_langchain.reading.failures import (
    answer_in,
    attribute,
    is_late_or_lost,
    is_unsent,
)
from guardrails_langchain.reading.fees import has_drawn, has_fees
from guardrails_langchain.reading.pieces import written_by
from guardrails_langchain.reading.prompts import (
    content_tokens_max,
    output_limit,
    text_bytes,
)
from guardrails_langchain.reading.shapes import prompt_shape
from guardrails_langchain.reading.streams import (
    has_report,
    is_last,
    merged_reports,
    with_usage_of,
)
from guardrails_langchain.reading.unseen import thinks
from guardrails_langchain.reading.usage import (
    is_cache_hit,
    is_report_of_batch,
    named_tier,
    reported_cost_nano_usd,
    usage_of,
)

__all__ = [
    "chunk_tokens_max",
    "has_report",
    "is_cache_hit",
    "is_last",
    "is_report_of_batch",
    "model_call",
    "model_name",
    "model_of",
    "outcome_of_left_stream",
    "outcome_of_llm_end",
    "outcome_of_llm_error",
    "outcome_of_tool_end",
    "outcome_of_tool_error",
    "output_limit",
    "prompt_shape",
    "received_tokens_max",
    "reported_cost_nano_usd",
]

UNKNOWN_MODEL = "unknown"
"""Of a model whose integration does not name it: no table has a price for it."""

RESULTS_MAX = 100
"""Messages of one tool result; a hand-off brings two or three."""

BLOCKS_MAX = 10_000
"""Content blocks of a result that are looked at: more than a fingerprint reads."""

_PROVIDERS = {
    "amazon_bedrock": "aws",
    "anthropic-bedrock": "aws",
    "anthropic-mantle": "aws",
    "openai-mantle": "aws",
    "google_genai": "google",
    "google_vertexai": "google",
}
"""LangChain's names of providers (`ls_provider`) that differ from those of prices."""


def model_call(
    *,
    serialized: Mapping[str, Any] | None,
    messages: Sequence[Sequence[BaseMessage]] | None,
    prompts: Sequence[str] | None,
    invocation_params: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
) -> ModelCall:
    """Returns the call that a start hook announces.

    The arguments are those of `on_chat_model_start` (with `messages`) and of
    `on_llm_start` (with `prompts`). The bound of the input is in `prompt`.
    """
    names, params = metadata or {}, invocation_params or {}
    made_with: object = (serialized or {}).get("kwargs")
    model_params = made_with if isinstance(made_with, Mapping) else None
    candidates = (
        names.get("ls_model_name"),
        *(params.get(name) for name in ("model", "model_name", "model_id")),
        (serialized or {}).get("name"),
    )
    model = next(filter(None, map(clean_name, candidates)), UNKNOWN_MODEL)
    provider = clean_name(names.get("ls_provider"))
    return ModelCall(
        model=model_name(model),
        provider=_PROVIDERS.get(provider, provider) if provider else None,
        prompt=prompt_shape(
            messages=messages,
            prompts=prompts,
            invocation_params=invocation_params,
            model_params=model_params,
        ),
        output_tokens_max=output_limit(invocation_params, metadata, model_params),
        thinks=thinks((params, model_params or {})),
        service_tier=_asked_tier(params),
    )


def _asked_tier(params: Mapping[str, Any]) -> str | None:
    """Returns the tier that a request asks for, which Anthropic calls a speed."""
    # langchain-anthropic (1.7.10) keeps apart what is given to the model itself.
    for group in (params, params.get("model_kwargs")):
        if isinstance(group, Mapping):
            asked = cast("Mapping[str, object]", group)
            is_fast = asked.get("speed") == "fast"
            tier = "fast" if is_fast else clean_name(asked.get("service_tier"))
            if tier is not None:
                return tier
    return None


def model_name(name: str) -> str:
    """Returns a model's name as calls have it, without what Gemini puts before it."""
    return name.removeprefix("models/")


def received_tokens_max(response: LLMResult | None) -> int:
    """Returns an upper bound of the output that a response holds, whole or not.

    What a model thinks is billed, but not shown: it is not in it.
    """
    if response is None:
        return 0
    return sum(
        _generation_tokens_max(generation)
        for candidates in response.generations
        for generation in candidates
    )


def chunk_tokens_max(token: object, chunk: object) -> int:
    """Returns an upper bound of the output in a part of a stream.

    Args:
        token: Its text.
        chunk: All of it, where the model's integration gives that.
    """
    if isinstance(chunk, Generation):
        return _generation_tokens_max(chunk)
    return text_bytes(str(token))


def _generation_tokens_max(generation: Generation) -> int:
    if isinstance(generation, ChatGeneration):
        return content_tokens_max(generation.message)
    return text_bytes(generation.text)


def outcome_of_llm_end(
    result: LLMResult, reports: Sequence[ChatGenerationChunk] = ()
) -> Outcome:
    """Returns the outcome of a model call that was answered.

    Without a report of its usage the outcome bounds it by what was received.

    Args:
        result: The answer.
        reports: Of a stream, its parts for which `has_report` holds, in their order.
            Where they run along and the model has not ended, it was cut off.
    """
    answer = Answer(with_usage_of(reports, result))
    known = _reported(answer)
    is_cut = len(reports) > 1 and not says_why_it_ends(answer)
    if known.usage is not None and is_cut:
        return _running(known, received_tokens_max(result))
    if known.usage is None and is_pending(answer):
        return replace(known, output_tokens_max=None)  # It is written later, and kept.
    return known


def outcome_of_llm_error(
    error: BaseException,
    response: LLMResult | None,
    reports: Sequence[ChatGenerationChunk] = (),
) -> Outcome:
    """Returns the outcome of a model call that failed or was broken off.

    Args:
        error: As raised. A refusal of the provider (a status of 400 or more) and a
            failure to connect mean that nothing was consumed, unless some of the
            answer had been received. If nothing had been when nobody waited any more,
            the connection broke, or the answer could not be read, all that was
            reserved is booked, unless that answer reports what was used.
        response: What had been received, if LangChain knows.
        reports: Of a stream, its parts for which `has_report` holds, in their order.
    """
    known = Outcome(output_tokens_max=0)
    if response is not None:
        known = _so_far(with_usage_of(reports, response))
    is_cut, is_empty = isinstance(error, BREAKS), known.output_tokens_max == 0
    is_refused = not is_cut and is_empty and is_unsent(error)
    has_not_begun = is_empty or (known.usage and not known.usage.output_tokens)
    if has_not_begun and not is_refused:
        unread = answer_in(error)
        if unread is not None:
            known = _unread(unread)
        elif is_late_or_lost(error):
            known = replace(known, usage=None, output_tokens_max=None)
    return replace(
        known,
        status=CallStatus.BROKEN_OFF if is_cut else CallStatus.ERROR,
        error_type=_type_name(error),
        is_unsent=is_refused,
    )


def _unread(answer: object) -> Outcome:
    """Returns what an answer says of its call that its integration failed to read."""
    said = {name: get(answer, name) for name in ("usage", "model", "service_tier")}
    result = LLMResult(generations=[], llm_output=said)
    return replace(_reported(Answer(result)), output_tokens_max=None)


def outcome_of_left_stream(
    reports: Sequence[ChatGenerationChunk],
    received_tokens_max: int,
    *,
    is_whole: bool = False,
) -> Outcome:
    """Returns the outcome of a stream that nothing more is heard of.

    Args:
        reports: Its parts for which `has_report` holds, in their order.
        received_tokens_max: Bound of what has come. Of an answer that has not begun,
            nobody knows how much is billed.
        is_whole: Whether the model had ended its answer.
    """
    known = Outcome(output_tokens_max=received_tokens_max or None)
    merged = merged_reports(reports)
    if merged is not None:
        reported = _reported(Answer(LLMResult(generations=[[merged]])))
        if reported.usage is not None and reported.usage.output_tokens:
            known = replace(reported, written=None)
            if not is_whole:
                known = _running(known, received_tokens_max)
    return replace(known, status=CallStatus.BROKEN_OFF)


def _so_far(result: LLMResult) -> Outcome:
    """Returns what a result says of its call that may be a part of an answer."""
    answer = Answer(result)
    known = _reported(answer)
    is_read = any(get(one, "usage_metadata") for one in answer.messages)
    if known.usage is None or not is_read or is_finished(answer):
        return known
    return _running(known, received_tokens_max(result))


def _running(known: Outcome, received: int) -> Outcome:
    """Returns what a report says that runs along: there may be more to the answer."""
    return replace(
        known, is_output_unknown=True, output_tokens_max=received or None, written=None
    )


def _reported(answer: Answer) -> Outcome:
    """Returns what a result says of its call, whole or not.

    Half a report is none of the other half. The end of a stream need not repeat the
    input that its start has named, and langchain-anthropic 1.7.10 reads the end alone.
    Bedrock names the input at the start, and an output of 0.
    """
    tier, received = named_tier(answer), received_tokens_max(answer.result)
    usage = usage_of(answer, tier=tier)
    if usage is not None and received and not usage.output_tokens:
        usage = None
    return Outcome(
        usage=usage,
        is_input_unknown=usage is not None and not usage.input_tokens,
        model=model_of(answer),
        output_tokens_max=received if usage is None else None,
        names_tier=tier is not None,
        has_drawn=has_drawn(answer),
        has_fees=has_fees(answer),
        written=written_by(answer.result),
        cost_nano_usd=reported_cost_nano_usd(answer),
    )


def outcome_of_tool_end(output: object, *, key: bytes, label: str) -> Outcome:
    """Returns the outcome of a tool call that returned.

    Args:
        output: A `ToolMessage`, a `Command` with messages, or a bare value.
        key: The key of fingerprints.
        label: `server/tool`.
    """
    messages = _tool_messages(output)
    contents = [_without_ids(message.content) for message in messages]
    result = contents[0] if len(contents) == 1 else contents or _without_ids(output)
    is_error = any(message.status == "error" for message in messages)
    return Outcome(
        status=CallStatus.ERROR if is_error else CallStatus.OK,
        result_digest=fingerprint(result, key=key, label=label),
        bytes_out=size_bytes(result),
    )


def outcome_of_tool_error(error: BaseException, *, key: bytes, label: str) -> Outcome:
    """Returns the outcome of a tool call that raised.

    The digest of its result is that of the error's class and text, so that an
    error that comes again and again is recognised as a loop.
    """
    if isinstance(error, BREAKS):
        return Outcome(
            status=CallStatus.BROKEN_OFF,
            error_type=_type_name(error),
        )
    failure = {"error": [type(error).__name__, text_of(error)]}
    return Outcome(
        status=CallStatus.ERROR,
        error_type=_type_name(error),
        result_digest=fingerprint(failure, key=key, label=label),
    )


def _type_name(error: BaseException) -> str | None:
    return clean_name(type(error).__name__)


def _tool_messages(output: object) -> list[ToolMessage]:
    """Returns the tool messages of a result, also those in LangGraph's commands."""
    outputs = _listed(output)
    for value in [*outputs]:
        # By name: a command is LangGraph's, which may not be installed.
        if type(value).__name__ == "Command":
            update = attribute(value, "update")
            if isinstance(update, dict):
                update = list(cast("dict[object, object]", update).items())
            for item in _listed(update):
                if isinstance(item, tuple):
                    outputs += _listed(cast("tuple[object, ...]", item)[-1])
    return [value for value in outputs if isinstance(value, ToolMessage)]


def _listed(value: object) -> list[object]:
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    return values[:RESULTS_MAX]


def _without_ids(content: object) -> object:
    """Leaves out the ids that LangChain gives to content blocks, new every time."""
    if not isinstance(content, list):
        return content
    return [
        {
            name: member
            for name, member in block.items()
            if not _is_auto_id(name, member)
        }
        if type(block) is dict
        else block
        for block in cast("list[dict[object, object] | str]", content)[:BLOCKS_MAX]
    ]


def _is_auto_id(name: object, value: object) -> bool:
    return name == "id" and isinstance(value, str) and value.startswith("lc_")
