"""Testing: a chat model that plays a script, so that only the model is not real."""

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import PrivateAttr

from guardrails.core.usage import TOKENS_MAX

__all__ = ["ScriptedChatModel"]

Turn = AIMessage | Exception


class ScriptedChatModel(BaseChatModel):
    """Plays a script instead of calling a provider, and counts its calls.

    Everything else is LangChain's own: streaming, tools, callbacks, retries.
    """

    script: Callable[[int, Sequence[BaseMessage]], Turn]
    """Returns the answer to the n-th call (from 0), or the error it raises."""
    model: str = "gpt-4o"
    provider: str = "openai"
    max_tokens: int | None = 300
    input_tokens: int = 1_000
    """Reported for answers that carry no usage of their own."""
    output_tokens: int = 50
    """Reported for answers that carry no usage of their own, as far as the request
    itself, by `max_tokens`, allows them."""
    reports_usage: bool = True
    """False plays a provider that reports nothing."""

    _lock: Any = PrivateAttr(default_factory=threading.Lock)
    _calls: int = PrivateAttr(default=0)
    _requests: Any = PrivateAttr(default_factory=list)

    @property
    def calls(self) -> int:
        """How often the provider was called: each of these would be billed."""
        return self._calls

    @property
    def requests(self) -> Sequence[Mapping[str, Any]]:
        """What each call asked for beside its messages: `max_tokens`, `tool_choice`."""
        return tuple(self._requests)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    def _get_ls_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> LangSmithParams:
        params = LangSmithParams(
            ls_provider=self.provider, ls_model_name=self.model, ls_model_type="chat"
        )
        if self.max_tokens is not None:
            params["ls_max_tokens"] = self.max_tokens
        return params

    def bind_tools(
        self, tools: Sequence[Any], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Accepts tools; the script decides when they are called."""
        given = {name: value for name, value in kwargs.items() if value is not None}
        return self.bind(**given)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(
            generations=[ChatGeneration(message=self._answer(messages, kwargs))]
        )

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, kwargs):
            if run_manager is not None:
                run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, kwargs):
            if run_manager is not None:
                await run_manager.on_llm_new_token(
                    str(chunk.message.content), chunk=chunk
                )
            yield chunk

    def _answer(
        self, messages: Sequence[BaseMessage], asked: Mapping[str, Any]
    ) -> AIMessage:
        with self._lock:
            number = self._calls
            self._calls += 1
            self._requests.append(asked)
        turn = self.script(number, messages)
        if isinstance(turn, Exception):
            raise turn
        update: dict[str, Any] = {
            "response_metadata": {"model_name": self.model, **turn.response_metadata}
        }
        if self.reports_usage and turn.usage_metadata is None:
            output = min(self.output_tokens, asked.get("max_tokens", TOKENS_MAX))
            update["usage_metadata"] = UsageMetadata(
                input_tokens=self.input_tokens,
                output_tokens=output,
                total_tokens=self.input_tokens + output,
            )
        return turn.model_copy(update=update)

    def _chunks(
        self, messages: Sequence[BaseMessage], asked: Mapping[str, Any]
    ) -> list[ChatGenerationChunk]:
        """Cuts an answer into words; tool calls and usage come last."""
        answer = self._answer(messages, asked)
        words = str(answer.content).split(" ") if answer.content else []
        chunks = [
            AIMessageChunk(content=word if index == 0 else f" {word}", id=answer.id)
            for index, word in enumerate(words)
        ]
        last = AIMessageChunk(
            content="",
            id=answer.id,
            tool_call_chunks=[
                {
                    "name": call["name"],
                    "args": _json(call["args"]),
                    "id": call["id"],
                    "index": index,
                    "type": "tool_call_chunk",
                }
                for index, call in enumerate(answer.tool_calls)
            ],
            usage_metadata=answer.usage_metadata,
            response_metadata=answer.response_metadata,
            chunk_position="last",
        )
        return [ChatGenerationChunk(message=chunk) for chunk in [*chunks, last]]


def _json(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments)
