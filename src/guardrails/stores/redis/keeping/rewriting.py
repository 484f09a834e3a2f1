"""Rewriting: what happens to the stream of events when some of it has to go.

Theory of operation
-------------------
An entry of a stream cannot be changed, and the bytes of a deleted one stay in memory
and in snapshots until all around it are deleted too. So to make events anonymous the
stream is copied page by page, each entry with its id, and then takes the place of the
old one. Readers go by ids and notice nothing. The last step copies what was booked
meanwhile, so that none is lost.

One process at a time has the **turn** to do so. Each of its steps prolongs the turn;
whoever dies, or sleeps for too long, loses it, and its copy is thrown away.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from guardrails.errors import StoreUnavailable
from guardrails.stores.redis.codec import keys
from guardrails.stores.redis.codec.scripts import Script
from guardrails.stores.redis.codec.wire import Argument, Fragment
from guardrails.stores.redis.connection.client import Client
from guardrails.stores.redis.keeping.walks import entries_in
from guardrails.system.ids import new_id

__all__ = ["Keeping", "Turn"]

TURN_MS = 30_000
"""How long a turn lasts after its last step, as in `keeper.lua`."""

WAIT_S = 60.0
"""How long somebody else's turn is waited for: longer than a turn that nobody uses."""

PAUSE_S = 0.05

COPIED_AT_ONCE_MAX = 200
"""Events that the last step copies: well below a millisecond."""

NOTES_AT_ONCE_MAX = 64
"""Notes that one step adds, as in `notes.lua`."""

ROUNDS_MAX = 1_000
"""Pages copied after the stream's end was seen: agents that book faster never let it
end."""

Changed = Callable[[bytes], bytes | None]
"""Returns the new text of an entry; `None` leaves it as it is."""


class Keeping:
    """Runs the steps of `keeper.lua` in one project."""

    def __init__(self, client: Client, prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        self._script = Script("keeper")

    def step(self, order: str, *arguments: Argument) -> Any:
        """Does one step and returns what the script says."""
        return self.client.call(
            self._script,
            self.prefix,
            Fragment.of([keys.version(self.prefix), keys.nothing(self.prefix)]),
            Fragment.of([order, *arguments]),
        )

    def add_notes(self) -> None:
        """Adds what is noted to the sums of hours: what deletes knows only those.

        It ends however fast agents note more: what they had noted is added by then.
        """
        while self.step("notes") == NOTES_AT_ONCE_MAX:
            pass

    @contextlib.contextmanager
    def turn(self) -> Generator["Turn"]:
        """Waits for the turn, and gives it up at the end."""
        owner = new_id("turn")
        key = keys.turn(self.prefix)
        give_up_at = time.monotonic() + WAIT_S
        take = ("SET", key, owner, "NX", "PX", TURN_MS)
        while self.client.query(self.prefix, [take, ("GET", key)])[1] != owner.encode():
            if time.monotonic() > give_up_at:
                raise StoreUnavailable(
                    "store: redis: another prune or forget is at work on this "
                    "project. Try again when it has ended."
                )
            time.sleep(PAUSE_S)
        try:
            yield Turn(self, owner)
        finally:
            with contextlib.suppress(StoreUnavailable):  # It ends by itself.
                self.step("leave", owner)


class Turn:
    """Changes the stream of events of a project."""

    def __init__(self, keeping: Keeping, owner: str) -> None:
        self._keeping = keeping
        self._owner = owner

    def delete(self, ids: Sequence[bytes]) -> None:
        """Deletes entries; what is not there any more is none."""
        self._checked(self._keeping.step("delete", self._owner, *ids))

    def rewrite(self, changed: Changed) -> int:
        """Gives entries another text, and returns how many."""
        client, prefix = self._keeping.client, self._keeping.prefix
        client.query(prefix, [("UNLINK", keys.new_events(prefix))])
        count, last = 0, b""
        for _ in range(ROUNDS_MAX):
            for page in entries_in(client, prefix, keys.events(prefix), after=last):
                texts = [(entry_id, changed(text)) for entry_id, text in page]
                new = [pair for pair in texts if pair[1] is not None]
                count += len(new)
                last = self._checked(
                    self._keeping.step(
                        *("copy", self._owner, last, page[-1][0]),
                        *(part for pair in new for part in pair if part is not None),
                    )
                )
            is_done = self._keeping.step("swap", self._owner, last, COPIED_AT_ONCE_MAX)
            if self._checked(is_done):
                return count
        raise StoreUnavailable(
            "store: redis: events are booked faster than they are copied. Try again "
            "when agents are less busy."
        )

    def _checked(self, reply: Any) -> Any:
        if reply is None:
            raise StoreUnavailable(
                "store: redis: the turn to change events was lost, because this "
                "process slept or the server failed over. Nothing is half done: do it "
                "again."
            )
        return reply
