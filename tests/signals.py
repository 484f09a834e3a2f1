"""Signals that come in the middle of our code, wherever a test wants them."""

import signal
import sys
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import guardrails

__all__ = ["ROOT", "Interrupt", "Sent", "TimeLimit", "raising"]

ROOT = Path(guardrails.__file__).parent


class TimeLimit(Exception):
    """As those of Celery and RQ, which a signal's handler raises."""


class Interrupt(AbstractContextManager[None]):
    """Has a signal handled after the n-th built-in function that our code calls.

    There Python looks for signals.

    Args:
        number: Which of them.
        handler: What the handler does.
        files: What our code is.
    """

    def __init__(
        self,
        number: int,
        handler: Callable[[], object],
        *,
        files: Collection[str],
    ) -> None:
        assert all(Path(file).exists() for file in files), "a file has moved"
        self._left = number
        self._handler = handler
        self._files = files

    def __enter__(self) -> None:
        self._before = sys.getprofile()
        self._handler_before = signal.signal(signal.SIGTERM, self._handle)
        sys.setprofile(self._called)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.setprofile(self._before)
        signal.signal(signal.SIGTERM, self._handler_before)

    @property
    def has_come(self) -> bool:
        return self._left <= 0

    def _called(self, frame: FrameType, event: str, _: object) -> None:
        if event == "c_return" and frame.f_code.co_filename in self._files:
            self._left -= 1
            if self._left == 0:
                sys.setprofile(self._before)
                del frame  # Only the handler is given one.
                signal.raise_signal(signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._handler()


class Sent(Interrupt):
    """Has another thread send an exception, as time limits do that know no signals.

    Python raises it between two steps of our code. It is raised here by what counts as
    our code, so that it comes at the same place in each run.

    Args:
        number: After which built-in function.
        kind: Its class.
        files: What our code is.
    """

    def __init__(
        self, number: int, kind: type[BaseException], *, files: Collection[str]
    ) -> None:
        ours: dict[str, Any] = {"__name__": "guardrails.system.threads"}
        exec("def send(kind): raise kind", ours)
        super().__init__(number, lambda: ours["send"](kind), files=files)

    def _called(self, frame: FrameType, event: str, _: object) -> None:
        if event == "c_return" and frame.f_code.co_filename in self._files:
            self._left -= 1
            if self._left == 0:
                sys.setprofile(self._before)
                del frame
                self._handler()


def raising(kind: type[BaseException]) -> Callable[[], object]:
    def handle() -> None:
        raise kind

    return handle
