"""The resilient store: what happens while the real store cannot be reached.

The first failure ends the asking: until the store is back no call waits for it, and
each is answered by its budgets' policy (`outage.py`). What happened meanwhile is
kept (`backlog.py`, `journal.py`) and booked by a thread that tries every second.
The order does not matter, since every operation names all that it needs, and
applying it again is safe, since it is idempotent by its id.

A store that may have lost what it had acknowledged is told again: what was booked
in the minute before it was last whole, and which calls are open. Nothing is ever added
up from here.
"""

import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from guardrails.core.operations import (
    Close,
    Operation,
    Release,
    Released,
    Reserve,
    Reserved,
    Settle,
    Settled,
    Sweep,
    Swept,
    Turn,
    Turned,
    Verdict,
)
from guardrails.core.policy import OnStoreError
from guardrails.core.tracebacks import interrupt_in, let_through
from guardrails.errors import StoreUnavailable
from guardrails.ports import Clock, History, RemoteStore, Store
from guardrails.stores.backlog import Backlog, Entry, MemoryBacklog
from guardrails.stores.resilient.background import Background
from guardrails.stores.resilient.listener import Listener
from guardrails.stores.resilient.outage import Outage
from guardrails.stores.resilient.tallies import Tallies
from guardrails.system.forks import close_at_fork
from guardrails.system.interrupts import all_or_nothing
from guardrails.system.logs import host_log
from guardrails.system.threads import asking

if TYPE_CHECKING:  # Not everybody needs one, and it takes long to load.
    from guardrails.stores.resilient.journal import Journal

__all__ = ["ResilientStore"]

PROBE_MS = 1_000
"""How often a store that failed is tried again."""

BATCH = 100
"""Operations that are read from the backlog at once."""

ROUNDS_MAX = 10_000
"""Batches of one recovery. New calls add to the backlog while it is booked; after
so many they no longer wait for its end."""

LAST_MS = 30
"""How long calls wait at most while the last of a backlog are booked, which takes some
milliseconds. A busy process adds some all the time, and would never be done."""

SAY_AGAIN_MS = 60_000
"""How often people are told of one trouble, whether it lasts or comes again: where only
a right is missing, a server that refuses calls answers whoever asks if it is back."""

R = TypeVar("R")

_log = host_log()


