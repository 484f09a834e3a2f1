"""Reading: what servers answer, and the replies to a thread, each within a time.

redis-py's time bounds each piece of a reply, and a network may bring it in many.
"""

import re
import time
from typing import Any

import hiredis
import redis
from redis import exceptions
from redis.connection import Connection, DefaultParser

__all__ = ["ends_connection", "new_reader", "replies_from"]

PIECE_BYTES = 65_536
"""How much is read at once, as redis-py does."""


_OF_SCRIPT = re.compile(r"ERR (Error running script .*?: -)?([A-Z]+) ")
"""How a refusal begins that a script has met, as Redis 6.2 writes it and the others."""

_UNASKED: tuple[tuple[str, type[exceptions.ConnectionError]], ...] = (
    ("DENIED ", exceptions.AuthenticationError),
    # Of a cluster it says some more, for which redis-py has no class.
    ("ERR max number of clients", exceptions.ConnectionError),
)
"""How it begins when a server says why it closes a new connection, and what that is."""


def new_reader() -> "hiredis.Reader":
    """Returns a reader of replies, to which refusals are errors of redis-py."""
    refusal: Any = _refusal
    return hiredis.Reader(replyError=refusal)


def _refusal(text: str) -> Exception:
    """Gives a refusal its class by its code, also if a script stands before it."""
    for beginning, kind in _UNASKED:
        if text.startswith(beginning):
            return kind(text.removeprefix("ERR "))
    found = _OF_SCRIPT.match(text)
    if found and (found[1] or found[2] in DefaultParser.EXCEPTION_CLASSES):
        text = text[found.start(2) :]
    error: Exception = DefaultParser.parse_error(text)
    return error


def replies_from(connection: Connection, count: int, deadline_s: float) -> list[Any]:
    """Returns so many replies, refusals included.

    Args:
        connection: Where they come. After an error it cannot be used any more.
        count: How many were asked for.
        deadline_s: How long each of them may take.

    Raises:
        redis.TimeoutError: If one takes longer.
        redis.ConnectionError: If the server has closed the connection, or does so
            with what it says.
    """
    reader = new_reader()
    channel: Any = connection._sock
    if channel is None:
        raise redis.ConnectionError("the connection was closed")
    usual_s = channel.gettimeout()
    replies: list[Any] = []
    try:
        while len(replies) < count:
            replies.append(_reply_from(channel, reader, deadline_s))
        channel.settimeout(usual_s)
    except TimeoutError:
        raise redis.TimeoutError("the server did not answer in time") from None
    except (OSError, hiredis.ProtocolError) as error:
        raise redis.ConnectionError(type(error).__name__) from error
    if reader.has_data():
        raise redis.ConnectionError("replies do not fit the questions")
    return replies


def _reply_from(channel: Any, reader: "hiredis.Reader", deadline_s: float) -> Any:
    give_up_at = time.monotonic() + deadline_s
    while (reply := reader.gets()) is False:
        left_s = give_up_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        channel.settimeout(left_s)
        piece = channel.recv(PIECE_BYTES)
        if not piece:
            raise ConnectionResetError
        reader.feed(piece)
    if ends_connection(reply):
        raise reply
    return reply


def ends_connection(reply: object) -> bool:
    """Whether a reply says that the server lets nobody in here."""
    is_refusal = isinstance(reply, exceptions.ConnectionError)
    return is_refusal and not isinstance(reply, exceptions.BusyLoadingError)
