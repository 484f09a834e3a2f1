"""Largest: the most that an agent's calls of a model have used so far."""

from collections import OrderedDict

from guardrails.core.calls import ModelCall
from guardrails.core.usage import TokenUsage
from guardrails.system.threads import new_lock

__all__ = ["Largest"]

LARGEST_MAX = 4_096
"""Pairs of agent and model of which is remembered what their largest output was, their
longest thoughts, their largest call, and the largest part of a prompt that only the
provider saw."""

_Key = tuple[str | None, str]
"""Agent and model."""
_Most = OrderedDict[_Key, int]


class Largest:
    """Remembers it in tokens, 0 where nothing is known. Thread safe."""

    def __init__(self) -> None:
        self._outputs: _Most = OrderedDict()
        self._thoughts: _Most = OrderedDict()
        self._parts: _Most = OrderedDict()
        self._calls: _Most = OrderedDict()
        self._lock = new_lock()

    def output(self, call: ModelCall, agent: str | None) -> int:
        """Returns the largest output, thoughts and all."""
        return self._outputs.get((agent, call.model), 0)

    def thoughts(self, call: ModelCall, agent: str | None) -> int:
        """Returns the longest thoughts."""
        return self._thoughts.get((agent, call.model), 0)

    def part(self, call: ModelCall, agent: str | None) -> int:
        """Returns the largest part of a prompt that only the provider saw."""
        return self._parts.get((agent, call.model), 0)

    def call(self, call: ModelCall, agent: str | None) -> int:
        """Returns the largest call, answer and all."""
        return self._calls.get((agent, call.model), 0)

    def learn(self, call: ModelCall, agent: str | None, usage: TokenUsage) -> None:
        """Notes what was reported of a call."""
        key = (agent, call.model)
        self._note(self._outputs, key, usage.output_tokens)
        self._note(self._thoughts, key, usage.reasoning_tokens)
        self._note(self._calls, key, usage.total_tokens)
        if call.billed_before is not None:
            self._note(self._parts, key, usage.input_tokens - call.billed_before)

    def _note(self, most: _Most, key: _Key, tokens: int) -> None:
        if tokens > most.get(key, 0):
            with self._lock:
                most[key] = tokens
                if len(most) > LARGEST_MAX:
                    most.popitem(last=False)
