"""The rig: a guard, scripted models and tools, and one record of what happened.

The record keeps the order in which the ledger admitted calls and stopped, and in
which models and tools really ran. So "nothing paid after a stop" is checked
where money is spent, not where the guard believes it is.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatResult
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, PrivateAttr

from guardrails import Attribution, Charge, Event, Guard, PriceStatus, TokenUsage
from guardrails.core.accounts import Stop
from guardrails.core.loops import LoopFinding
from guardrails.core.operations import (
    Crossing,
    Operation,
    Reserve,
    Reserved,
    Settled,
    StopSession,
    Verdict,
)
from guardrails.ports import History, Store
from guardrails.stores.memory import MemoryStore
from guardrails_langchain.testing import ScriptedChatModel

MODEL_USD = "0.01"
TOOL_USD = "0.005"
CENT = 10_000_000
"""One cent in nano-USD."""

RUNS_MAX = 60
"""Model runs that no test needs."""

R = TypeVar("R")
M = TypeVar("M", bound=ScriptedChatModel)


class Record:
    """What happened, in order: `admitted model`, `model`, `stop`, … Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.entries: list[str] = []

    def note(self, entry: str) -> None:
        with self._lock:
            self.entries.append(entry)

    @property
    def has_stopped(self) -> bool:
        return "stop" in self.entries

    @property
    def runs(self) -> int:
        """How often a model or a tool really ran."""
        counts = Counter(self.entries)
        return counts["model"] + counts["tool"]

    def started_after_stop(self) -> Counter[str]:
        """Counts what ran after the first stop and had not been admitted before."""
        if not self.has_stopped:
            return Counter()
        at = self.entries.index("stop")
        before, after = Counter(self.entries[:at]), Counter(self.entries[at:])
        late: Counter[str] = Counter()
        for kind in ("model", "tool"):
            in_flight = before[f"admitted {kind}"] - before[kind]
            late[kind] = max(0, after[kind] - in_flight)
        return +late


class WatchedStore:
    """A memory store that notes admissions and stops as it decides them."""

    def __init__(self, record: Record) -> None:
        self._store = MemoryStore()
        self._record = record
        self._lock = threading.Lock()
        """Notes come in the order of the decisions."""

    @property
    def history(self) -> History:
        return self._store.history

    def execute(self, operation: Operation[R]) -> R:
        with self._lock:
            reply = self._store.execute(operation)
            self._note(operation, reply)
        return reply

    def _note(self, operation: object, reply: object) -> None:
        if isinstance(operation, StopSession):
            self._record.note("stop")
        if (isinstance(reply, Reserved | Settled) and reply.new_stop is not None) or (
            isinstance(reply, Reserved) and reply.verdict is Verdict.DENY
        ):
            self._record.note("stop")
        elif isinstance(reply, Reserved) and reply.verdict is Verdict.ALLOW:
            assert isinstance(operation, Reserve)
            self._record.note(f"admitted {operation.kind.value}")

    async def aexecute(self, operation: Operation[R]) -> R:
        return self.execute(operation)

    def secret(self) -> bytes:
        return self._store.secret()

    def close(self) -> None:
        self._store.close()


class TellsNobody:
    """A sink to inherit from."""

    def settled(self, event: Event) -> None: ...

    def crossed(self, crossing: Crossing, attribution: Attribution) -> None: ...

    def stopped(self, stop: Stop, attribution: Attribution) -> None: ...

    def looped(self, finding: LoopFinding, attribution: Attribution) -> None: ...

    def observed(self, refused_by: str, attribution: Attribution) -> None: ...


class FlatPrices:
    """Every model call costs one cent, before and after it is made."""

    def price(
        self, *, provider: str | None, model: str, usage: TokenUsage, now_ms: int
    ) -> Charge:
        return Charge(cost_nano_usd=CENT, status=PriceStatus.PRICED, source="flat")

    def bound(
        self,
        *,
        provider: str | None,
        model: str,
        input_tokens: int,
        output_tokens: int,
        now_ms: int,
    ) -> Charge:
        return Charge(cost_nano_usd=CENT, status=PriceStatus.PRICED, source="flat")

    def worst_case(
        self, *, provider: str | None, input_tokens: int, output_tokens: int
    ) -> Charge:
        return Charge(cost_nano_usd=CENT, status=PriceStatus.ESTIMATED, source="flat")


