"""What many threads use at the same time."""

import gc
import sys
import threading

from guardrails.threads import WeakList


class Thing:
    """Something that is referred to."""


def test_a_weak_list_forgets_what_is_gone() -> None:
    things = WeakList[Thing]()
    kept, other = Thing(), Thing()
    things.add(kept)
    things.add(other)
    del other
    gc.collect()

    assert things.alive() == [kept]


def test_a_weak_list_is_gone_through_while_others_add_and_end() -> None:
    """Threads that switch as often as they can find every thing that lives."""
    things = WeakList[Thing]()
    kept = [Thing() for _ in range(50)]
    for thing in kept:
        things.add(thing)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            things.add(Thing())  # It is gone at once.

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=churn) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        found = [things.alive() for _ in range(2_000)]
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()

    assert all(set(kept) <= set(one) for one in found)
