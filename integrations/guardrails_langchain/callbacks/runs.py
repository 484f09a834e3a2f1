"""Runs: whose each LangChain run is, and what became of a stop raised in it.

Theory of operation
-------------------
LangChain reports runs as a tree: every chain, model and tool call has an id and
its parent's. One with callbacks of its own is told of no parent: that is the run
around the running code. A run belongs to the innermost open session of its context,
else to its parent's, else a root run opens a session of its own, named by its
thread. All handlers of one guard share one tree, so a run that several of them
see counts once.

A stop raised at a model or tool start should travel up through the runs above
it and out to the user; each run on its way ends with an error. A run that ends
*well* although a stop was raised inside has swallowed it: then it is raised
again, at that end or at the next start below it. Runs beside it are left
alone: their results are paid for and stay in the checkpoint.

It travels up to the topmost run of its *frame*, the innermost session that code
entered by `with`. There it reaches that code, which may handle it: the session
is over, not the run around it. What arrives there as another error, or not at
all, is raised again when the session is left.

Not every start has an end: a cancelled call reports nothing. What is open when its
task is broken off or waits no longer, its root run ends, or its session is left, is
booked as broken off.
A call that another task or thread is still at, as after a `gather` of which one has
failed, is paid for in full: it keeps its hold until its end, or that of its task.

The id of a run may come again while it is open, because people can choose it: in a
second call at once, or after one that was cancelled. Whose end is reported then is
not known, so that of the first all is booked that was reserved.
"""

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from uuid import UUID

from guardrails.core.attribution import clean_name
from guardrails.core.calls import Outcome
from guardrails.engine import Engine
from guardrails.sessions.scope import session_of
from guardrails.sessions.session import Session
from guardrails.system.threads import WeakList
from guardrails_langchain.callbacks.around import running_id
from guardrails_langchain.callbacks.metadata import (
    NAMES,
    names_of,
    nested,
    session_name_of,
)
from guardrails_langchain.callbacks.run import Root, Run
from guardrails_langchain.callbacks.waiting import is_inside, kept_while_waiting

__all__ = ["RunTree", "started", "withdraw"]

STARTED_MAX = 256
"""Runs that are collected before those that have ended are left out."""

RUNS_MAX = 10_000
"""Runs that are followed at once. Ends can be missing for ever, so the oldest
are given up beyond it; their calls are booked as broken off."""


_trees: "WeakList[RunTree]" = WeakList()
"""The trees of all guards."""


def withdraw(run_id: UUID) -> None:
    """Gives back what any guard admitted of a run that makes no call after all."""
    for tree in _trees.alive():
        run = tree.end(run_id)
        if run is not None:
            run.give_back()


