"""The answer to a call is booked with the next call, in one round trip."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from guardrails import Event, Guard
from guardrails.core.calls import ToolCall
from guardrails.core.operations import Operation, ReadAccount, Sweep, Turn
from guardrails.core.policy import Mode
from guardrails.errors import StoreUnavailable
from guardrails.ports import History
from guardrails.stores.memory import MemoryStore
from guardrails.testing import FakeClock
from guardrails_mcp.stdio import metering, relay
from guardrails_mcp.stdio.messages import Message, line_of, messages_in
from guardrails_mcp.stdio.metering import GuardMeter
from guardrails_mcp.stdio.relay import Relay

R = TypeVar("R")


class RecordingStore:
    """A store that remembers what it was asked, and may fail."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.asked: list[Operation[Any]] = []
        self.before: Callable[[Operation[Any]], None] = lambda op: None

    @property
    def history(self) -> History:
        return self.inner.history

    def execute(self, operation: Operation[R]) -> R:
        if not isinstance(operation, Sweep):
            self.asked.append(operation)
        self.before(operation)
        return self.inner.execute(operation)

    async def aexecute(self, operation: Operation[R]) -> R:
        return self.execute(operation)

    def secret(self) -> bytes:
        return self.inner.secret()

    def close(self) -> None:
        self.inner.close()


class Host:
    """A host that calls a server behind the relay, which answers at once."""

    def __init__(self, config: dict[str, Any] | None = None, **limits: Any) -> None:
        self.store = RecordingStore()
        self.guard = Guard(config or {}, store=self.store, **limits)
        meter = GuardMeter(self.guard, "files")
        self.relay = Relay(lambda: meter, bytes_max=100_000)
        self.server_takes: Callable[[], None] = lambda: None
        self._key = 0

    def call(self, **arguments: object) -> Message | None:
        """Makes a call; returns the refusal if it is refused."""
        self._key += 1
        params = {"name": "read", "arguments": arguments}
        call = {"id": self._key, "method": "tools/call", "params": params}
        passage = self.relay.from_host(line_of(call))
        if passage.to_host:
            [refusal] = messages_in(passage.to_host) or ()
            assert isinstance(refusal, dict)
            return refusal
        self.server_takes()
        result = {"content": ["x"], "_meta": {"acme.com/cost": "0.01"}}
        self.relay.from_server(line_of({"id": self._key, "result": result}))
        return None

    def events(self) -> list[Event]:
        span = {"project_id": "default", "since_ms": 0, "until_ms": 2**62}
        return list(self.store.history.timeline(**span))


def test_each_call_is_one_round_trip() -> None:
    host = Host({"defaults": {"loop": {"exempt": ["*"]}}})

    for _ in range(5):
        assert host.call() is None

    host.relay.book()
    kinds = [type(op).__name__ for op in host.store.asked]
    assert kinds == ["Reserve", "Turn", "Turn", "Turn", "Turn", "Settle"]
    assert len(host.events()) == 5


def test_what_is_booked_decides_about_the_call_it_is_booked_with() -> None:
    """A result may complete a loop, and a cost may use the limit up."""
    looping = Host({"defaults": {"loop": {"repeats": 3, "action": "block"}}})
    costly = Host({"tools": {"files/*": {"cost_per_call_usd": "0.1"}}}, max_steps=3)

    for host in (looping, costly):
        refused = [host.call(path="/a") is not None for _ in range(4)]

        assert refused == [False, False, False, True]
        assert len(host.events()) == 3


def test_an_answer_is_booked_although_the_next_call_cannot_be_planned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host()
    host.call()

    def fails(*_: object, **__: object) -> ToolCall:
        raise RuntimeError("odd")

    monkeypatch.setattr(metering, "tool_call", fails)
    with pytest.raises(RuntimeError):
        host.call()

    assert len(host.events()) == 1


@pytest.mark.parametrize("has_booked", [True, False])
@pytest.mark.parametrize("error", [StoreUnavailable("store: away."), ValueError("odd")])
def test_an_answer_is_booked_once_although_the_store_fails_at_the_next_call(
    error: Exception, has_booked: bool
) -> None:
    host = Host(on_store_error="closed")
    session = host.guard.current_session()
    host.call()

    def failing(op: Operation[Any]) -> None:
        if isinstance(op, Turn):
            if has_booked:
                host.store.inner.execute(op.settle)
            raise error

    host.store.before = failing
    with contextlib.suppress(ValueError):  # The pump says what goes wrong there.
        assert host.call() is not None

    host.guard.close()
    account = host.store.inner.execute(ReadAccount(account=session.account_key))
    assert account is not None
    assert (account.steps, len(host.events())) == (1, 1)


def test_an_answer_counts_before_a_raised_limit_is_looked_at() -> None:
    """A session that finishes keeps a reserve, which is looked at before each call."""
    rule = {"cost_per_call_usd": "0.1", "cost_from_meta": "acme.com/cost"}
    session = {"max_cost_usd": "0.1", "closing_reserve_usd": "0.05"}
    defaults = {"on_limit": "finish", "session": session}
    host = Host({"tools": {"files/*": rule}, "defaults": defaults})
    session_id = host.guard.current_session().session_id
    host.guard.raise_limit(session_id, max_cost_usd="0.2", by="ops")

    # Each holds $0.10 and costs $0.01; $0.15 are there for them.
    refused = [host.call(number=number) is not None for number in range(7)]

    assert refused == [False] * 6 + [True]


def test_an_answer_is_booked_although_the_guard_is_switched_off_meanwhile() -> None:
    host = Host()
    host.call()
    engine = host.guard.engine

    engine.adopt(replace(engine.policy, mode=Mode.OFF), None)
    assert host.call() is None

    assert len(host.events()) == 1


def test_latency_ends_with_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it waits until it is booked."""
    clock = FakeClock()
    for module in (metering, relay):
        monkeypatch.setattr(module, "now_ms", clock.monotonic_ms)
    host = Host()
    host.server_takes = lambda: clock.advance(seconds=2)
    host.call()
    clock.advance(seconds=5)

    host.relay.book()

    assert [event.latency_ms for event in host.events()] == [2_000]
