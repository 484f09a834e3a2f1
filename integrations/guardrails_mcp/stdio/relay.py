"""The relay: decides what happens to each line between a host and a server. No I/O.

Host to server, before a line is passed on:

* a tool call is opened with the meter. Refused, it goes no further, and the host gets a
  tool result that says why. Admitted, it is pending under its request's id;
* a cancellation settles the pending call: the server may have done the work;
* everything else passes as it came.

Server to host: the answer to a pending call settles it, but the host need not wait for
that. Answers are kept until `book`, or for the next call, which may depend on them; the
last of them goes to the meter with it, in one round trip. Only two kinds of lines are
looked at before they are passed on: requests for sampling, because they bill the host's
model and may be refused, and messages that are too long.

What the relay does not know: which bytes were written when, and who is still alive.
Whoever moves the bytes says so with `not_written` and `server_is_gone`.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from guardrails import GuardrailsError
from guardrails.system.logs import host_log
from guardrails_mcp.refusals import refusal_result
from guardrails_mcp.rounds import Rounds
from guardrails_mcp.stdio import messages, notices
from guardrails_mcp.stdio.lines import Oversized
from guardrails_mcp.stdio.messages import ToolRequest
from guardrails_mcp.stdio.meters import (
    Answer,
    Ended,
    Meter,
    Metered,
    answers_in,
    now_ms,
)
from guardrails_mcp.stdio.pending import Pending, Waiting
from guardrails_mcp.stdio.sampling import Sampling, settle_asked
from guardrails_mcp.stdio.tasks import Tasks
from guardrails_mcp.wire import SAMPLING

__all__ = ["Passage", "Relay"]

INVALID_REQUEST, INTERNAL_ERROR = -32600, -32603
"""JSON-RPC 2.0, section 5.1."""

_log = host_log()


@dataclass(slots=True)
class Passage:
    """What becomes of a line."""

    to_server: bytes = b""
    to_host: bytes = b""
    opened: tuple[Metered, ...] = ()
    """Calls that `to_server` makes: to be released if it is not written."""


class Relay:
    """One connection between a host and a server. Thread safe.

    Args:
        meter: Returns the meter; asked when the first call comes, and not before.
        bytes_max: The length of a line that is still passed on.
    """

    def __init__(self, meter: Callable[[], Meter], *, bytes_max: int) -> None:
        self._meter = meter
        self._bytes_max = bytes_max
        self._pending = Pending()
        self._sampling = Sampling(meter)
        self._rounds: Rounds[Waiting] = Rounds()
        self._tasks = Tasks()
        self._opening = threading.Lock()
        """Held while a call is opened."""
        self._is_gone = False
        self.calls: int = 0
        """Calls that the host has asked for: each books what was answered before."""
        self._answers: deque[tuple[bytes, int]] = deque()
        """Lines with answers that are not booked yet, and when they came."""
        self._booking = threading.Lock()
        """Held while they are, so that who finds none knows that all are booked."""

    @property
    def is_idle(self) -> bool:
        """Whether no call waits for its answer."""
        return not self._pending

    @property
    def has_answers(self) -> bool:
        """Whether answers wait to be booked."""
        return bool(self._answers)

    # --- host to server -----------------------------------------------------

    def from_host(self, line: bytes | Oversized) -> Passage:
        """Decides about a line of the host.

        Raises:
            OSError: If it is a call, and the server or the guard is gone.
        """
        if isinstance(line, Oversized):
            return self._too_long_for_server(line)
        if not self._sampling.is_waiting and not messages.is_interesting(line):
            return Passage(line)
        batch = None if messages.hides_call(line) else messages.messages_in(line)
        if batch is None or any(map(messages.is_ambiguous, batch)):
            return self._unreadable(line)
        passage, kept, refused = Passage(line), list[object](), list[object]()
        for message in batch:
            refusal = self._before_server(message, len(line) // len(batch), passage)
            if refusal is None:
                kept.append(message)
            elif refusal:
                refused.append(refusal)
        if len(kept) < len(batch):
            # Only a batch of which a member was refused is written anew.
            passage.to_server = messages.line_of(kept) if kept else b""
        if refused:
            is_batch = len(batch) > 1 or line.lstrip()[:1] == b"["
            passage.to_host = messages.line_of(refused if is_batch else refused[0])
        return passage

    def _before_server(
        self, message: object, size_bytes: int, passage: Passage
    ) -> Mapping[str, object] | None:
        """Opens or ends the call that a message means.

        Returns:
            `None` to pass the message on; otherwise it is refused with this answer,
            which is empty if the message asks for none.
        """
        request = messages.tool_request(message, size_bytes)
        if request is not None:
            return self._open(request, passage)
        self.book()
        cancelled = messages.cancelled_key(message)
        if cancelled is not None:
            self._cancel(cancelled)
        elif (waiting := self._tasks.asked(message)) is not None:
            key = messages.key_of(message)
            if key is not None:  # Else nobody will answer it.
                self._pending.add(key, waiting)
        else:
            self._sampling.answered(message, size_bytes)
        return None

    def _open(
        self, request: ToolRequest, passage: Passage
    ) -> Mapping[str, object] | None:
        meter = self._meter()
        with self._opening:
            if self._is_gone:
                raise BrokenPipeError
            return self._opened(request, passage, meter)

    def _opened(
        self, request: ToolRequest, passage: Passage, meter: Meter
    ) -> Mapping[str, object] | None:
        tool = request.tool if isinstance(request.tool, str) else ""
        self.calls += 1
        ended = self._book_but_last()
        earlier = self._rounds.take(tool, request.params)
        if earlier is None:
            try:
                call = meter.open_tool(request, ended)
            except GuardrailsError as error:
                return notices.refused(request, error)
            passage.opened += (call,)
        else:
            if ended is not None:
                ended.book()
            call = earlier.call
            call.go_on()
            settle_asked(earlier.asked, request.params)
        if request.key is None:  # Nobody will answer it: what it did is not known.
            call.settle(Answer())
            return None
        turns = 0 if earlier is None else earlier.turns
        self._pending.add(request.key, Waiting(tool, call, turns=turns))
        return None

    def _unreadable(self, line: bytes) -> Passage:
        if not messages.mentions_call(line):
            return Passage(line)
        # A server that is more lenient than we are might still find a call in it.
        text = "Parse error: a tool call that is no JSON in one line was not passed on"
        key = messages.key_of_raw(line)
        return Passage(to_host=messages.error_line(key, messages.PARSE_ERROR, text))

    def undecided(self, line: bytes | Oversized) -> Passage:
        """Decides about a line of the host when deciding has failed.

        A failure of ours may not become a call that nobody pays for, or every message
        that provokes it is a way past the limits.
        """
        if isinstance(line, Oversized):
            return Passage()
        if not messages.mentions_call(line):
            return Passage(line)
        text = "guardrails failed to check this call, so it was not passed on"
        key = messages.key_of_raw(line)
        return Passage(to_host=messages.error_line(key, INTERNAL_ERROR, text))

    def _too_long_for_server(self, line: Oversized) -> Passage:
        key = messages.key_of_raw(line)
        text = notices.too_long(line.size_bytes, self._bytes_max)
        error = messages.error_line(key, INVALID_REQUEST, text)
        if key is None:
            return Passage(to_host=error)
        if messages.answers_raw(line):
            self._sampling.answered_unread(key)
            return Passage(error)  # The server waits for an answer.
        is_call = messages.mentions_call(line.head)
        failure = messages.failure_line(key, text) if is_call else error
        return Passage(to_host=failure)

    # --- server to host -----------------------------------------------------

    def from_server(self, line: bytes | Oversized) -> Passage:
        """Decides about a line of the server. What it answers waits for `book`."""
        if isinstance(line, Oversized):
            self.book()  # In the order of the answers.
            text = notices.too_long(line.size_bytes, self._bytes_max)
            return self._withheld(line, text)
        if self._sampling.is_waiting and messages.is_interesting(line):
            self._sampling.cancelled(messages.messages_in(line) or ())
        if messages.mentions_sampling(line):
            passage = self._with_sampling(line)
            if passage is not None:
                return passage
        if self._pending.hears:
            self._answers.append((line, now_ms()))
        return Passage(to_host=line)

    def _with_sampling(self, line: bytes) -> Passage | None:
        """Opens the model calls that a line asks for; `None` if all are admitted."""
        batch = messages.messages_in(line)
        if batch is None:
            if messages.is_deep(line):  # A host may read deeper than we do.
                return self._withheld(line, notices.TOO_DEEP)
            if not messages.names_sampling(line):
                return None
            _log.warning(notices.UNREADABLE_SAMPLING)
            return Passage()
        passage, kept = Passage(), list[object]()
        for message in batch:
            if messages.method_of(message) == SAMPLING:
                error = self._sampling.open(message, len(line))
                passage.to_server += error or b""
                kept += [] if error else [message]
            else:
                kept.append(self._open_asked(message, len(line)))
        if kept == batch:
            return None
        is_batch = line.lstrip()[:1] == b"["
        if kept:
            passage.to_host = messages.line_of(kept if is_batch else kept[0])
            self._answers.append((passage.to_host, now_ms()))
        return passage

    def book(self) -> None:
        """Settles the calls that were answered so far."""
        with self._booking:
            for ended in self._ended():
                ended.book()

    def _book_but_last(self) -> Ended | None:
        """Settles all but the last of them, which is returned to be settled."""
        last: Ended | None = None
        with self._booking:
            for ended in self._ended():
                if last is not None:
                    last.book()
                last = ended
        return last

    def _ended(self) -> Iterator[Ended]:
        """Yields the calls that were answered so far, each once."""
        while self._answers:
            line, at_ms = self._answers.popleft()
            for key, answer in answers_in(line, at_ms, self._believes_cost):
                if (ended := self._taken(key, answer)) is not None:
                    yield ended

    def _believes_cost(self, key: str) -> bool:
        waiting = self._pending.first(key)
        return waiting is not None and waiting.call.believes_cost

    def _withheld(self, line: bytes | Oversized, text: str) -> Passage:
        """Tells who waits for a message of the server why it does not come."""
        key = messages.key_of_raw(line)
        is_kept = isinstance(line, bytes)
        error_type = "answer_too_deep" if is_kept else "answer_too_long"
        size_bytes = len(line) if is_kept else line.size_bytes
        error = messages.error_line(key, INVALID_REQUEST, text)
        if messages.asks_raw(line):
            if key is None:
                _log.warning("%s It was a notification.", text)
            return Passage(to_server=error if key is not None else b"")
        if key is None:  # It can only be the one that the host waits for.
            key = self._pending.only()
        answer = Answer(error_type=error_type, size_bytes=size_bytes)
        if key is None or not self._settle(key, answer):
            return Passage(to_host=error)
        return Passage(to_host=messages.failure_line(key, text))

    def _open_asked(self, message: object, size_bytes: int) -> object:
        """Opens the model calls that an answer asks for.

        Returns:
            What the host gets: the answer, or a refusal in its place.
        """
        key = messages.key_of(message) or ""
        try:
            opened = self._sampling.open_asked(message, size_bytes)
        except GuardrailsError as error:
            return messages.response(
                key or "null", refusal_result(error, is_modern=True)
            )
        replaced = self._pending.ask(key, opened)
        if replaced is None:  # Nobody has called anything.
            for call in opened.values():
                call.release()
        else:  # The host was asked that, too.
            for call in replaced.values():
                call.settle(Answer(is_broken_off=True))
        return message

    # --- both ---------------------------------------------------------------

    def server_is_gone(self) -> None:
        """Settles all calls that will not be answered any more, and opens no more."""
        with self._opening:  # Else the call that is being opened would be missed.
            self._is_gone = True
        self.book()
        pending = self._pending.end()
        gone = Answer(error_type="server_gone", is_broken_off=True)
        asking = self._rounds.end()
        for waiting in asking:
            waiting.call.go_on()
        for waiting in (*pending, *asking, *self._tasks.end()):
            waiting.call.settle(gone)
            for call in waiting.asked.values():
                call.settle(gone)
        self._sampling.end(gone)

    def not_written(self, passage: Passage) -> None:
        """Gives the calls of a line back that never reached the server."""
        for call in passage.opened:
            self._pending.drop(call)
            call.release()

    def _cancel(self, key: str) -> None:
        waiting = self._pending.cancel(key)
        if waiting is not None and waiting.task_id is None:  # A task goes on.
            for call in (waiting.call, *waiting.asked.values()):
                call.settle(Answer(is_broken_off=True))

    def _settle(self, key: str | None, answer: Answer) -> bool:
        """Settles the call that is pending under a key, if there is one."""
        if (ended := self._taken(key, answer)) is not None:
            ended.book()
        return ended is not None

    def _taken(self, key: str | None, answer: Answer) -> Ended | None:
        """Takes the call that an answer ends out of those that are pending."""
        if key is None:
            return None
        waiting = self._pending.take(key)
        if waiting is None:
            return None
        if waiting.task_id is not None:
            end = self._tasks.ended(waiting, answer)
            return None if end is None else Ended(waiting.call, end)
        if answer.result is not None and self._tasks.keep(waiting, answer.result):
            return None
        if answer.result is not None and self._rounds.keep(
            waiting.tool, answer.result, waiting
        ):
            waiting.call.pause()
            return None
        for call in waiting.asked.values():  # Asked, but not as a round that goes on.
            call.settle(Answer(is_broken_off=True))
        return Ended(waiting.call, answer)
