"""A store that can be away, for tests of what happens then."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from guardrails.core.accounts import Account
from guardrails.core.events import Event
from guardrails.core.operations import Crossing, Operation, ReadAccount, Reserve, Settle
from guardrails.errors import StoreUnavailable
from guardrails.ports import History
from guardrails.stores.backlog import Entry
from guardrails.stores.memory import MemoryStore
from guardrails.stores.resilient.listener import Listener

__all__ = ["FlakyStore", "Heard", "RemoteFlakyStore"]

R = TypeVar("R")


class FlakyStore:
    """A memory store that can be away, or fail after it has applied something."""

    def __init__(self) -> None:
        self.real = MemoryStore()
        self.is_away = False
        self.refuses_calls = False
        """Whether it answers everything else."""
        self.fails: Callable[[Operation[Any]], bool] = lambda _: False
        """Which operations it raises at what nobody has thought of."""
        self.goes_away_after: int | None = None
        self.forgets_to_answer = False
        self.meanwhile: Callable[[], object] | None = None
        """Done once, while the store is busy with the next operation."""
        self.asked = 0

    @property
    def history(self) -> History:
        return self.real.history

    def execute(self, operation: Operation[R]) -> R:
        self.asked += 1
        if self.goes_away_after is not None:
            self.is_away = self.goes_away_after == 0
            self.goes_away_after -= 1
        if self.is_away:
            raise StoreUnavailable("store: away.")
        if self.fails(operation):
            raise RuntimeError("a secret of the store")
        if self.refuses_calls and isinstance(operation, Reserve):
            raise StoreUnavailable("store: a right is missing.")
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        reply = self.real.execute(operation)
        if self.forgets_to_answer:
            raise StoreUnavailable("store: timed out.")
        return reply

    async def aexecute(self, operation: Operation[R]) -> R:
        return self.execute(operation)

    def secret(self) -> bytes:
        if self.is_away:
            self.asked += 1
            raise StoreUnavailable("store: away.")
        return self.real.secret()

    def close(self) -> None:
        self.real.close()

    # --- what tests look at -------------------------------------------------

    def account(self, key: str = "default/session/session_id=s") -> Account:
        account = self.real.execute(ReadAccount(account=key))
        return account or Account(key=key)

    def events(self) -> Sequence[Event]:
        return self.history.events(project_id="default", session_id="s", limit=1_000)


class RemoteFlakyStore(FlakyStore):
    """One that tells totals, and may lose what it had acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.on_doubt: Callable[[], None] = lambda: None
        self.is_found_lost_by_asking = False
        """Whether it has lost everything, which shows when it is reached again."""

    def secret(self) -> bytes:
        if self.is_found_lost_by_asking:
            self.is_found_lost_by_asking = False
            self.loses_everything()
        return super().secret()

    def watch(self, on_doubt: Callable[[], None]) -> None:
        self.on_doubt = on_doubt

    def execute_all(self, operations: Sequence[Entry]) -> list[Any]:
        return [self.execute(operation) for operation in operations]

    def last_seen(self, account: str) -> Account | None:
        return self.real.execute(ReadAccount(account=account))

    def loses_everything(self) -> None:
        """Starts anew without its data, and is reached again."""
        self.real = MemoryStore()
        self.on_doubt()


class Heard(Listener):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.crossings: list[Crossing] = []
        self.degraded_seconds: list[float | None] = []
        self.failures: list[str] = []

    def crossed(self, op: object, crossings: object) -> None:
        assert isinstance(op, Reserve | Settle)
        assert isinstance(crossings, tuple)
        self.crossings += crossings

    def degraded(self, reason: str, *, seconds: float | None) -> None:
        assert reason
        self.degraded_seconds.append(seconds)

    def failed(self, error: Exception, doing: str) -> None:
        self.failures.append(doing)