class RunTree:
    """Follows the runs of one guard. Thread safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._runs: dict[UUID, Run] = {}
        self._awaited: weakref.WeakKeyDictionary[asyncio.Task[object], Run] = (
            weakref.WeakKeyDictionary()
        )
        """The call that a task waits for, and does nothing else meanwhile."""
        _trees.add(self)

    def find(self, run_id: UUID | None) -> Run | None:
        """Returns a run that is being followed."""
        return None if run_id is None else self._runs.get(run_id)

    def start(
        self,
        run_id: UUID,
        *,
        parent_run_id: UUID | None,
        metadata: Mapping[str, object] | None,
        options: Mapping[str, object],
    ) -> Run | None:
        """Follows a run; `None` if another handler of this guard does so."""
        with self._lock:
            known = self._runs.get(run_id)
            if known is not None:
                if known.metadata is metadata:
                    return None
                self._give_up(known, Outcome())
            parent = self.find(parent_run_id or running_id())
            if parent is None:
                run = self._root(run_id, metadata or {}, options)
            else:
                run = self._child(run_id, parent, metadata or {})
            run.metadata = metadata
            self._pass_by(run)
            self._runs[run_id] = run
            run.root.runs[run_id] = run
            found = _started.get()
            if found is not None:
                found.append(run_id)
                if len(found) > STARTED_MAX:
                    found[:] = [one for one in found if one in self._runs]
            if len(self._runs) > RUNS_MAX:
                self._give_up(next(iter(self._runs.values())))
            return run

    def watch(self, run: Run) -> None:
        """Has a call booked when its task is broken off, of whose end nobody tells.

        Its root run may have ended before, or go on for long: what it held would look
        like a call in flight. Not of a completion model: langchain-core (1.8.3) starts
        each of its prompts in a task of its own.
        """
        task = None if run.task is None else run.task()
        if task is not None:
            self._watch(run, task, lambda ended: self._broken_off(run, ended))
            self._await(run, task)

    def end(self, run_id: UUID) -> Run | None:
        """Stops following a run, and all below it if it is a root."""
        with self._lock:
            run = self._runs.pop(run_id, None)
            if run is None:
                return None
            run.root.runs.pop(run_id, None)
            self._unwatch(run)
            left = list(run.root.runs.values()) if run.parent is None else []
        for child in left:
            self._left(child)
        return run

    def give_up(self, run_ids: Sequence[UUID]) -> None:
        """Books what is open in runs that were broken off."""
        for run_id in run_ids:
            run = self.find(run_id)
            if run is not None:
                self._give_up(run)

    def handle(self, run_id: UUID | None) -> None:
        """Notes that a stop was handled inside a run, and surfaces no further."""
        run = self.find(run_id)
        if run is not None:
            run.stop = run.frame.unsurfaced = None

    def unlatch(self, run_id: UUID | None) -> None:
        """Forgets the stops raised so far: the store has lifted what was lifted."""
        run = self.find(run_id)
        if run is not None:
            run.root.stops.clear()

    def batch(self, run: Run) -> list[Run]:
        """Returns the other runs that were started for the same batch."""
        if run.batch is None:
            return []
        with self._lock:
            return [
                other
                for other in self._runs.values()
                if other is not run and other.batch is run.batch
            ]

    def _follow(self, session: Session) -> None:
        """Has what is open in a session booked when it is left."""
        if self.leave not in session.exits:
            session.exits.append(self.leave)

    def leave(self, session: Session) -> None:
        """Books what is open in a session that is left."""
        with self._lock:
            for run in self._runs.values():
                run.root.stops.pop(session, None)
            left = [run for run in self._runs.values() if run.session is session]
        for run in left:
            self._left(run)

    def _left(self, run: Run) -> None:
        """Books what is open in a run, at once or when its call has ended."""
        task = run.at_work
        if task is not None:
            self._watch(run, task, lambda _: self._outlived(run))
        elif not run.is_elsewhere:
            self._give_up(run)

    def _watch(
        self,
        run: Run,
        task: "asyncio.Task[object]",
        watch: "Callable[[asyncio.Task[object]], None]",
    ) -> None:
        if run.watch is not None:
            task.remove_done_callback(run.watch)
        run.watch = watch
        task.add_done_callback(watch)

    def _await(self, run: Run, task: "asyncio.Task[object]") -> None:
        """Has a call booked when its task goes on without it, as after a time limit."""
        kept = kept_while_waiting()
        if kept is None:
            return
        loop, context = task.get_loop(), contextvars.copy_context()

        def let_go(_: object) -> None:
            # Garbage may be collected anywhere, also where a ledger is in use.
            with contextlib.suppress(RuntimeError):  # The loop is closed.
                loop.call_soon_threadsafe(self._outlived, run, context=context)

        run.waiter = weakref.ref(kept, let_go)
        with self._lock:
            self._awaited[task] = run

    def _pass_by(self, run: Run) -> None:
        """Books the call that the task of a run that starts waits for no longer.

        What it kept may be kept by an error that somebody holds.
        """
        task = None if run.task is None else run.task()
        call = None if task is None else self._awaited.get(task)
        if call is None:
            return
        kept = None if call.waiter is None else call.waiter()
        if kept is None or not is_inside(kept):
            self._give_up(call)

    def _unwatch(self, run: Run) -> None:
        """Takes from a task, which may live for ever, what waits for its end."""
        watch, task = run.watch, None if run.task is None else run.task()
        run.waiter = None
        if task is None:
            return
        if watch is not None:
            task.remove_done_callback(watch)
        if self._awaited.get(task) is run:
            del self._awaited[task]

    def _outlived(self, run: Run) -> None:
        """Books what is open in a run whose task has ended, or goes on without it."""
        if self.find(run.run_id) is run:
            self._give_up(run)

    def _broken_off(self, run: Run, task: "asyncio.Task[object]") -> None:
        """Books a call whose task was broken off; of a stream another may read on."""
        # Asking for the exception would keep asyncio from saying that nobody did.
        if task.cancelled() or getattr(task, "_exception", None) is not None:
            self._outlived(run)

    def _give_up(self, run: Run, outcome: Outcome | None = None) -> None:
        with self._lock:
            self._runs.pop(run.run_id, None)
            run.root.runs.pop(run.run_id, None)
            self._unwatch(run)
        run.book(outcome or run.broken_off)

    def _root(
        self,
        run_id: UUID,
        metadata: Mapping[str, object],
        options: Mapping[str, object],
    ) -> Run:
        session = session_of(self._engine)
        owns_session = session is None
        names = names_of(metadata) | dict(options)
        session_name = session_name_of(metadata)
        if session is None:
            names.setdefault("session_id", session_name)
            names.setdefault("agent", clean_name(metadata.get("lc_agent_name")))
            session = self._engine.open_session(
                {key: name for key, name in names.items() if name is not None}
            )
        elif session_name is not None:
            session.bind(session_name)
        self._follow(session)
        session.activate()
        root = Root(run_id=run_id, session=session, owns_session=owns_session)
        who = session.attribution
        # Metadata may come with a request: what code says is not theirs to change.
        missing = {
            key: clean_name(names.get(key)) for key in NAMES if who.value(key) is None
        }
        attribution = replace(
            who,
            session_id=session.session_id,
            agent_run_id=str(run_id),
            **missing,
        )
        return Run(
            run_id=run_id,
            parent=None,
            root=root,
            session=session,
            frame=session,
            attribution=nested(attribution, metadata),
        )

    def _child(self, run_id: UUID, parent: Run, metadata: Mapping[str, object]) -> Run:
        session = session_of(self._engine) or parent.session
        attribution = parent.attribution
        if session is not parent.session:
            self._follow(session)
            attribution = replace(
                session.attribution,
                session_id=session.session_id,
                agent_run_id=attribution.agent_run_id,
            )
        return Run(
            run_id=run_id,
            parent=parent,
            root=parent.root,
            session=session,
            frame=session if session.is_entered else parent.frame,
            attribution=nested(attribution, metadata),
        )


_started: ContextVar[list[UUID] | None] = ContextVar("guardrails_started", default=None)


@contextlib.contextmanager
def started() -> Generator[list[UUID]]:
    """Collects the ids of the runs that are started inside."""
    found: list[UUID] = []
    token = _started.set(found)
    try:
        yield found
    finally:
        _started.reset(token)
