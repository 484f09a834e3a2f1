"""Contexts: says that a session was left in another one than it was entered in."""

from guardrails.engine import Engine
from guardrails.system.logs import host_log

__all__ = ["left_elsewhere"]

_log = host_log()

_SAID = "left elsewhere"


def left_elsewhere(engine: Engine, session_id: str | None) -> None:
    """Says so once per guard: the calls between may be charged to nobody."""
    if _SAID in engine.attachments:
        return
    engine.attachments[_SAID] = True
    _log.warning(
        "guardrails: session %s was left in another context than it was entered in. "
        "Calls between may not have been charged to it. Open it around them: in "
        "FastAPI in an `async def` dependency or in the endpoint.",
        session_id or "without an id",
    )
