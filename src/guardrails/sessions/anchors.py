"""Anchors: what prompts were billed, which says more of those that extend them."""

from collections import OrderedDict
from dataclasses import replace

from guardrails.core.calls import ModelCall
from guardrails.core.estimates import (
    Anchor,
    extends,
    input_tokens_max,
    unseen_parts,
)
from guardrails.core.layers import BilledPrompt, Piece
from guardrails.core.usage import TokenUsage
from guardrails.engine import Engine
from guardrails.system.threads import new_lock

__all__ = ["Anchors"]

ANCHORS_MAX = 64
"""Prompts that are remembered: one per nested agent and model."""


class Anchors:
    """The last billed prompt of each agent and model. Thread safe.

    Args:
        engine: Knows what parts of prompts came to that only providers see.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = new_lock()
        self._anchors: OrderedDict[tuple[tuple[str, ...], str], Anchor] = OrderedDict()

    def bounded(self, call: ModelCall, agent_path: tuple[str, ...]) -> ModelCall:
        """Returns the call with its input bounded by its prompt, if that is known."""
        if call.prompt is None:
            return call
        anchor = self._anchors.get((agent_path, call.model))
        tokens = input_tokens_max(call.prompt, anchor)
        if not call.prompt.has_unseen:
            return replace(call, input_tokens_max=tokens)
        if anchor is not None and not extends(call.prompt, anchor.shape):
            anchor = None
        tokens += self._engine.charges.unseen_tokens(
            call,
            agent_path[-1] if agent_path else None,
            parts=unseen_parts(call.prompt, anchor),
            seen_tokens=tokens,
            now_ms=self._engine.clock.now_ms(),
        )
        billed_before = 0 if anchor is None else anchor.billed_tokens
        return replace(call, input_tokens_max=tokens, billed_before=billed_before)

    def before(
        self, call: ModelCall, agent_path: tuple[str, ...]
    ) -> BilledPrompt | None:
        """Returns how the prompt was split that this one goes on from."""
        anchor = self._anchors.get((agent_path, call.model))
        if anchor is None or call.prompt is None:
            return None
        return anchor.prompt if extends(call.prompt, anchor.shape) else None

    def learn(
        self,
        call: ModelCall,
        agent_path: tuple[str, ...],
        usage: TokenUsage | None,
        *,
        prompt: BilledPrompt | None = None,
        written: Piece | None = None,
    ) -> None:
        """Remembers what a prompt was billed, as the bound of the next one.

        Args:
            call: With the prompt.
            agent_path: Who made it.
            usage: As reported; without a report of input nothing is learnt.
            prompt: How its bill was split.
            written: What the model wrote.
        """
        if usage is None or not usage.input_tokens or call.prompt is None:
            return
        with self._lock:
            self._anchors[(agent_path, call.model)] = Anchor(
                shape=call.prompt,
                billed_tokens=usage.total_tokens,
                prompt=prompt,
                written=written,
            )
            if len(self._anchors) > ANCHORS_MAX:
                self._anchors.popitem(last=False)
