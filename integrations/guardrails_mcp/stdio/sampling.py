"""Sampling: what a server asks of its host's model, which the host pays for. No I/O.

On connections with a handshake a server asks in requests of its own, which the host
answers. Since 2026-07-28 it asks in the answer to a call, and the next round of that
call brings what the model said. Both are model calls.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from guardrails import GuardrailsError
from guardrails_mcp import wire
from guardrails_mcp.refusals import refusal_text
from guardrails_mcp.stdio import messages
from guardrails_mcp.stdio.meters import Answer, Meter, Metered, answer_of

__all__ = ["Sampling", "settle_asked"]


class Sampling:
    """The model calls that wait for the host's answer. Thread safe.

    Args:
        meter: Returns the meter.
    """

    def __init__(self, meter: Callable[[], Meter]) -> None:
        self._meter = meter
        self._waiting: dict[str, Metered] = {}
        self._lock = threading.Lock()

    @property
    def is_waiting(self) -> bool:
        """Whether a request waits for the host's answer."""
        return bool(self._waiting)

    def open(self, message: object, size_bytes: int) -> bytes | None:
        """Opens the model call that a request asks for.

        Returns:
            The refusal for the server, if it is refused.
        """
        key = messages.key_of(message)
        try:
            call = self._meter().open_sampling(messages.params_of(message), size_bytes)
        except GuardrailsError as error:
            return messages.error_line(key, wire.REJECTED, refusal_text(error))
        replaced = self._taken(key)
        with self._lock:
            self._waiting[key or ""] = call
        if replaced is not None:  # Only one of the two can be answered.
            replaced.settle(Answer(is_broken_off=True))
        return None

    def open_asked(self, message: object, size_bytes: int) -> dict[str, Metered]:
        """Opens the model calls that the answer to a call asks for, by their names.

        Raises:
            GuardrailsError: If one of them is refused; then none is open.
        """
        opened: dict[str, Metered] = {}
        try:
            for name, params in messages.models_asked(message).items():
                opened[name] = self._meter().open_sampling(params, size_bytes)
        except GuardrailsError:
            for call in opened.values():
                call.release()
            raise
        return opened

    def answered(self, message: object, size_bytes: int) -> None:
        """Settles the model call that a message of the host answers, if it does."""
        if self._waiting and messages.is_response(message):
            call = self._taken(messages.key_of(message))
            if call is not None:
                call.settle(answer_of(cast("messages.Message", message), size_bytes))

    def answered_unread(self, key: str) -> None:
        """Settles the model call whose answer was too long to be read."""
        call = self._taken(key)
        if call is not None:
            call.settle(Answer(error_type="answer_too_long"))

    def cancelled(self, batch: Iterable[object]) -> None:
        """Settles the model calls that messages of the server take back.

        The host may have made them, and does not answer any more.
        """
        for message in batch:
            key = messages.cancelled_key(message)
            call = None if key is None else self._taken(key)
            if call is not None:
                call.settle(Answer(is_broken_off=True))

    def end(self, answer: Answer) -> None:
        """Settles all that will not be answered any more."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for call in waiting.values():
            call.settle(answer)

    def _taken(self, key: str | None) -> Metered | None:
        with self._lock:
            return self._waiting.pop(key or "", None)


def settle_asked(asked: Mapping[str, Metered], params: Mapping[str, object]) -> None:
    """Settles what an earlier round has asked of the host's model.

    Args:
        asked: The model calls, by the names of the requests.
        params: Of the next round.
    """
    found = params.get("inputResponses")
    responses = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    for name, call in asked.items():
        response = responses.get(name)
        if isinstance(response, dict):
            result = cast("Mapping[str, object]", response)
            size_bytes = len(messages.line_of(response))
            call.settle(Answer(result=result, size_bytes=size_bytes))
        else:  # The host, or the person before it, did not make the call.
            call.settle(Answer(error_type="not_answered"))
