"""Logs: the logger `guardrails`, which fails no call.

A filter of the host, or a handler, may raise: what a record of its own always has, ours
may not have. Raised in the middle of a call, that would take the place of a stop.
"""

import logging

from guardrails.core.tracebacks import let_through

__all__ = ["host_log"]


class _Log(logging.LoggerAdapter[logging.Logger]):
    def log(self, level: int, msg: object, *args: object, **_: object) -> None:
        """Logs. If what the host does about it fails, standard error has it."""
        try:
            # Two levels: the line that is named is that of the caller of `warning`.
            self.logger.log(level, msg, *args, stacklevel=2)
        except Exception as error:
            let_through(error)
            last = logging.lastResort  # Python's, for what no handler takes.
            if last is not None and level >= last.level:
                place = (self.logger.name, level, __file__, 0)
                last.handle(logging.LogRecord(*place, msg, args, None))


_log = _Log(logging.getLogger("guardrails"), {})


def host_log() -> "logging.LoggerAdapter[logging.Logger]":
    """Returns the logger `guardrails`; what the host raises there goes no further."""
    return _log
