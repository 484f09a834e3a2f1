"""The demo: one agent that gets stuck, without a guard and with one.

The model plays a script and the tool is a function, so no key and no network
is needed. All else is real: a LangGraph agent, the guard, prices, a ledger.
"""

import contextlib
import importlib.util
import logging
import os
import tempfile
import textwrap
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.errors import GraphRecursionError
from rich.console import Console
from rich.text import Text

from guardrails import Guard, SessionStopped
from guardrails.cli.screens.costs import render_costs
from guardrails.core.alerting.anomaly_rules import AnomalyRules
from guardrails.reports import Span
from guardrails.spend.reading import Asked, read_costs
from guardrails.system.clock import SystemClock
from guardrails_langchain import demo_mcp
from guardrails_langchain.testing import ScriptedChatModel

__all__ = ["run"]

STEPS_MAX = 300
"""What ends the agent where nothing else does; LangGraph's default is far off."""

LIMIT_USD = "0.25"
TOOL_COST_USD = "0.005"
MCP_LIMIT_USD = "0.04"
INPUT_TOKENS, OUTPUT_TOKENS = 1_500, 60

PROJECT_ID = "demo"
WIDTH = 80
LABEL_WIDTH = 16

_INTRODUCTION = (
    f"A LangGraph agent looks up an address. The geocoding tool, ${TOOL_COST_USD} a "
    f"call, finds nothing, so the model (gpt-4o, {INPUT_TOKENS:,} tokens in, "
    f"{OUTPUT_TOKENS} out) tries again, and again. The model plays a script, so this "
    "needs no key and no network; the agent, the guard, the prices and the ledger are "
    "real."
)

_NEXT = """
Guard your own agent, and ask where the money went:

    with Guard(max_cost_usd="1.00").session("support-agent"): agent.invoke(...)
    guardrails costs --hours 24"""

_FOREIGN = ("GUARDRAILS_", "LANGCHAIN_", "LANGSMITH_", "MCPSPEND_")
"""Variables that would change what the demo shows, or send its runs somewhere."""


def run(console: Console | None = None) -> None:
    """Runs the demo on a ledger of its own, which is removed afterwards."""
    console = console or Console()
    with (
        _own_environment(),
        _own_log() as log,
        tempfile.TemporaryDirectory(prefix="guardrails-demo-") as folder,
    ):
        stage = _Stage(console, log=log, store=str(Path(folder) / "ledger.sqlite3"))
        stage.print(textwrap.fill(_INTRODUCTION, WIDTH))
        _unguarded(stage)
        _limited(stage)
        _looping(stage)
        _wrapped(stage)
        stage.costs(by="session_id", command="guardrails costs --hours 24")
        stage.costs(by="tool", command="guardrails costs --hours 24 --by tool")
        stage.print(_NEXT)


def _unguarded(stage: "_Stage") -> None:
    stage.title('1. Without a limit: Guard(mode="observe") only records')
    scene = stage.scene("1-unguarded", mode="observe", address_changes=True)
    stage.fact("Ended by", scene.play())
    stage.facts(scene)
    steps_max = (scene.agent.config or {}).get("recursion_limit")
    if isinstance(steps_max, int):
        cost = float(scene.session.spent) / STEPS_MAX * steps_max
        stage.fact(
            "By default", f"LangGraph ends it at {steps_max:,} steps: ${cost:.2f}"
        )
    scene.guard.close()


def _limited(stage: "_Stage") -> None:
    stage.title(f'2. The same agent with Guard(max_cost_usd="{LIMIT_USD}")')
    scene = stage.scene("2-limited", max_cost_usd=LIMIT_USD, address_changes=True)
    stage.fact("Ended by", scene.play())
    stage.facts(scene)
    models, tools = scene.calls
    stage.fact("Run once more", scene.play().partition(":")[0])
    models, tools = scene.calls[0] - models, scene.calls[1] - tools
    stage.fact("After the stop", f"{models} model calls, {tools} tool calls")
    scene.guard.close()


def _looping(stage: "_Stage") -> None:
    stage.title("3. The same limit, and the identical call each time")
    scene = stage.scene("3-looping", max_cost_usd=LIMIT_USD, address_changes=False)
    stage.fact("Ended by", scene.play())
    stage.facts(scene)
    scene.guard.close()


def _wrapped(stage: "_Stage") -> None:
    stage.title("4. No guard in the program: its MCP server behind `guardrails wrap`")
    if importlib.util.find_spec("mcp") is None:
        stage.fact("Not shown", 'it needs pip install "guardrails-runtime[mcp]"')
        return
    played = demo_mcp.play(
        store=stage.store,
        project_id=PROJECT_ID,
        session_id="4-wrapped",
        limit=MCP_LIMIT_USD,
        price=TOOL_COST_USD,
    )
    stage.fact(
        "Tool calls",
        f"{played.requested} asked for, {played.served} reached the server "
        f"(max_cost_usd: {MCP_LIMIT_USD})",
    )
    stage.fact("Model was told", played.told.partition("\n")[0])
    stage.fact("Ended by", f"its own answer: {played.answer}")


