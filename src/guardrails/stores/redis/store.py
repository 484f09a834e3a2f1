"""The Redis store: applies each ledger operation by one script.

Theory of operation
-------------------
`lua/call.lua` is the second implementation of `core/ledger.py`, atomic in the
server. Raised limits are merged here and not there: the script says when this
process does not know them yet, changes nothing, and is asked again.

Every change counts up the project's version. A reply with a lower one than was
seen means that the store has lost what it had acknowledged: it failed over, was
restored or was flushed. That is said, and the new version is taken over. A version that
begins anew begins below all earlier ones, so that also a process notices it that makes
no call until others have made many.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar, cast

from guardrails.core.accounts import Account, Charging
from guardrails.core.alerting.deliveries import (
    ClaimAlerts,
    NoteAlerts,
    ReadAlerts,
    RetryAlerts,
    TellAlerts,
)
from guardrails.core.ledger import SWEEP_MAX
from guardrails.core.operations import (
    Close,
    Operation,
    RaiseLimits,
    ReadAccount,
    ReadAudit,
    ReadStops,
    Release,
    Released,
    Reserve,
    Resume,
    ResumeScope,
    Settle,
    StopScope,
    StopSession,
    Sweep,
    Swept,
    Turn,
    Turned,
)
from guardrails.errors import StoreUnavailable
from guardrails.ports import Clock, Keeper
from guardrails.stores.backlog import Entry
from guardrails.stores.redis.codec import keys, orders, outbox, replies, requests
from guardrails.stores.redis.codec.layouts import raised_from
from guardrails.stores.redis.codec.scripts import Script
from guardrails.stores.redis.codec.wire import Argument, Fragment
from guardrails.stores.redis.connection.client import Client
from guardrails.stores.redis.connection.topology import Topology
from guardrails.stores.redis.keeping.history import RedisHistory
from guardrails.stores.redis.rollbacks import Rollbacks
from guardrails.system.forks import LockedAtFork
from guardrails.system.ids import new_key

__all__ = ["RedisStore"]

EVENTS_MAX = 100_000
"""Events kept per project, about 20 MB. Limits and sums do not depend on them."""

RAISED_MAX = 4096
"""Accounts whose raised limits are remembered; others are asked for again."""

SEEN_MAX = 4096
"""Chargings whose totals are remembered for the time when the store is away."""

ROUNDS_MAX = 8
"""A round per account of a call that was raised since it was last seen."""

R = TypeVar("R")

_Call = tuple[Script, str, Fragment, Fragment]
_Steps = Generator[_Call, Any, Any]


class RedisStore(LockedAtFork):
    """Keeps the ledger in Redis 6.2 or newer, Valkey, or a cluster of either.

    Args:
        url: `redis://`, `rediss://`, `unix://`, `redis+sentinel://` or
            `redis+cluster://`.
        events_max: How many events are kept per project.
        clock: The time, for the pace of the log; by default this machine's.

    Raises:
        ConfigurationError: If the URL cannot be read.
        StoreUnavailable: From every method, if the server does not answer in
            time or refuses.
    """

    def __init__(
        self, url: str, *, events_max: int = EVENTS_MAX, clock: Clock | None = None
    ) -> None:
        super().__init__()
        self._client = Client(Topology.of(url))
        self._events_max = events_max
        self._history = RedisHistory(self._client)
        self._raised: OrderedDict[str, str] = OrderedDict()
        self._versions: dict[str, int] = {}
        self._seen: dict[tuple[str, ...], tuple[int, bytes]] = {}
        self._losses = Rollbacks(clock)
        self._call = Script("call")
        self._release = Script("release")
        self._sweep = Script("sweep")
        self._account = Script("account")
        self._stops = Script("stops")
        self._outbox = Script("outbox")
        self.rollbacks: int = 0
        """How often the store had lost what it had acknowledged."""

    @property
    def client(self) -> Client:
        """For diagnosis: what talks to the servers."""
        return self._client

    @property
    def history(self) -> RedisHistory:
        """What was spent."""
        return self._history

    @property
    def keeper(self) -> Keeper:
        """Deletes what is in it."""
        # Imported late: whoever runs agents deletes nothing.
        from guardrails.stores.redis.keeping.retention import RedisRetention

        return RedisRetention(self._client)

    def watch(self, on_doubt: Callable[[], None]) -> None:
        """Has a function called whenever the store may have lost something.

        It may be called from any thread or event loop, and must not block.
        """
        self._client.on_doubt = on_doubt

    def last_seen(self, account: str) -> Account | None:
        """Returns totals of an account as of this process's last call, if any.

        The numbers and the raised limits: neither stops nor the session.
        """
        newest: tuple[int, bytes, int] | None = None
        for accounts, (version, rows) in list(self._seen.items()):
            if account in accounts and (newest is None or version > newest[0]):
                newest = (version, rows, accounts.index(account))
        if newest is None:
            return None
        found = replies.totals_from(account, newest[1], newest[2])
        found.raised = raised_from(self._raised.get(account, ""))
        return found

    def execute(self, operation: Operation[R]) -> R:
        """Applies an operation in one round trip. Thread safe.

        A stop by a person waits a moment for a replica, which may be the next master.
        """
        steps = self._steps(operation)
        if isinstance(operation, StopSession | StopScope):
            replicated = self._client.call_replicated(*next(steps))
            return cast("R", self._driven(steps, replicated))
        return cast("R", self._driven(steps, None))

    async def aexecute(self, operation: Operation[R]) -> R:
        """Applies an operation without blocking the event loop."""
        steps = self._steps(operation)
        try:
            call = next(steps)
            while True:
                call = steps.send(await self._client.acall(*call))
        except StopIteration as done:
            return cast("R", done.value)

    def execute_all(self, operations: Sequence[Entry]) -> list[Any]:
        """Applies operations in a round trip per project and script."""
        steps = [self._steps(operation) for operation in operations]
        calls = [next(one) for one in steps]
        together: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for at, (script, prefix, _, _) in enumerate(calls):
            together[prefix, script.name].append(at)
        answers: list[Any] = [None] * len(steps)
        for some in together.values():
            script, prefix = calls[some[0]][:2]
            sent = [calls[at][2:] for at in some]
            found = self._client.call_all(script, prefix, sent)
            for at, reply in zip(some, found, strict=True):
                answers[at] = self._driven(steps[at], reply)
        return answers

    def _driven(self, steps: _Steps, reply: Any) -> Any:
        """Goes on after a reply, or begins after `None`, and returns the answer."""
        try:
            while True:
                reply = self._client.call(*steps.send(reply))
        except StopIteration as done:
            return done.value

    def secret(self) -> bytes:
        """Returns the random key, made by whoever asks first."""
        _, key = self._client.query(
            keys.SECRET,
            [("SET", keys.SECRET, new_key(), "NX"), ("GET", keys.SECRET)],
        )
        return key

    def close(self) -> None:
        """Closes the connections. The next operation opens new ones."""
        self._client.close()

    def _steps(self, operation: Operation[Any]) -> _Steps:
        """Yields script calls, is sent their replies, and returns the answer."""
        match operation:
            case Settle():
                settled, _ = yield from self._called(operation, None)
                return replies.settled_from(settled, operation, self._raised)
            case Reserve():
                _, reserved = yield from self._called(None, operation)
                return replies.reserved_from(reserved, operation, self._raised)
            case Turn():
                return (yield from self._turned(operation))
            case Release():
                return (yield from self._released(operation))
            case Sweep():
                return (yield from self._swept(operation))
            case Close() | RaiseLimits() | ReadAccount():
                return (yield from self._ordered(operation))
            case StopSession() | Resume() | StopScope() | ResumeScope():
                return (yield from self._stopped(operation))
            case ReadStops():
                listed, _ = yield self._asked_stops(operation)
                return orders.stops_from(operation, listed)
            case ReadAudit():
                _, entries = yield self._asked_stops(operation)
                return orders.audit_from(entries)
            case (
                ClaimAlerts()
                | NoteAlerts()
                | RetryAlerts()
                | ReadAlerts()
                | TellAlerts()
            ):
                prefix, names, arguments = outbox.outbox_arguments(operation)
                reply = yield (
                    self._outbox,
                    prefix,
                    Fragment.of(names),
                    Fragment.of(arguments),
                )
                return outbox.outbox_reply(operation, reply)
            case _:
                raise TypeError(f"no such operation: {type(operation).__name__}")

    # --- calls --------------------------------------------------------------

    def _turned(self, op: Turn) -> _Steps:
        if op.settle.charging == op.reserve.charging:
            settled, reserved = yield from self._called(op.settle, op.reserve)
        else:
            settled, _ = yield from self._called(op.settle, None)
            _, reserved = yield from self._called(None, op.reserve)
        return Turned(
            settled=replies.settled_from(settled, op.settle, self._raised),
            reserved=replies.reserved_from(reserved, op.reserve, self._raised),
        )

    def _called(self, settle: Settle | None, reserve: Reserve | None) -> _Steps:
        """Runs `call.lua` until it knows that we know the raised limits."""
        op = settle or reserve
        assert op is not None
        prefix = keys.prefix_of(op.charging.accounts[0])
        for _ in range(ROUNDS_MAX + len(op.charging.lines)):
            rollbacks = self.rollbacks
            names, arguments = requests.call_arguments(
                settle,
                reserve,
                raised=self._raised,
                version=self._versions.get(prefix, 0),
                events_max=self._events_max,
            )
            reply = yield (self._call, prefix, names, arguments)
            match reply[0]:
                case b"ok":
                    self._saw(prefix, reply[1], op.charging, reply[4], rollbacks)
                    return reply[2:4]
                case b"raised":
                    account = op.charging.accounts[reply[1] - 1]
                    self._learn(account, reply[2].decode())
                case _:
                    self._rolled_back(prefix, reply[1], rollbacks)
        raise StoreUnavailable(
            "store: redis: limits are raised faster than they are read"
        )

    def _saw(
        self, prefix: str, version: int, charging: Charging, rows: bytes, rollbacks: int
    ) -> None:
        with self._lock:
            if self.rollbacks != rollbacks:
                return  # The reply may be of before the loss.
            self._versions[prefix] = max(version, self._versions.get(prefix, 0))
            known = self._seen.get(charging.accounts)
            if not rows or (known is not None and known[0] > version):
                return  # Another thread has read a later reply.
            if known is None and len(self._seen) >= SEEN_MAX:
                self._seen.clear()
            self._seen[charging.accounts] = (version, rows)

    def _rolled_back(self, prefix: str, version: int, rollbacks: int) -> None:
        """Notes a loss, unless somebody has since the call was sent."""
        with self._lock:
            if self.rollbacks != rollbacks:
                return
            seen = self._versions.get(prefix, 0)
            self._versions[prefix] = version
            self._seen.clear()
            self.rollbacks += 1
            self._losses.lost(prefix, seen=seen, found=version)
        self._client.on_doubt()

    def _learn(self, account: str, raised: str) -> None:
        with self._lock:
            self._raised[account] = raised
            self._raised.move_to_end(account)
            if len(self._raised) > RAISED_MAX:
                self._raised.popitem(last=False)

    # --- the rest -----------------------------------------------------------

    def _released(self, op: Release) -> _Steps:
        prefix = keys.prefix_of(op.account)
        names = [
            *keys.holding(prefix),
            *keys.finished(prefix, op.now_ms),
        ]
        arguments = Fragment.of([op.hold_id])
        reply = yield (self._release, prefix, Fragment.of(names), arguments)
        return Released(is_applied=reply == 1)

    def _swept(self, op: Sweep) -> _Steps:
        """Sweeps the projects that this process has seen."""
        unconfirmed = 0
        for prefix in list(self._versions):
            names = keys.holding(prefix)
            arguments = Fragment.of([op.now_ms, SWEEP_MAX])
            unconfirmed += yield (self._sweep, prefix, Fragment.of(names), arguments)
        return Swept(unconfirmed=unconfirmed, forgotten=0)

    def _ordered(self, op: Close | RaiseLimits | ReadAccount) -> _Steps:
        prefix = keys.prefix_of(op.account)
        names = [
            keys.version(prefix),
            keys.account_of(op.account),
            keys.traces_of(op.account),
            keys.audit(prefix),
        ]
        arguments: list[Argument]
        match op:
            case Close():
                arguments = ["close", op.now_ms, op.active_ms]
            case RaiseLimits():
                limits = requests.limits_arguments(op.limits)
                arguments = ["raise", *limits, orders.raise_text(op)]
                arguments += [*outbox.raising_text(op), op.now_ms]
            case ReadAccount():
                arguments = ["read"]
        found, traces = yield (
            self._account,
            prefix,
            Fragment.of(names),
            Fragment.of(arguments),
        )
        return _account_from(op.account, found, traces)

    def _stopped(self, op: orders.Stopping) -> _Steps:
        text, found, traces = yield self._asked_stops(op)
        if isinstance(op, StopSession | Resume):
            return _account_from(op.account, found, traces)
        key = op.target.key(op.project_id)
        return orders.order_from(key, text) if text else None

    def _asked_stops(self, op: orders.Stopping | ReadStops | ReadAudit) -> _Call:
        prefix, names, arguments = orders.stops_arguments(op)
        return self._stops, prefix, Fragment.of(names), Fragment.of(arguments)


def _account_from(
    key: str, found: Sequence[bytes], traces: Sequence[bytes]
) -> Account | None:
    fields = dict(zip(found[::2], found[1::2], strict=True))
    return replies.account_from(key, fields, traces)
