"""Threads: whether this one runs an event loop, which nothing may block for long."""

import asyncio

__all__ = ["is_on_event_loop"]


def is_on_event_loop() -> bool:
    """Whether this thread is running an event loop now."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
