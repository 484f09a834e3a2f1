"""Anchors: what prompts were billed, which bounds those that extend them."""

import threading
from collections import OrderedDict
from dataclasses import replace

from guardrails.core.calls import ModelCall
from guardrails.core.estimates import Anchor, input_tokens_max
from guardrails.core.usage import TokenUsage

__all__ = ["Anchors"]

ANCHORS_MAX = 64
"""Prompts that are remembered: one per nested agent and model."""


class Anchors:
    """The last billed prompt of each agent and model. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._anchors: OrderedDict[tuple[tuple[str, ...], str], Anchor] = OrderedDict()

    def bounded(self, call: ModelCall, agent_path: tuple[str, ...]) -> ModelCall:
        """Returns the call with its input bounded by its prompt, if that is known."""
        if call.prompt is None:
            return call
        anchor = self._anchors.get((agent_path, call.model))
        return replace(call, input_tokens_max=input_tokens_max(call.prompt, anchor))

    def learn(
        self, call: ModelCall, agent_path: tuple[str, ...], usage: TokenUsage | None
    ) -> None:
        """Remembers what a prompt was billed, as the bound of the next one."""
        if usage is None or call.prompt is None:
            return
        with self._lock:
            self._anchors[(agent_path, call.model)] = Anchor(
                shape=call.prompt, billed_tokens=usage.total_tokens
            )
            if len(self._anchors) > ANCHORS_MAX:
                self._anchors.popitem(last=False)
