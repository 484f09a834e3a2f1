"""Shapes: the sizes of what LangChain is about to send, without its content."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from guardrails.core.estimates import MESSAGE_OVERHEAD_TOKENS, PromptShape
from guardrails_langchain.reading.pieces import DEFINITION_BYTE_WEIGHT, pieces_of
from guardrails_langchain.reading.prompts import (
    content_tokens_max,
    definitions_tokens_max,
    text_bytes,
)
from guardrails_langchain.reading.unseen import (
    has_tools_there,
    is_continued,
    sounds_of,
    unseen_parts,
)

__all__ = ["message_tokens_max", "prompt_shape"]

_REPLIES = ("ai", "AIMessageChunk")


def prompt_shape(
    *,
    messages: Sequence[Sequence[BaseMessage]] | None,
    prompts: Sequence[str] | None,
    invocation_params: Mapping[str, Any] | None,
    model_params: Mapping[str, Any] | None = None,
) -> PromptShape:
    """Returns the bounds of a prompt, from what LangChain's start hooks get.

    Args:
        messages: Of `on_chat_model_start`: batches of messages, oldest first.
        prompts: Of `on_llm_start`.
        invocation_params: What else is sent. Of it, tools and schemas count, and what
            is named that the provider keeps.
        model_params: What the model itself was made with, of which not all is in them.
    """
    sent = [message for batch in messages or () for message in batch]
    bounds = [message_tokens_max(message) for message in sent]
    bounds += [MESSAGE_OVERHEAD_TOKENS + text_bytes(prompt) for prompt in prompts or ()]
    replies = [message.type in _REPLIES for message in sent]
    params = invocation_params or {}
    asked = (params, model_params or {})
    tools_bytes = definitions_tokens_max(params)
    return PromptShape(
        tools_tokens_max=tools_bytes,
        message_tokens_max=tuple(bounds),
        is_reply=(*replies, *(False for _ in prompts or ())),
        tools_weight=tools_bytes * DEFINITION_BYTE_WEIGHT,
        pieces=pieces_of(sent, prompts),
        unseen_parts=unseen_parts(sent),
        sound_tokens_max=sounds_of(sent),
        has_tools_there=has_tools_there(asked),
        is_continued=is_continued(asked),
    )


def message_tokens_max(message: BaseMessage) -> int:
    """Returns an upper bound of the tokens of one message."""
    return MESSAGE_OVERHEAD_TOKENS + content_tokens_max(message)
