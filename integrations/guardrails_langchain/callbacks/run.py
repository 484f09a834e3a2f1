"""One run: whose a LangChain run is, and what it has to book. See `runs.py`."""

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from langchain_core.outputs import ChatGenerationChunk

from guardrails.core.attribution import Attribution
from guardrails.core.calls import Outcome
from guardrails.errors import SessionStopped
from guardrails.sessions.guarded_call import GuardedCall
from guardrails.sessions.session import Session
from guardrails.system.threads import TaskReference, running_task
from guardrails_langchain.reading.translate import outcome_of_left_stream

__all__ = ["Root", "Run"]


@dataclass(slots=True, eq=False)
class Root:
    """What all runs below one root run share."""

    run_id: UUID
    session: Session
    owns_session: bool
    """The root run opened the session, so its end closes it."""
    is_waiting: bool = False
    """A graph below was interrupted, for a person to answer."""
    stops: dict[Session, SessionStopped] = field(default_factory=dict)
    """Stops that were raised below; every later gate of the session raises its
    stop again, whether or not the store remembers it."""
    runs: dict[UUID, "Run"] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Run:
    """One chain, model or tool run."""

    run_id: UUID
    parent: "Run | None"
    root: Root
    session: Session
    """Whom its calls are charged to."""
    frame: Session
    """The innermost session that code entered, or that the root run opened."""
    attribution: Attribution
    call: GuardedCall | None = None
    is_decision: bool = False
    """Its call is that of a model which LangChain reports as a chain."""
    batch: object | None = None
    """The object that all model runs of one batch share; they start together."""
    is_billed_in_batch: bool = False
    """What it used is in the report of another run of its batch."""
    received_tokens_max: int = 0
    """Bound of what a stream has brought so far."""
    reports: list[ChatGenerationChunk] = field(default_factory=list)
    """What a stream has said of its usage. LangChain keeps all parts of it as long."""
    has_finished: bool = False
    """The stream has said that the model has ended its answer."""
    metadata: Mapping[str, object] | None = None
    """As reported at its start, the same object to all handlers."""
    stop: SessionStopped | None = None
    """A stop that was raised in here and has not left this run yet."""
    task: TaskReference | None = field(default_factory=running_task)
    """The one that it was started in, and that its end comes from."""
    thread: threading.Thread = field(default_factory=threading.current_thread)
    """The one that it was started in."""
    watch: "Callable[[asyncio.Task[object]], None] | None" = None
    """Is told of the end of that task, for a call that nothing else may end."""
    waiter: "weakref.ref[object] | None" = None
    """Is told when nobody in that task waits for the call any more."""

    @property
    def at_work(self) -> "asyncio.Task[object] | None":
        """The other task of this event loop that makes its call, and is not to end."""
        task = None if self.task is None else self.task()
        if self.call is None or task is None or running_task() in (None, self.task):
            return None
        is_beside = task.get_loop() is asyncio.get_running_loop()
        return task if is_beside and not task.done() and not task.cancelling() else None

    @property
    def is_elsewhere(self) -> bool:
        """Whether another thread makes its call, outside of asyncio.

        LangChain tells of every end of such a call, and nobody else can.
        """
        here = threading.current_thread()
        is_in_thread = self.call is not None and self.task is None
        return is_in_thread and self.thread is not here and self.thread.is_alive()

    @property
    def broken_off(self) -> Outcome:
        """What is known of its call if nothing more is heard of it."""
        return outcome_of_left_stream(
            self.reports, self.received_tokens_max, is_whole=self.has_finished
        )

    def book(self, outcome: Outcome) -> None:
        """Books its call, if it has one that is not booked yet."""
        if self.call is not None:
            self.call.leave_scope()
            self.call.finish(outcome)

    def give_back(self) -> None:
        """Gives its call back, if it has one: it was not made."""
        if self.call is not None:
            self.call.leave_scope()
            self.call.release()

    @property
    def above(self) -> "Run | None":
        """The run that it ends in; `None` if it ends in the code of its frame."""
        parent = self.parent
        return parent if parent and parent.frame is self.frame else None

    @property
    def deciding(self) -> "Iterator[Run]":
        """The runs around it whose call is reported as a chain, from the inside out."""
        run = self.parent
        while run is not None:
            if run.is_decision:
                yield run
            run = run.parent

    @property
    def latched(self) -> SessionStopped | None:
        """The stop that its session, or that of the root run, has ended with."""
        stops = self.root.stops
        return stops.get(self.session) or stops.get(self.root.session)
