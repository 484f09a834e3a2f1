"""Tasks: calls whose results, and so their costs, are fetched later. No I/O.

Since 2025-11-25 a server may answer a call with a task, and the host asks for its
result by `tasks/result`, or by `tasks/get` since 2026-07-28. The call is booked when
its task is created, except where the operator believes the cost in its result: then it
stays on hold until that comes. Nobody has to fetch it: what does not come is booked by
the tool's price at the end.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from guardrails_mcp import wire
from guardrails_mcp.stdio import messages
from guardrails_mcp.stdio.meters import Answer
from guardrails_mcp.stdio.pending import Waiting

__all__ = ["Tasks"]

TASKS_MAX = 1_024
"""Tasks whose results are waited for; the oldest is booked beyond that."""


class Tasks:
    """The calls that go on as tasks until their costs are known. Thread safe."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, Waiting] = OrderedDict()
        """Oldest first."""
        self._lock = threading.Lock()

    def keep(self, waiting: Waiting, result: Mapping[str, object]) -> bool:
        """Keeps a call if its result is a task whose own result says what it cost."""
        task_id = wire.task_of(result)
        if task_id is None or not waiting.call.believes_cost:
            return False
        waiting.call.pause()
        waiting.task_id = task_id
        with self._lock:
            # A server that counts its tasks anew has forgotten the one before.
            given_up = self._calls.pop(task_id, None)
            self._calls[task_id] = waiting
            if len(self._calls) > TASKS_MAX:
                given_up = self._calls.popitem(last=False)[1]
        if given_up is not None:
            given_up.call.settle(Answer())
        return True

    def asked(self, message: object) -> Waiting | None:
        """Returns the call of whose task a message of the host asks something."""
        if messages.method_of(message) not in wire.FETCHES:
            return None
        task_id = messages.params_of(message).get("taskId")
        with self._lock:
            return self._calls.get(task_id) if isinstance(task_id, str) else None

    def ended(self, waiting: Waiting, answer: Answer) -> Answer | None:
        """Returns what ends a call, of whose task the host was told something.

        Returns:
            `None` if the task goes on, for all that is known.
        """
        end = _end(answer)
        if end is not None:
            with self._lock:
                if self._calls.get(waiting.task_id or "") is waiting:
                    del self._calls[waiting.task_id or ""]
        return end

    def end(self) -> list[Waiting]:
        """Takes all of them out."""
        with self._lock:
            calls, self._calls = self._calls, OrderedDict()
        return list(calls.values())


def _end(answer: Answer) -> Answer | None:
    result = answer.result
    if result is None:  # Too long to be read, or an error, which is none of the tool's.
        return answer if answer.edges else None
    inner, status = result.get("result"), result.get("status")
    if isinstance(inner, dict):
        return replace(answer, result=cast("Mapping[str, object]", inner))
    if status in ("failed", "cancelled"):
        is_cut = status == "cancelled"
        return replace(
            answer, result=None, error_type=f"task_{status}", is_broken_off=is_cut
        )
    return answer if wire.content_of(result) is not None else None
