"""Telling: has alerts sent from here that a command leads to."""

import contextlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from guardrails.config import Configuration
from guardrails.ports import Clock, Store
from guardrails.stores.memory import MemoryStore
from guardrails.system.clock import SystemClock

if TYPE_CHECKING:
    from guardrails.alerts.sink import AlertSink

__all__ = ["telling"]


@contextlib.contextmanager
def telling(
    store: Store, configuration: Configuration, *, clock: Clock | None = None
) -> Generator[Callable[[], None]]:
    """Lends what has people told of what is in the store, if it is configured where.

    At the end what still waits is sent, for two seconds at most. What a receiver does
    not take in that time is sent by the next process that has these destinations.
    """
    sink: AlertSink | None = None

    def tell() -> None:
        nonlocal sink
        if sink is None and configuration.alerts.is_on:
            # Imported late: most commands tell nobody.
            from guardrails.alerts.sink import AlertSink

            sink = AlertSink(
                configuration.alerts,
                project_id=configuration.project_id,
                ask=store.execute,
                history=lambda: store.history,
                clock=clock or SystemClock(),
                is_shared=not isinstance(store, MemoryStore),
                release=store.close,
            )
        if sink is not None:
            sink.dispatcher.wake(configuration.project_id)

    try:
        yield tell
    finally:
        if sink is not None:
            sink.close()