class _Scene:
    """One guard, one agent, one session."""

    def __init__(self, guard: Guard, *, name: str, address_changes: bool) -> None:
        self.guard = guard
        self.session = guard.session("support-agent", session_id=name)
        self.addresses: list[str] = []
        """What the tool was called with."""

        def script(turn: int, _: Sequence[BaseMessage]) -> AIMessage:
            number = 12 + turn if address_changes else 12
            call = {
                "name": "geocode",
                "args": {"address": f"{number} Main Street, Springfield"},
                "id": f"call-{turn}",
            }
            return AIMessage(content="", tool_calls=[call])

        @tool
        @guard.tool(server="geocoding-mcp", cost_usd=TOOL_COST_USD)
        def geocode(address: str) -> str:
            """Finds the coordinates of an address."""
            self.addresses.append(address)
            return "no match"

        self.model = ScriptedChatModel(
            script=script, input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS
        )
        self.agent = create_agent(self.model, [geocode])

    @property
    def calls(self) -> tuple[int, int]:
        """How often the model and the tool were called."""
        return self.model.calls, len(self.addresses)

    def play(self) -> str:
        """Runs the agent, and returns what ended it."""
        question = HumanMessage("Where is 12 Main Street, Springfield?")
        try:
            with self.session:
                self.agent.invoke(
                    {"messages": [question]}, {"recursion_limit": STEPS_MAX}
                )
        except GraphRecursionError:
            return f"the {STEPS_MAX} steps that this demo gives it"
        except SessionStopped as stop:
            return f"{type(stop).__name__}: {stop}"
        return "its own answer"


class _Stage:
    """Where the scenes play: a console, and the ledger that they share."""

    def __init__(self, console: Console, *, log: list[str], store: str) -> None:
        self._console = console
        self._log = log
        self.store: str = store

    def scene(
        self,
        name: str,
        *,
        address_changes: bool,
        mode: str | None = None,
        max_cost_usd: str | None = None,
    ) -> _Scene:
        guard = Guard(
            {},  # Not the configuration of whoever runs the demo.
            store=self.store,
            project_id=PROJECT_ID,
            mode=mode,
            max_cost_usd=max_cost_usd,
        )
        return _Scene(guard, name=name, address_changes=address_changes)

    def print(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)

    def title(self, text: str) -> None:
        self.print(f"\n{text}", "bold")

    def fact(self, label: str, text: str) -> None:
        lines = textwrap.wrap(text, WIDTH - LABEL_WIDTH - 3)
        for line in lines:
            self.print(f"   {label:<{LABEL_WIDTH}}{line}")
            label = ""

    def facts(self, scene: _Scene) -> None:
        for line in self._log:
            self.fact("Logged", line)
        self._log.clear()
        models, tools = scene.calls
        self.fact("Calls", f"{models} of the model, {tools} of the tool")
        limit = f" of ${LIMIT_USD}" if scene.session.remaining is not None else ""
        self.fact("Spent", f"${scene.session.spent}{limit}")

    def costs(self, *, by: str, command: str) -> None:
        """Shows what the command shows of this ledger."""
        self.print(f"\n$ {command}", "bold")
        guard = Guard({}, store=self.store, project_id=PROJECT_ID)
        asked = Asked(
            project_id=PROJECT_ID,
            by=(by,),
            span=Span(hours=24, until_ms=SystemClock().now_ms()),
            limit=20,
        )
        report = read_costs(guard.store.history, asked)
        anomalies = asked.anomalies(guard.store.history, AnomalyRules())
        report = replace(report, anomalies=anomalies)
        guard.close()
        render_costs(report, self._console)


@contextlib.contextmanager
def _own_environment() -> Generator[None]:
    """Shows everybody the same, and traces the demo's runs nowhere."""
    foreign = {
        name: os.environ[name] for name in os.environ if name.startswith(_FOREIGN)
    }
    for name in foreign:
        del os.environ[name]
    os.environ["LANGSMITH_TRACING"] = "false"
    try:
        yield
    finally:
        del os.environ["LANGSMITH_TRACING"]
        os.environ.update(foreign)


@contextlib.contextmanager
def _own_log() -> Generator[list[str]]:
    """Collects what the guard logs, to show it where it belongs."""
    lines: list[str] = []
    handler = _Collector(lines)
    logger = logging.getLogger("guardrails")
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


class _Collector(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())
