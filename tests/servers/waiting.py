"""Waiting for other processes: for a condition, and never for ever."""

import time
from collections.abc import Callable

WAIT_SECONDS_MAX = 10.0
"""How long a server, a failover or a process may take here, on a busy machine."""

PAUSE_SECONDS = 0.01


def until(
    condition: Callable[[], object], what: str, *, seconds: float = WAIT_SECONDS_MAX
) -> None:
    """Waits until a condition holds; fails, naming it, if it does not in time."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"waited in vain for {what}"
        time.sleep(PAUSE_SECONDS)
