"""Efforts: which calls of a session are made again, as far as this process has seen.

A call is an attempt at the same thing if the one before it failed: a tool's with the
same arguments, a model's by the same agent with a prompt of the same sizes. A call is a
repeat if it brought the same result for the same arguments again.
"""

from collections import OrderedDict
from collections.abc import Hashable

from guardrails.core.calls import CallStatus, ModelCall, ToolCall
from guardrails.core.loops import ToolTrace
from guardrails.system.threads import new_lock

__all__ = ["Efforts"]

FAILED_MAX = 256
"""Calls that failed and may be tried again; the oldest are given up first."""

SEEN_MAX = 64
"""Results of tools that are remembered, as many as the ledger does."""

Path = tuple[str, ...]


class Efforts:
    """What was tried in one session. Thread safe."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._failed: OrderedDict[Hashable, int] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()

    def attempt(self, call: ModelCall | ToolCall, path: Path) -> int:
        """Returns the how-manieth attempt a call of these agents is, from 1."""
        return 1 + self._failed.get(_key(call, path), 0) if self._failed else 1

    def ended(self, call: ModelCall | ToolCall, path: Path, status: CallStatus) -> None:
        """Notes how a call ended."""
        if status is CallStatus.OK and not self._failed:
            return  # The usual case: a long prompt takes a while to be hashed.
        key = _key(call, path)
        if key is None:
            return
        with self._lock:
            earlier = self._failed.pop(key, 0)
            if status is not CallStatus.OK:
                self._failed[key] = earlier + 1
                if len(self._failed) > FAILED_MAX:
                    self._failed.popitem(last=False)

    def repeats(self, trace: ToolTrace) -> bool:
        """Notes what a tool's call has brought; returns whether it is nothing new."""
        if trace.result_digest is None:
            return False
        key = (trace.tool, trace.arguments_digest, trace.result_digest)
        with self._lock:
            is_known = key in self._seen
            self._seen[key] = None
            self._seen.move_to_end(key)
            if len(self._seen) > SEEN_MAX:
                self._seen.popitem(last=False)
        return is_known


def _key(call: ModelCall | ToolCall, path: Path) -> Hashable:
    """Returns what is the same of two attempts; `None` if it cannot be told."""
    if isinstance(call, ToolCall):
        digest = call.arguments_digest
        return None if digest is None else (path, call.name, digest)
    size = call.prompt or call.input_tokens_max
    return (path, size) if size else None
