"""Largest: the most that an agent's calls of a model have used so far.

It bounds what a call has used whose provider does not say that, or not all of it.
"""

from collections import OrderedDict
from dataclasses import replace

from guardrails.core.admission import Reservation
from guardrails.core.calls import ModelCall, Outcome
from guardrails.core.usage import TOKENS_MAX, TokenUsage
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

    def bounded(self, reservation: Reservation, outcome: Outcome) -> TokenUsage:
        """Bounds the usage of a call that reported none, by its reservation."""
        call, input_tokens = reservation.call, reservation.input_tokens
        reserved = reservation.op.tokens - input_tokens
        output = outcome.output_tokens_max
        if output is None:
            output = reserved
        elif output and isinstance(call, ModelCall):
            agent = reservation.op.charging.attribution.agent
            if call.thinks or self.thoughts(call, agent):
                output = max(output, reserved)
            # What was received is counted in bytes, the request's own bound in tokens.
            output = min(output, call.output_tokens_max or output)
        return TokenUsage(
            input_tokens=input_tokens,
            output_tokens=max(0, min(output, TOKENS_MAX - input_tokens)),
        )

    def completed(
        self, usage: TokenUsage, reservation: Reservation, outcome: Outcome
    ) -> TokenUsage:
        """Bounds what a report of a call leaves out."""
        if outcome.is_input_unknown:
            most = TOKENS_MAX - usage.output_tokens
            input_tokens = min(reservation.input_tokens, most)
            usage = replace(usage, input_tokens=input_tokens)
        if outcome.is_output_unknown:
            most = TOKENS_MAX - usage.input_tokens
            bounded = self.bounded(reservation, outcome).output_tokens
            output_tokens = max(usage.output_tokens, min(bounded, most))
            usage = replace(usage, output_tokens=output_tokens)
        return usage

    def _note(self, most: _Most, key: _Key, tokens: int) -> None:
        if tokens > most.get(key, 0):
            with self._lock:
                most[key] = tokens
                if len(most) > LARGEST_MAX:
                    most.popitem(last=False)
