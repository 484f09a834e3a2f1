"""Ids: the only module that draws random numbers."""

import itertools
import os
import secrets
import time

__all__ = ["new_id", "new_key"]

_KEY_BYTES = 32


class _Ids:
    """Makes ids that sort by time within a process and never meet another's.

    A call needs one, so a counter behind a random prefix is used: drawing from
    the system costs a microsecond each time.
    """

    def __init__(self) -> None:
        self._process_id = 0

    def next(self) -> str:
        if self._process_id != os.getpid():  # A fork must not repeat its parent.
            self._prefix = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"
            self._counter = itertools.count()
            self._process_id = os.getpid()
        return f"{self._prefix}{next(self._counter):08x}"


_ids = _Ids()


def new_id(prefix: str | None = None) -> str:
    """Returns a new id: short and random with a prefix, else ordered by time."""
    if prefix is None:
        return _ids.next()
    return f"{prefix}_{secrets.token_hex(6)}"


def new_key() -> bytes:
    """Returns a secret key for fingerprints."""
    return secrets.token_bytes(_KEY_BYTES)