class SlowChatModel(ScriptedChatModel):
    """Has the provider's answer, but hands it over only when told to go on.

    In asyncio; a stream hands over its first chunk at once.
    """

    _started: Any = PrivateAttr(default_factory=asyncio.Event)
    _goes_on: Any = PrivateAttr(default_factory=asyncio.Event)

    async def started(self) -> None:
        """Waits until the provider was called."""
        await self._started.wait()
        self._started.clear()

    def go_on(self) -> None:
        self._goes_on.set()

    async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        result = self._generate(messages)
        self._started.set()
        await self._goes_on.wait()
        return result

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for chunk in super()._astream(*args, **kwargs):
            yield chunk
            self._started.set()
            await self._goes_on.wait()


class Question(BaseModel):
    """What a tool of the rig takes. LangChain is slow to infer that each time."""

    q: str


Script = Callable[[int, Sequence[BaseMessage]], AIMessage | Exception]


class Rig:
    """A guard over a watched store, and models and tools that note their runs."""

    def __init__(self, *, store: Store | None = None, **options: Any) -> None:
        self.record = Record()
        config = options.pop("config", {})
        config = {"tools": {"*": {"cost_per_call_usd": TOOL_USD}}, **config}
        options.setdefault("prices", FlatPrices())
        self.guard = Guard(config, store=store or WatchedStore(self.record), **options)
        self.models: list[ScriptedChatModel] = []
        self.repeats = False
        """Whether scripts call their tool with the same arguments every time."""
        self.on_model_run: Callable[[int], None] = lambda runs: None
        """Is told after a model ran, with the number of model runs so far."""

    @property
    def provider_calls(self) -> int:
        return sum(model.calls for model in self.models)

    def model(
        self, script: Script, *, kind: type[M] = ScriptedChatModel, **options: Any
    ) -> M:
        """A model that plays a script; every answer goes into the record."""

        def played(
            number: int, messages: Sequence[BaseMessage]
        ) -> AIMessage | Exception:
            self.record.note("model")
            runs = self.record.entries.count("model")
            self.on_model_run(runs)
            # A guard that lets everything pass must fail a test, not hang it.
            return script(number, messages) if runs < RUNS_MAX else AIMessage("enough")

        model = kind(script=played, **options)
        self.models.append(model)
        return model

    def tool(
        self,
        name: str = "search",
        work: Callable[[str], str] | None = None,
        awork: Callable[[str], Any] | None = None,
    ) -> BaseTool:
        """A tool, sync and async; every run goes into the record.

        Args:
            name: Its name.
            work: What it does with its argument `q`.
            awork: The same as a coroutine function; `work` by default.
        """
        work = work or (lambda q: "nothing found" if self.repeats else f"found {q}")

        def run(q: str) -> str:
            self.record.note("tool")
            return work(q)

        async def arun(q: str) -> str:
            self.record.note("tool")
            return await awork(q) if awork else work(q)

        return StructuredTool.from_function(
            run,
            coroutine=arun,
            name=name,
            description="Looks something up.",
            args_schema=Question,
        )

    def calls_tool(self, name: str = "search", times: int = 1) -> Script:
        """A script that calls a tool on every turn, for ever."""

        def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage:
            return tool_calls(
                *(
                    (name, "again" if self.repeats else f"q{number}-{index}")
                    for index in range(times)
                ),
                turn=number,
            )

        return script

    def calls_once(self, name: str = "search") -> Script:
        """A script that calls a tool, reads the result and answers; over and over.

        Where scripts repeat themselves it never answers.
        """
        calls = self.calls_tool(name)

        def script(number: int, messages: Sequence[BaseMessage]) -> AIMessage:
            if messages[-1].type == "tool" and not self.repeats:
                return AIMessage("done")
            return calls(number, messages)

        return script


def tool_calls(*calls: tuple[str, str], turn: int = 0) -> AIMessage:
    """An answer that calls tools, each named with its argument `q`."""
    return AIMessage(
        "",
        tool_calls=[
            {"name": name, "args": {"q": q}, "id": f"call-{turn}-{index}"}
            for index, (name, q) in enumerate(calls)
        ],
    )


def says(text: str = "hello there, dear reader") -> Script:
    """A script that always answers the same."""
    return lambda number, messages: AIMessage(text)
