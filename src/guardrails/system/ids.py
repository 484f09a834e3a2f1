"""Ids: the only module that draws random numbers."""

import itertools
import os
import secrets

from guardrails.system.clock import SystemClock

__all__ = ["new_id", "new_key"]

_KEY_BYTES = 32


class _Ids:
    """Makes ids that sort by time within a process and never meet another's.

    A call needs one, so a counter behind a random prefix is used: drawing from
    the system costs a microsecond each time.
    """

    def __init__(self) -> None:
        self._state = (0, "", itertools.count())

    def next(self) -> str:
        process_id, prefix, counter = self._state
        if process_id != os.getpid():  # A fork must not repeat its parent.
            prefix = f"{SystemClock().now_ms():012x}{secrets.token_hex(6)}"
            counter = itertools.count()
            # Replaced as a whole: threads that meet here draw a prefix each.
            self._state = (os.getpid(), prefix, counter)
        return f"{prefix}{next(counter):08x}"


_ids = _Ids()


def new_id(prefix: str | None = None) -> str:
    """Returns a new id: short and random with a prefix, else ordered by time."""
    if prefix is None:
        return _ids.next()
    return f"{prefix}_{secrets.token_hex(6)}"


def new_key() -> bytes:
    """Returns a secret key for fingerprints."""
    return secrets.token_bytes(_KEY_BYTES)
