"""Attempts: what to send next, and what to do when it fails. No I/O but the clock.

`attempts` is a generator: it yields what somebody has to do, is sent the result
or thrown the error, and returns the replies. Threads and event loops drive the
same one.

Every script is idempotent by the id of its call, so a call whose reply was lost is
simply sent again. redis-py's own retries are off: they would send again what is not
ours, for seconds, unseen.
"""

import re
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis import exceptions
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_before_delay,
    wait_random_exponential,
)

from guardrails.stores.redis.codec.scripts import Script
from guardrails.stores.redis.codec.wire import packed
from guardrails.stores.redis.connection.topology import (
    DEADLINE_S,
    Address,
    Topology,
    named_host,
)
from guardrails.stores.redis.connection.waiting import SlowConnection

__all__ = [
    "CALL_DEADLINE_S",
    "Exchange",
    "Leave",
    "Locate",
    "Pause",
    "Step",
    "Steps",
    "attempts",
    "is_passing",
    "may_return",
]

HOPS_MAX = 5
"""Redirections of one attempt. More means that a cluster contradicts itself."""

CALL_DEADLINE_S = 0.45
"""How long a call may take with all its attempts, of which each may ask several times:
for the place, on a new connection, and for the script. Less than half a second."""

AGAIN_DEADLINE_S = 0.2
"""How long all attempts after the first may take."""

RETRY_AFTER_S = (0.002, 0.05)
"""The first and the longest pause between two attempts."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Send commands to a server and return as many replies, errors included."""

    address: Address
    commands: Sequence[bytes]
    deadline_s: float
    """How long a reply may take."""
    left_s: float
    """How long all of it may take, also on a new connection."""


@dataclass(frozen=True, slots=True)
class Locate:
    """Ask which server holds a slot, and return its address."""

    slot: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Leave:
    """Close the connections to a server: its name may be that of another by now."""

    address: Address


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


Step = Exchange | Locate | Leave | Pause
Steps = Generator[Step, Any, list[Any]]


def attempts(
    topology: Topology,
    prefix: str,
    commands: Sequence[bytes],
    script: Script | None,
    *,
    deadline_s: float = DEADLINE_S,
    call_deadline_s: float = CALL_DEADLINE_S,
    is_tried_again: bool = True,
) -> Steps:
    """Sends commands about one project until they succeed.

    Args:
        topology: Says where the project is.
        prefix: What the project's keys begin with.
        commands: Packed commands.
        script: What the commands run, in case the server does not know it.
        deadline_s: How long the first attempt may wait for one reply.
        call_deadline_s: How long all of it may take.
        is_tried_again: Whether there is another attempt after a failure.

    Raises:
        redis.RedisError: The last failure. The commands may have run.
    """
    patience = _Patience(deadline_s, call_deadline_s)
    try:
        return (yield from _attempt(topology, prefix, commands, script, patience))
    except SlowConnection:
        raise  # Nothing is wrong with where it is.
    except redis.RedisError as error:
        if not is_passing(error) or not is_tried_again or patience.is_over:
            topology.forget()
            raise
        said = error
    # Entered only now: a retrying object costs more than a call.
    pauses: list[float] = []
    again_s = min(AGAIN_DEADLINE_S, patience.step_s())
    patience = _Patience(again_s, again_s)
    retrying = Retrying(
        retry=retry_if_exception(is_passing),
        stop=stop_before_delay(again_s),
        wait=wait_random_exponential(multiplier=RETRY_AFTER_S[0], max=RETRY_AFTER_S[1]),
        sleep=pauses.append,
        reraise=True,
    )
    for attempt in retrying:
        if pauses:
            yield Pause(pauses.pop())
        topology.forget()
        with attempt:
            try:
                steps = _attempt(topology, prefix, commands, script, patience)
                return (yield from steps)
            except redis.TimeoutError:  # What was said before tells more.
                raise said from None
            except redis.RedisError as error:
                said = error
                raise
    raise AssertionError("tenacity returns or raises")


class _Patience:
    """How long somebody waits: for one reply, and for all of them together."""

    def __init__(self, deadline_s: float, all_s: float) -> None:
        self._deadline_s = deadline_s
        self._until = time.monotonic() + all_s

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._until

    def step_s(self) -> float:
        """Returns how long the next step may take.

        Raises:
            redis.TimeoutError: If nobody waits any more.
        """
        return min(self._deadline_s, self._left_s())

    def exchange(self, address: Address, commands: Sequence[bytes]) -> Exchange:
        """Returns the step that sends commands.

        Raises:
            redis.TimeoutError: If nobody waits any more.
        """
        left_s = self._left_s()
        return Exchange(address, commands, min(self._deadline_s, left_s), left_s)

    def _left_s(self) -> float:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise redis.TimeoutError("the server answers too slowly")
        return left_s


def _attempt(
    topology: Topology,
    prefix: str,
    commands: Sequence[bytes],
    script: Script | None,
    patience: _Patience,
) -> Steps:
    """Tries once, following redirections."""
    slot = topology.slot(prefix)
    address = topology.known(slot)
    if address is None:
        address = yield Locate(slot, patience.step_s())
    sent = commands
    for _ in range(HOPS_MAX):
        replies = yield patience.exchange(address, sent)
        if sent is not commands:
            replies, sent = replies[1::2], commands
        error = next((one for one in replies if isinstance(one, Exception)), None)
        match error:
            case None:
                return replies
            case exceptions.MovedError():  # Before AskError, its base.
                address = (named_host(error.host, address), error.port)
                topology.moved(slot, address)
            case exceptions.AskError():
                address = (named_host(error.host, address), error.port)
                sent = [part for command in commands for part in (_ASKING, command)]
            case exceptions.NoScriptError() if script is not None:
                load = packed((b"SCRIPT", b"LOAD", script.text))
                [loaded] = yield patience.exchange(address, [load])
                if isinstance(loaded, Exception):
                    raise loaded
            case _:
                if _is_deposed(error):
                    yield Leave(address)
                raise error
    raise redis.ConnectionError("redirected in a circle")


_ASKING = packed((b"ASKING",))

_PASSING_WORDS = (
    "BUSY",
    "NOREPLICAS",
    "MASTERDOWN",
    "UNBLOCKED",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "max number of clients",
)
_PASSING_IN_SCRIPTS = re.compile(
    "killed by user|access a non local key|command while the cluster is down"
)
"""What has no code: a script that was ended, and a slot that is being moved."""


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed a moment later."""
    if isinstance(error, exceptions.AuthenticationError):
        return False
    if isinstance(
        error,
        exceptions.ConnectionError
        | exceptions.TimeoutError
        | exceptions.ReadOnlyError
        | exceptions.TryAgainError
        | exceptions.ClusterDownError
        | exceptions.MasterDownError,
    ):
        return True
    return isinstance(error, exceptions.ResponseError) and (
        str(error).startswith(_PASSING_WORDS)
        or _PASSING_IN_SCRIPTS.search(str(error)) is not None
    )


def _is_deposed(error: BaseException) -> bool:
    """Whether a server says that it is not the master, or has lost all replicas.

    It keeps its connections, and behind a name of a cloud or a balancer another one
    may be the master by now.
    """
    deposed = exceptions.ReadOnlyError | exceptions.MasterDownError
    return isinstance(error, deposed) or str(error).startswith("NOREPLICAS")


def may_return(error: BaseException) -> bool:
    """Whether the server may answer some time later, although nobody here changes."""
    is_full = isinstance(error, exceptions.OutOfMemoryError)
    return is_passing(error) or is_full or str(error).startswith("MISCONF")
