"""The journal: a backlog on disk, for stores that other machines keep.

Theory of operation
-------------------
Each process has a file of its own, so that nobody waits for anybody. How a call has
ended is written before it is sent and stays for a minute after it was acknowledged: a
server that fails over or loses its last second has lost what it had acknowledged, and
is sent it again. The minute ends when the store is heard of: a process whose
calls are long learns late that something was lost. All operations are idempotent by
their id, for 25 hours.

Which rows were acknowledged is known in memory, and noted when the process ends. Its
lock on the file ends with it, and the next process of this machine adopts it: it sends
all rows again and deletes the file. What was acknowledged goes from journal to journal
for its minute only, however short the processes live. What is older than a day is sent
only if it was not acknowledged as far as is known, and no event of the store has its
id, since the store no longer knows which ids are finished.

SQLite's write-ahead log survives the death of the process without any sync; a power
cut of this machine may lose the last moments.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from guardrails.core.operations import Reserve, Settle
from guardrails.ports import Clock, History
from guardrails.stores.backlog import Entry, is_booked, is_over
from guardrails.stores.resilient.background import Background
from guardrails.stores.resilient.journal_file import (
    JournalFile,
    forget_unused,
    name_of,
    paths_of,
    tidy,
)
from guardrails.stores.resilient.journal_rows import entry_from
from guardrails.system.ids import new_id
from guardrails.system.logs import host_log
from guardrails.system.threads import may_block

__all__ = ["KEPT_MS", "Journal"]

KEPT_MS = 60_000
"""How long a row stays after it was acknowledged: failovers take seconds, and
`appendfsync everysec` loses two at most."""

LATE_MS = 1_000
"""An acknowledgement that comes later than this begins the minute anew."""

PRUNED_EVERY = 256
"""Operations of one minute between two deletions of rows that are not needed now."""

ROWS_MAX = 500_000
"""Past it no new call is promised a booking: about 64 MiB of disk per 100,000."""

RETENTION_MS = 24 * 3_600_000
"""How long a store surely knows the ids of what it has booked."""

REMEMBERED_MAX = 20_000
"""Operations that wait in memory, too: about 2 kB each. Reading them from the disk
would take longer than what a busy process adds meanwhile."""

PAGE = 100
"""Rows read at once: some milliseconds."""

_log = host_log()


class Journal:
    """Keeps operations in a file of this process. Thread safe, and safe to fork.

    Args:
        folder: Where the files of all processes are. It is created with mode 0700.
        store: Names the store; only journals of the same one are adopted.
        clock: Says when a row was written.
        kept_ms: How long a row stays after it was acknowledged.

    Raises:
        OSError: If the folder or the file cannot be written.
        sqlite3.Error: Likewise.
    """

    def __init__(
        self, folder: Path, *, store: str, clock: Clock, kept_ms: int = KEPT_MS
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._kept_ms = kept_ms
        self._store = store
        self._lock = threading.RLock()
        self._aside = threading.RLock()
        """Held by whoever uses SQLite without the other: a fork waits for both."""
        self._unacknowledged: dict[str, tuple[type[Entry], int]] = {}
        """By id: what was written, and when."""
        self._remembered: dict[str, Entry] = {}
        """The same, as far as it need not be read from the disk."""
        self._count = 0
        self._tidied_ms = clock.now_ms()
        self._heard_ms = clock.now_ms()
        """When the store was last known to have all that it had acknowledged."""
        self._is_in_doubt = False
        self._background = Background(clock)
        self._file: JournalFile | None = None
        self._adopting: JournalFile | None = None
        """That of a dead process, while it is sent."""
        self._process_id = os.getpid()
        with self._lock:
            self._opened()

    @property
    def path(self) -> Path:
        """The file of this process."""
        with self._lock:
            return self._opened().path

    @property
    def is_full(self) -> bool:
        """Whether `ROWS_MAX` operations wait."""
        return len(self._unacknowledged) >= ROWS_MAX

    def __len__(self) -> int:
        """Returns how many operations were not acknowledged."""
        return len(self._unacknowledged)

    def before(self, op: Entry) -> None:
        """Keeps how a call has ended: a store that forgets it is told again."""
        if not isinstance(op, Reserve):
            self.keep(op)

    @may_block
    def keep(self, op: Entry) -> None:
        """Writes an operation, in the place of an earlier one of its hold.

        Raises:
            sqlite3.Error: If it cannot be written.
            OSError: Likewise.
        """
        with self._lock:
            kept, _ = self._unacknowledged.get(op.hold_id, (None, 0))
            if kept is Settle:
                return
            now_ms = self._clock.now_ms()
            self._opened().write(op, now_ms)
            self._unacknowledged[op.hold_id] = (type(op), now_ms)
            self._remembered.pop(op.hold_id, None)
            if len(self._remembered) < REMEMBERED_MAX:
                self._remembered[op.hold_id] = op
            self._count += 1
            if self._count % PRUNED_EVERY == 0 or now_ms - self._tidied_ms > KEPT_MS:
                self._tidied_ms = now_ms
                self._background.soon(0, self.tidy)

    @may_block
    def done(self, *ops: Entry) -> None:
        """Notes that the store has acknowledged them. Their rows stay for a while.

        A row that has taken the place of one meanwhile still waits.
        """
        with self._lock:
            now_ms, late = self._clock.now_ms(), list[str]()
            for op in ops:
                kept, written_ms = self._unacknowledged.get(op.hold_id, (None, 0))
                if kept is None or not is_over(kept, type(op)):
                    continue
                del self._unacknowledged[op.hold_id]
                self._remembered.pop(op.hold_id, None)
                self.heard(now_ms)
                if now_ms - written_ms > LATE_MS:
                    late.append(op.hold_id)
            self._stamp(late, now_ms)

    def __contains__(self, hold_id: object) -> bool:
        """Returns whether something of a hold was not acknowledged."""
        return hold_id in self._unacknowledged

    def waiting(self, count: int) -> Sequence[Entry]:
        """Returns the oldest operations that were not acknowledged."""
        with self._lock:
            wanted = list(islice(self._unacknowledged, count))
            found = [op for op in map(self._remembered.get, wanted) if op is not None]
            if len(found) == len(wanted):
                return found
            file = self._opened()
            rows = file.rows(hold_ids=[*{*wanted} - {op.hold_id for op in found}])
        found += [op for op, _ in self._read(rows, file)]
        # What cannot be read was put aside, or the disk has lost it.
        with self._lock:
            for hold_id in {*wanted} - {op.hold_id for op in found}:
                self._unacknowledged.pop(hold_id, None)
        return found

    @property
    def is_closed(self) -> bool:
        """Whether what is left in the file is for the next process."""
        return self._file is None

    @property
    def is_unheard(self) -> bool:
        """Whether the store was not heard of for so long that rows stay for it."""
        silent_ms = self._clock.now_ms() - self._heard_ms
        return not self.is_closed and silent_ms > KEPT_MS

    def heard(self, now_ms: int) -> None:
        """Notes that the store has all that it had acknowledged, as far as is known."""
        if not self._is_in_doubt:
            self._heard_ms = now_ms

    def doubt(self, *, is_over: bool = False) -> None:
        """Keeps what the store may have lost until it has been told again."""
        self._is_in_doubt = not is_over

    def recent(self) -> Iterator[Entry]:
        """Yields, oldest first, the acknowledged ones that the store may have lost."""
        since_ms, after = self._kept_since_ms(), 0
        while True:
            # By pages, so that nobody who writes waits for long.
            with self._lock:
                if (file := self._file) is None:
                    return
                rows = file.rows(since_ms=since_ms, after=after, count=PAGE)
            for op, _ in self._read(rows, file):
                if op.hold_id not in self._unacknowledged:
                    yield op
            if len(rows) < PAGE:
                return
            after = _int(rows[-1][4])

    def adopt(self, send: Callable[[Entry], bool], history: History) -> int:
        """Sends what processes of this machine left behind when they died.

        Args:
            send: Applies an operation to the store, and returns whether that
                changed anything.
            history: The store's, to look for events that are older than a day.

        Returns:
            How many operations the store had not known.

        Raises:
            StoreUnavailable: From `send`. What is left stays for the next time.
        """
        unknown = 0
        for path in paths_of(self._folder, self._store):
            try:
                with self._aside:
                    file = self._adopting = JournalFile.adopted(path)
                if file is None:
                    continue
                try:
                    unknown += self._sent_again(file, send, history)
                    if self.is_closed:  # The next process goes on from there.
                        break
                    with self._aside:
                        file.remove()
                finally:
                    with self._aside:
                        file.close()
                        self._adopting = None
            except FileNotFoundError:
                continue  # Another process has adopted it meanwhile.
            except (OSError, sqlite3.Error) as error:
                _log.error(
                    "guardrails: the journal %s of a process that has ended cannot be "
                    "read (%s). What the store has not booked of it is missing from "
                    "budgets and reports: see who may read the file, mend it with "
                    "sqlite3 .recover, or delete it.",
                    path,
                    type(error).__name__,
                )
        return unknown

    def close(self) -> None:
        """Closes the file, and deletes it if nobody can need it any more."""
        with self._lock:
            file, self._file = self._file, None
            if file is None:
                return
            with contextlib.suppress(OSError, sqlite3.Error):
                file.disconnect()
                kept = frozenset(self._unacknowledged)
                tidy(file.path, until_ms=self._kept_since_ms(), kept=kept)
                if file.is_empty():
                    file.remove()
                else:
                    file.note_acknowledged(but=kept)
            file.close()
            self._forget()  # Whoever adopts the file sends what waits.

    def before_fork(self) -> None:
        """Keeps others out, and closes the database: SQLite must not be forked."""
        self._aside.acquire()
        self._lock.acquire()
        for file in (self._file, self._adopting):
            if file is not None:
                file.disconnect()

    def after_fork(self) -> None:
        """Lets others in again; a child gets a file of its own."""
        if self._process_id != os.getpid():
            self._process_id = os.getpid()
            for file in (self._file, self._adopting):
                if file is not None:  # The lock is held as long as anybody has it open.
                    file.close()
            self._file = self._adopting = None
            self._forget()
            self._background.forget()
        self._lock.release()
        self._aside.release()

    def _forget(self) -> None:
        self._unacknowledged, self._remembered = {}, {}

    def tidy(self) -> None:
        """Deletes old rows and syncs the disk, which no call should wait for."""
        with self._lock:
            file, kept = self._file, frozenset(self._unacknowledged)
        if file is None:
            return
        try:
            with self._aside:
                tidy(file.path, until_ms=self._kept_since_ms(), kept=kept)
                forget_unused(file, self._lock)
        except (OSError, sqlite3.Error) as error:
            _log.error(
                "guardrails: the journal %s cannot be tidied (%s): it goes on growing.",
                file.path,
                type(error).__name__,
            )

    def _stamp(self, hold_ids: Sequence[str], written_ms: int) -> None:
        """Has the minute of rows begin at an instant, unless the disk is full."""
        with self._lock, contextlib.suppress(OSError, sqlite3.Error):
            if hold_ids and self._file is not None:
                self._file.stamp(hold_ids, written_ms)

    def _kept_since_ms(self) -> int:
        # The clock may have been set back meanwhile.
        return min(self._heard_ms, self._clock.now_ms()) - self._kept_ms

    @may_block
    def _opened(self) -> JournalFile:
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            name = f"{name_of(self._store)}-{os.getpid()}-{new_id()}.sqlite3"
            self._file = JournalFile(self._folder / name)
        return self._file

    def _sent_again(
        self, file: JournalFile, send: Callable[[Entry], bool], history: History
    ) -> int:
        now_ms, unknown = self._clock.now_ms(), 0
        with self._aside:
            rows, acknowledged = file.rows(), file.acknowledged()
        for op, written_ms in self._read(rows, file):
            is_acknowledged = op.hold_id in acknowledged
            # What is that old, the store does not know by its id any more.
            if now_ms - op.now_ms > RETENTION_MS and (
                not isinstance(op, Settle) or is_acknowledged or is_booked(op, history)
            ):
                continue
            with self._lock:
                if self.is_closed:
                    break
                if isinstance(op, Settle):
                    self.keep(op)  # It may be lost again while it is new.
            unknown += (is_new := send(op))
            self.done(op)
            if is_acknowledged and not is_new:
                self._stamp([op.hold_id], written_ms)  # Its minute began long ago.
            with self._aside:
                file.delete(op.hold_id)  # Taken up again, it goes on from here.
        return unknown

    def _read(
        self, rows: Sequence[tuple[object, ...]], file: JournalFile
    ) -> Iterator[tuple[Entry, int]]:
        for kind, content, charging, written_ms, number in rows:
            try:
                op = entry_from(kind, content, charging)
            except (TypeError, ValueError) as error:  # pydantic's is a ValueError.
                with self._lock:
                    file.put_aside(_int(number), str(content).encode(), error)
            else:
                yield op, _int(written_ms)


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