class ResilientStore:
    """Wraps a store with a failure policy. Thread safe, and safe to fork.

    Args:
        store: The real store.
        on_error: What to do while it cannot be reached, where a budget does not say.
        clock: Times the probes.
        journal: Keeps on disk what a store on another machine may lose, and what
            processes have left that died while theirs was away.
        begin_journal: Opens one when the store first fails, if there is none.
        key: The store's random key, if it was read before.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_error: OnStoreError,
        clock: Clock,
        journal: "Journal | None" = None,
        begin_journal: "Callable[[], Journal | None] | None" = None,
        key: bytes | None = None,
    ) -> None:
        self._store = store
        self.on_error: OnStoreError = on_error
        """May be set at any time; an outage that has begun keeps what held then."""
        self._clock = clock
        self._journal = journal
        self._begin_journal = begin_journal
        self._backlog: Backlog = MemoryBacklog() if journal is None else journal
        self._is_booked = threading.Event()
        self._last_until_ms = 0
        """Until when calls wait at most for the end of an outage."""
        self._unwritten = MemoryBacklog()
        """What the journal could not take: it lives as long as the process."""
        self._lock = threading.RLock()
        self._outage: Outage | None = None
        self._key = key
        self._background = Background(clock)
        self._said_at_ms: dict[str, int] = {}
        """When each trouble of the last minute was told, by its reason."""
        self._degraded_ms = 0
        self._doubt_now: object | None = None
        """Stands for the last doubt that the store has lost something, until it was
        told all again."""
        self._process_id = os.getpid()
        self.listener: Listener = Listener()
        self.degraded_operations: int = 0
        """Operations that the real store did not answer in time."""
        # Asked of the class: a store is not touched before it is needed.
        is_remote = hasattr(type(store), "last_seen")
        remote = self._remote = cast("RemoteStore", store) if is_remote else None
        self._tallies = Tallies(remote.last_seen if remote else None)
        close_at_fork(self)
        if remote is not None:
            remote.watch(_weakly(self._doubt))
        if journal is not None:
            self._background.soon(0, self._adopt)

    @property
    def history(self) -> History:
        """What was spent, as far as the real store knows."""
        return self._store.history

    @property
    def is_degraded(self) -> bool:
        """Whether limits are kept without the real store."""
        return self._outage is not None

    @property
    def degraded_seconds(self) -> float:
        """How long, in all, limits were kept without the real store."""
        outage, ms = self._outage, self._degraded_ms
        if outage is not None:
            ms += self._clock.monotonic_ms() - outage.since_ms
        return ms / 1000

    @property
    def waiting(self) -> int:
        """How many operations the store has yet to acknowledge."""
        return len(self._backlog) + len(self._unwritten)

    def execute(self, operation: Operation[R]) -> R:
        """Applies an operation to the store, or by the policy.

        Raises:
            StoreUnavailable: If the call may not be made without the store, or the
                operation is a question or an order of a person. Also if a signal's
                handler asks while the thread that it interrupts is asking.
        """
        thread_id = threading.get_ident()
        if thread_id in asking:
            return cast("R", self._put_off(operation))
        try:
            asking.add(thread_id)
            return self._executed(operation)
        except BaseException as error:
            if interrupt_in(error) is not None:
                # Whoever is interrupted tells it again, but may be interrupted, too.
                op = operation.settle if isinstance(operation, Turn) else operation
                if isinstance(op, Settle | Release):
                    self._book_in(PROBE_MS, op)
            raise
        finally:
            asking.discard(thread_id)

    def _executed(self, operation: Operation[R]) -> R:
        outage = None if self._outage is None else self._outage_now()
        if outage is not None:
            return cast("R", self._answered(operation, None, outage))
        self._before(operation)
        try:
            reply = self._store.execute(operation)
        except Exception as error:
            return cast("R", self._answered(operation, _unavailable(error), None))
        self._acknowledged(operation, reply)
        return reply

    def _put_off(self, operation: Operation[Any]) -> object:
        """Answers what comes in the middle of another operation of its thread.

        What must be booked is booked in a moment, by another thread.
        """
        match operation:
            case Settle() | Release():
                self._book_in(0, operation)
                is_call = isinstance(operation, Settle)
                return Settled() if is_call else Released(is_applied=True)
            case Sweep():
                return Swept(unconfirmed=0, forgotten=0)
            case Close():  # As while the store is away.
                return None
            case _:
                raise StoreUnavailable(
                    "store: a signal's handler, or the end of an object, interrupted "
                    "another operation of its thread, and cannot ask meanwhile. Have "
                    "it note what there is to do, and do it outside."
                )

    def _book_in(self, ms: int, op: Settle | Release) -> None:
        self._unwritten.keep(op)
        self._background.soon(ms, self._probe)

    async def aexecute(self, operation: Operation[R]) -> R:
        """Like `execute`, without blocking the event loop for long."""
        outage = None if self._outage is None else self._outage_now()
        if outage is not None:
            return cast("R", self._answered(operation, None, outage))
        self._before(operation)
        try:
            reply = await self._store.aexecute(operation)
        except Exception as error:
            return cast("R", self._answered(operation, _unavailable(error), None))
        self._acknowledged(operation, reply)
        return reply

    def secret(self) -> bytes:
        """Returns the real store's random key, as it was first read.

        Raises:
            StoreUnavailable: If it was never read, and the store is away.
        """
        if self._key is None:
            outage = self._outage
            if outage is not None:
                raise StoreUnavailable(outage.reason)
            try:
                self._key = self._store.secret()
            except StoreUnavailable as error:
                self._failed(error, None)
                raise
        return self._key

    def begin_outage(self, error: StoreUnavailable) -> None:
        """Goes on by the policy from now on: the store was away when it was asked."""
        self._failed(error, None)

    def close(self) -> None:
        """Tries to book what is left, and closes the store."""
        try:
            self._book()
            if self._journal is not None and self._journal.is_unheard:
                self._store.secret()  # It may have lost something since.
                self._journal.heard(self._clock.now_ms())
            if self._doubt_now is not None:
                self._tell_again()  # Somebody may be at it, whom no exit waits for.
        except StoreUnavailable:
            self._say_what_is_left()
        else:
            self._end_outage()
        self._backlog.close()
        if not self.waiting:  # The next start goes on with what is in the journal.
            self._end_outage(is_back=False)
        self._store.close()

    def _say_what_is_left(self) -> None:
        if not self.waiting:
            return
        where = "their cost is missing from reports."
        if self._journal is not None:
            where = f"they are in {self._journal.path} until the next start."
        _log.error(
            "guardrails: closing. Operations that the store did not take: %d; %s",
            self.waiting,
            where,
        )

    def before_fork(self) -> None:
        """Keeps others out."""
        self._lock.acquire()  # So that no journal is begun meanwhile.
        if self._journal is not None:
            self._journal.before_fork()

    def after_fork(self) -> None:
        """Lets others in again. Threads and open calls stay with the parent."""
        if self._process_id != os.getpid():
            self._process_id = os.getpid()
            self._tallies.forget_holds()
            self._background.forget()
        if self._journal is not None:
            self._journal.after_fork()
        self._lock.release()
        if self._outage is not None:
            self._background.soon(PROBE_MS, self._probe)

    # --- while the store answers ---------------------------------------------

    def _before(self, operation: Operation[Any]) -> None:
        """Keeps what must be booked, before it is sent to another machine."""
        if self._remote is None:
            return
        if isinstance(operation, Turn):
            operation = operation.settle
        if isinstance(operation, Settle | Release):
            try:
                self._backlog.before(operation)
            except Exception as error:
                self.listener.failed(error, "writing the journal")

    def _acknowledged(self, operation: Operation[Any], reply: object) -> None:
        with self._lock:
            self._tallies.note(operation, reply)
        if isinstance(operation, Turn):
            operation = operation.settle
        if isinstance(operation, Settle | Release):
            self._backlog.done(operation)
            self._unwritten.done(operation)

    # --- while it does not ----------------------------------------------------

    def _outage_now(self) -> Outage | None:
        """Returns the outage, if there still is one when its last calls are booked."""
        wait_ms = self._last_until_ms - self._clock.monotonic_ms()
        if wait_ms > 0:
            self._is_booked.wait(wait_ms / 1000)
        return self._outage

    def _answered(
        self,
        operation: Operation[Any],
        error: StoreUnavailable | None,
        outage: Outage | None,
    ) -> object:
        """Answers without the store, which has just failed or was not asked."""
        outage = self._failed(error, outage)
        match operation:
            case Turn():
                settled = self._answered(operation.settle, error, outage)
                reserved = self._answered(operation.reserve, error, outage)
                return Turned(
                    settled=cast("Any", settled), reserved=cast("Any", reserved)
                )
            case Reserve():
                return self._reserved(operation, outage, was_sent=error is not None)
            case Settle():
                return all_or_nothing(
                    lambda: self._settled(operation, outage),
                    # Asked again, the outage says that it has it.
                    lambda: self._keep(operation, outage),
                )
            case Release():
                with self._lock:
                    released = outage.release(operation)
                # The store may know the hold: its answer was lost, or it is told now.
                self._keep(operation, outage)
                return released
            case Sweep():
                return Swept(unconfirmed=0, forgotten=0)
            case Close():  # Its session stays open in reports; nothing else.
                return None
            case _:
                raise error or StoreUnavailable(
                    f"{outage.reason} It is tried again every {PROBE_MS / 1000:g} s."
                )

    def _settled(self, op: Settle, outage: Outage) -> object:
        with self._lock:
            reply = outage.settle(op)
        if not isinstance(reply, Settled) or reply.is_applied:
            self._keep(op, outage)
        return reply

    def _reserved(self, op: Reserve, outage: Outage, *, was_sent: bool) -> object:
        try:
            if self._backlog.is_full or self._unwritten.is_full:
                raise StoreUnavailable(
                    f"{outage.reason} Calls are refused until it is back: too many "
                    "operations wait to be booked."
                )
            with self._lock:
                reply = outage.reserve(op)
        except StoreUnavailable:
            if was_sent:
                self._give_back(op, outage)
            raise
        if isinstance(reply, Reserved) and reply.verdict is Verdict.ALLOW:
            # Admitted here; the store has no say in it afterwards.
            self._keep(_unenforced(op), outage)
        elif was_sent and isinstance(reply, Reserved):  # A conflict is another's hold.
            self._give_back(op, outage)
            if reply.verdict is Verdict.WAIT:
                # It was given back, so that asking again by its id would be a conflict.
                raise StoreUnavailable(
                    f"{outage.reason} The call would have had to wait for others."
                )
        return reply

    def _give_back(self, op: Reserve, outage: Outage) -> None:
        """Releases what the store may have held although nobody heard of it."""
        if not self._tallies.is_open(op.hold_id):  # Else it is the call's that has it.
            self._keep(_release_of(op), outage)

    def _keep(self, op: Entry, outage: Outage) -> None:
        try:
            self._backlog.keep(op)
        except Exception as error:
            self.listener.failed(error, "writing the journal")
            self._unwritten.keep(op)
        else:
            self._unwritten.done(op)  # What could not be written before.
        if self._outage is not outage:  # It is over, and nobody would look again.
            self._background.soon(0, self._probe)

    def _failed(self, error: StoreUnavailable | None, outage: Outage | None) -> Outage:
        """Notes that the store does not answer, and returns the outage.

        One in which it was not asked may be over by now: that begins no other.
        """
        now_ms = self._clock.monotonic_ms()
        with self._lock:
            self.degraded_operations += 1
            outage = outage or self._outage
            if outage is None:
                outage = self._outage = Outage(
                    self._tallies,
                    on_error=self.on_error,
                    reason=str(error or "store: unavailable."),
                    since_ms=now_ms,
                )
                self._write_down()
            says = self._outage is outage and self._is_news(outage.reason, now_ms)
            tells = says and not outage.is_told
            outage.is_told = outage.is_told or says
        if says:
            _log.error(
                "guardrails: the store does not answer (on_store_error: %s). %s",
                self.on_error.value,
                error or outage.reason,
            )
        if self._outage is outage:
            self._background.soon(PROBE_MS, self._probe)
        if tells:
            self.listener.degraded(outage.reason, seconds=None)
        return outage

    def _write_down(self) -> None:
        """Keeps on disk from now on what waits, where that was not needed before."""
        begin, self._begin_journal = self._begin_journal, None
        if self._journal is None and begin is not None:
            journal = self._journal = begin()
            self._backlog = self._backlog if journal is None else journal

    def _is_news(self, reason: str, now_ms: int) -> bool:
        """Notes that a trouble is told now, unless it was a moment ago."""
        recent = {
            known: at_ms
            for known, at_ms in self._said_at_ms.items()
            if now_ms - at_ms < SAY_AGAIN_MS
        }
        self._said_at_ms = {reason: now_ms, **recent}
        return reason not in recent

    # --- when it is back ------------------------------------------------------

    def _probe(self) -> None:
        """Books the backlog if the store is back; else tries again later."""
        if self._outage is None and not self.waiting:
            return  # It was closed meanwhile.
        try:
            key = self._store.secret()
            self._key = self._key or key
            self._book()
        except StoreUnavailable:
            self._background.soon(PROBE_MS, self._probe)
        except Exception as error:  # The journal's: the store is back all the same.
            self.listener.failed(error, "booking what happened meanwhile")
            self._end_outage()
            self._background.soon(PROBE_MS, self._probe)
        else:
            self._end_outage()
            self._tidy()
            if self.waiting:
                self._background.soon(0, self._probe)
        finally:
            self._is_booked.set()

    def _book(self) -> None:
        """Applies what is waiting, until nothing is."""
        try:
            self._book_from(self._backlog)
        finally:  # Of one call, what could not be written came last.
            self._book_from(self._unwritten)
        outage = self._outage
        for op in outage.denied if outage is not None else ():
            reply = self._store.execute(op)
            if isinstance(reply, Reserved) and reply.verdict is Verdict.ALLOW:
                self._store.execute(_release_of(op))  # The limit was raised.

    def _book_from(self, backlog: Backlog) -> None:
        for _ in range(ROUNDS_MAX):
            batch = backlog.waiting(BATCH)
            if not batch:
                break
            if len(batch) < BATCH:
                self._hold_others_up()
            try:
                self._apply_all(batch)
            except StoreUnavailable:
                raise
            except Exception:  # One is at fault, and must not hold up the others.
                self._apply_each(batch)
            for op in batch:
                if isinstance(op, Reserve) and op.hold_id not in backlog:
                    self._release_now(op)
            backlog.done(*batch)

    def _hold_others_up(self) -> None:
        """Lets calls wait while the last ones are booked: more would come for ever."""
        now_ms = self._clock.monotonic_ms()
        if now_ms >= self._last_until_ms + PROBE_MS:
            self._is_booked.clear()
            self._last_until_ms = now_ms + LAST_MS

    def _release_now(self, op: Reserve) -> None:
        """Gives back what was told after its end; a call that was booked stays so."""
        self._apply(_release_of(op))

    def _end_outage(self, *, is_back: bool = True) -> None:
        with self._lock:
            outage, self._outage = self._outage, None
            if outage is None:
                return
            took_ms = self._clock.monotonic_ms() - outage.since_ms
            self._degraded_ms += took_ms
        if not is_back or not outage.is_told:
            return
        _log.warning("guardrails: the store is back; everything is booked.")
        self.listener.degraded("the store is back", seconds=took_ms / 1000)

    def _apply(self, op: Entry) -> bool:
        """Has the store apply an operation, and passes on what that led to.

        Returns:
            Whether the store had not booked it before.
        """
        return self._applied(op, self._store.execute(cast("Operation[object]", op)))

    def _apply_all(self, ops: Sequence[Entry]) -> None:
        """Does so with several.

        Together, where that takes round trips: each waits for busy threads of this
        process, and more may happen meanwhile than is booked.
        """
        if self._remote is None:
            for op in ops:
                self._apply(op)
        else:
            replies = self._remote.execute_all(ops)
            for op, reply in zip(ops, replies, strict=True):
                self._applied(op, reply)

    def _apply_each(self, ops: Sequence[Entry]) -> None:
        """Does so one by one; what no store can take is said, and lost."""
        for op in ops:
            try:
                self._apply(op)
            except StoreUnavailable:
                raise
            except Exception as error:
                self.listener.failed(error, "booking a call")

    def _applied(self, op: Entry, reply: object) -> bool:
        with self._lock:
            self._tallies.note(op, reply)
        is_call = not isinstance(op, Release)
        if is_call and isinstance(reply, Reserved | Settled) and reply.crossings:
            self.listener.crossed(op, reply.crossings)
        return isinstance(reply, Settled) and reply.is_applied

    # --- when it may have lost something --------------------------------------

    def _doubt(self) -> None:
        if self._journal is not None:
            self._doubt_now = object()
            self._journal.doubt()
            self._background.soon(0, self._tell_again)

    def _tell_again(self) -> None:
        """Repeats what the store may have lost. Knowing it, it does nothing."""
        doubt = self._doubt_now
        try:
            with self._lock:
                open_reserves = self._tallies.open_reserves
            for op in open_reserves:
                self._store.execute(_unenforced(op))
                if not self._tallies.is_open(op.hold_id):
                    self._release_now(op)
            for op in self._backlog.recent():
                self._apply(op)
            if self._journal is not None and self._doubt_now is doubt:
                self._doubt_now = None
                self._journal.doubt(is_over=True)
        except StoreUnavailable:
            self._background.soon(PROBE_MS, self._tell_again)
        except Exception as error:
            self.listener.failed(error, "telling the store again")

    def _adopt(self) -> None:
        """Books what processes of this machine left behind."""
        assert self._journal is not None
        try:
            count = self._journal.adopt(self._apply, self._store.history)
        except StoreUnavailable:
            if not self._journal.is_closed:
                self._background.soon(PROBE_MS, self._adopt)
        except Exception as error:
            self.listener.failed(error, "adopting a journal")
        else:
            self._tidy()
            if count:
                _log.warning(
                    "guardrails: calls booked that processes of this machine had left "
                    "behind when they ended: %d.",
                    count,
                )

    def _tidy(self) -> None:
        """Forgets what a store has that loses nothing: later it knows no ids."""
        if self._journal is not None and self._remote is None:
            self._journal.tidy()


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """Returns what calls a method as long as somebody else holds its object."""
    known = weakref.WeakMethod(method)

    def call() -> None:
        found = known()
        if found is not None:
            found()

    return call


def _unavailable(error: Exception) -> StoreUnavailable:
    """Returns how a store has failed, be it in a way that nobody has thought of."""
    if isinstance(error, StoreUnavailable):
        return error
    let_through(error)
    if sys.is_finalizing():  # Then anything fails, and nothing can be begun any more.
        raise error
    # Only the type: the text of an error may hold content.
    unavailable = StoreUnavailable(f"store: it fails with {type(error).__name__}.")
    unavailable.__cause__ = error
    return unavailable


def _release_of(op: Reserve) -> Release:
    account = op.charging.accounts[0]
    return Release(hold_id=op.hold_id, account=account, now_ms=op.now_ms)


def _unenforced(op: Reserve) -> Reserve:
    """Returns the reservation such that no limit refuses it."""
    return replace(op, charging=replace(op.charging, is_enforced=False))
