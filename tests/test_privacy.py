"""Nothing of what agents, models and tools say to one another is kept or told.

Every place that holds content holds a canary of its own. All that a guard writes,
raises, logs and tells is searched for each of them, as it is and in the forms that
leaks usually take. Beside it, each way out leaks one canary on purpose, to show
that the search would find it.
"""

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import StructuredTool

from guardrails import CallRefused, Guard, GuardrailsError, TokenUsage
from guardrails.core.reporting.rollups import ROLLUP_DIMENSIONS, Spend
from guardrails.testing import FakeClock
from guardrails_langchain import GuardCallbackHandler, GuardMiddleware
from guardrails_langchain.testing import ScriptedChatModel

PLACES = (
    "system prompt",
    "prompt",
    "argument key",
    "argument value",
    "result",
    "answer",
    "streamed text",
    "error of a tool",
    "error of a provider",
    "error of a sink",
)

LEAKED = "leaked on purpose"


def canary(place: str) -> str:
    """A text that occurs nowhere else, and is written differently in JSON."""
    return f'Kanari"{hashlib.sha256(place.encode()).hexdigest()[:12]}\\→Zz'


# --- the search -------------------------------------------------------------


def base64_forms(data: bytes) -> Iterator[bytes]:
    """Yields what base64 text contains the data, wherever it starts in the whole."""
    for offset in range(3):
        whole = base64.b64encode(bytes(offset) + data)
        # Characters at the ends are shared with neighbours, which are not known.
        first, last = -(-offset * 8 // 6), (offset + len(data)) * 8 // 6
        yield whole[first:last]
        yield whole[first:last].translate(bytes.maketrans(b"+/", b"-_"))


def digests(data: bytes) -> Iterator[bytes]:
    for name in ("md5", "sha1", "sha256", "sha512", "blake2b", "blake2s"):
        yield hashlib.new(name, data).digest()
    for size in (6, 8, 16, 20, 32):
        yield hashlib.blake2b(data, digest_size=size).digest()


def forms(text: str) -> dict[str, set[bytes]]:
    """Returns the forms that a text may leak in, all that is not base64 in small
    letters."""
    data = text.encode()
    hashes = list(digests(data))
    small: dict[str, set[bytes]] = {
        "as it is": {data},
        "escaped": {
            json.dumps(text)[1:-1].encode(),
            json.dumps(text, ensure_ascii=False)[1:-1].encode(),
            repr(text)[1:-1].encode(),
            ascii(text)[1:-1].encode(),
            text.encode("unicode_escape"),
        },
        "hexadecimal": {data.hex().encode()},
        "UTF-16": {text.encode("utf-16-le"), text.encode("utf-16-be")},
        "digest": {*hashes, *(each.hex().encode() for each in hashes)},
    }
    lowered = {form: {n.lower() for n in needles} for form, needles in small.items()}
    return {
        **lowered,
        "base64": {*base64_forms(data), *(next(base64_forms(h)) for h in hashes)},
    }


def found_in(haystack: bytes, text: str) -> set[str]:
    """Returns the forms in which a text occurs."""
    lowered = haystack.lower()
    return {
        form
        for form, needles in forms(text).items()
        for needle in needles
        if needle in (haystack if form == "base64" else lowered)
    }


@pytest.mark.parametrize(
    ("form", "leak"),
    [
        ("as it is", lambda text: text.encode()),
        ("as it is", lambda text: text.upper().encode()),
        ("escaped", lambda text: json.dumps({"a": text}).encode()),
        ("escaped", lambda text: repr([text]).encode()),
        ("hexadecimal", lambda text: text.encode().hex().upper().encode()),
        ("UTF-16", lambda text: text.encode("utf-16")),
        ("base64", lambda text: base64.b64encode(f"x{text}".encode())),
        ("base64", lambda text: base64.b64encode(f"xy{text}y".encode())),
        ("base64", lambda text: base64.urlsafe_b64encode(f"xyz{text}yz".encode())),
        ("digest", lambda text: hashlib.md5(text.encode()).hexdigest().encode()),
        ("digest", lambda text: hashlib.sha256(text.encode()).digest()),
        ("digest", lambda t: hashlib.blake2b(t.encode(), digest_size=16).digest()),
    ],
)
def test_the_search_finds_every_form(form: str, leak: Callable[[str], bytes]) -> None:
    text, before, after = canary("prompt"), b"\x00before ", b" after\xff"

    assert form in found_in(before + leak(text) + after, text)
    assert not found_in(before + leak("another text") + after, text)


# --- what agents do ---------------------------------------------------------

ARGUMENTS = {canary("argument key"): canary("argument value")}
ProviderError = type("ProviderError", (Exception,), {})


class LeakySink:
    """Tells everybody everything, where it is told to; else it fails."""

    def __init__(self, text: str | None) -> None:
        self._text = text
        self.told: list[object] = []

    def settled(self, event: object) -> None:
        self.told.append(event)
        if self._text is None:
            raise RuntimeError(canary("error of a sink"))
        logging.getLogger("somebody").debug("settled %s", {"text": self._text})
        print(self._text)  # noqa: T201 - the leak that has to be found
        self.told.append(self._text)

    def crossed(self, *told: object) -> None:
        self.told.append(told)

    stopped = looped = crossed


def turns(*answers: AIMessage | Exception) -> ScriptedChatModel:
    """A model that gives these answers, and the last one for ever."""
    return ScriptedChatModel(
        script=lambda number, prompt: answers[min(number, len(answers) - 1)]
    )


def call_of(tool: str, number: int = 0) -> AIMessage:
    call = {"name": tool, "args": ARGUMENTS, "id": f"call-{number}"}
    return AIMessage(canary("answer"), tool_calls=[call])


def agent_of(model: ScriptedChatModel, **options: Any) -> Any:
    def look_up(**arguments: object) -> str:
        return canary("result")

    def explode(**arguments: object) -> str:
        raise ConnectionError(canary("error of a tool"))

    tools = [
        StructuredTool.from_function(
            function,
            name=function.__name__,
            description="A tool.",
            args_schema={"type": "object", "properties": {}},
        )
        for function in (look_up, explode)
    ]
    return create_agent(model, tools, system_prompt=canary("system prompt"), **options)


PROMPT = {"messages": [("user", canary("prompt"))]}
FINAL = AIMessage(canary("answer"))
STREAMED = AIMessage(f"{canary('streamed text')} {canary('streamed text')}")


def uses_of_langchain(guard: Guard) -> Iterator[Callable[[], object]]:
    """Yields ways to run an agent: each of them meets another part of the guard."""

    def invoke(*answers: AIMessage | Exception, **options: Any) -> object:
        return agent_of(turns(*answers), **options).invoke(PROMPT)

    async def cancelled() -> None:
        stream = agent_of(turns(STREAMED)).astream(PROMPT, stream_mode="messages")
        async for _ in stream:
            break
        await stream.aclose()

    def with_tool() -> None:
        said = str(invoke(call_of("look_up"), FINAL))
        for place in ("prompt", "argument key", "argument value", "result", "answer"):
            assert found_in(said.encode(), canary(place)), "else nothing is shown here"

    yield with_tool
    yield lambda: invoke(call_of("explode"), FINAL)
    yield lambda: invoke(ProviderError(canary("error of a provider")))
    yield lambda: invoke(call_of("look_up"))  # For ever: a loop.
    yield lambda: list(agent_of(turns(STREAMED)).stream(PROMPT, stream_mode="messages"))
    yield lambda: next(agent_of(turns(STREAMED)).stream(PROMPT, stream_mode="messages"))
    yield lambda: asyncio.run(cancelled())
    yield lambda: invoke(FINAL, middleware=[GuardMiddleware(guard)])
    handled = {"callbacks": [GuardCallbackHandler(guard)]}
    yield lambda: agent_of(turns(call_of("look_up"), FINAL)).invoke(PROMPT, handled)


def uses_of_the_guard(guard: Guard) -> Iterator[Callable[[], object]]:
    """Yields ways to use the guard without a framework."""

    @guard.tool(name="mail", server="post")
    def mail(to: object) -> str:
        return canary("result")

    @guard.tool(name="bounce")
    def bounce(to: object) -> str:
        raise ConnectionError(canary("error of a tool"))

    def ask(model: str, error: Exception | None = None) -> None:
        with guard.call(model=model, input_bytes=10, max_output_tokens=10) as call:
            if error is not None:
                raise error
            call.settle(TokenUsage(input_tokens=3))

    def call_tool() -> None:
        with guard.call(tool="t", arguments=ARGUMENTS) as call:
            call.settle(result=canary("result"))

    def bounce_often() -> None:
        for _ in range(4):
            with contextlib.suppress(ConnectionError):
                bounce(ARGUMENTS)

    yield lambda: [mail(ARGUMENTS) for _ in range(4)]
    yield bounce_often
    yield call_tool
    yield lambda: ask("gpt-4o")
    yield lambda: ask("gpt-4o", ProviderError(canary("error of a provider")))
    yield lambda: ask("my-finetune")  # It has no price.
    yield lambda: [ask("gpt-4o") for _ in range(100)]  # More than the budget.


def use_everything(guard: Guard, **names: Any) -> list[GuardrailsError]:
    """Does all of that, each in a session of its own; returns what a guard raised."""
    raised: list[GuardrailsError] = []
    for uses in (uses_of_langchain, uses_of_the_guard):
        for number, use in enumerate(uses(guard)):
            session_id = f"{uses.__name__}-{number}"
            try:
                with guard.session("spy", session_id=session_id, **names):
                    use()
            except GuardrailsError as error:
                raised.append(error)
            except (ConnectionError, ProviderError):
                pass  # The agent's own errors are its own business.
    return raised


# --- what is to be seen of it -----------------------------------------------

WAYS_OUT = ("files", "events", "reports", "errors", "logs", "output", "sinks")


@contextlib.contextmanager
def all_logs() -> Iterator[io.BytesIO]:
    """Records every log record of the process, in full."""
    seen, root = io.BytesIO(), logging.getLogger()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.write(self.format(record).encode() + repr(vars(record)).encode())

    handler, level = Handler(), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield seen
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


def sessions_of(guard: Guard) -> list[str]:
    return [each.name or "" for each in spend(guard, "session_id")]


def spend(guard: Guard, by: str) -> Sequence[Spend]:
    now_ms = guard.engine.clock.now_ms()
    return guard.store.history.spend(
        project_id="default", by=by, since_ms=now_ms, until_ms=now_ms
    )


def reports(guard: Guard) -> bytes:
    accounts = [guard.account(session_id) for session_id in sessions_of(guard)]
    return repr(([spend(guard, by) for by in ROLLUP_DIMENSIONS], accounts)).encode()


def events(guard: Guard) -> bytes:
    sessions = [guard.session(session_id=each) for each in sessions_of(guard)]
    return repr([session.events() for session in sessions]).encode()


def written_of(error: GuardrailsError) -> bytes:
    texts = (str(error), repr(error), repr(vars(error)), repr(error.args))
    return "".join(texts).encode() + pickle.dumps(error)


def look(folder: Path, *, leaked: str | None) -> dict[str, bytes]:
    """Runs everything, and returns what is to be seen of it at each way out."""
    sink = LeakySink(leaked)
    output = io.StringIO()
    leaks = {} if leaked is None else {"customer_id": leaked}
    with (
        all_logs() as logs,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        guard = Guard(
            {"defaults": {"loop": {"repeats": 3, "action": "stop"}}},
            store=folder / "ledger.sqlite3",
            max_cost_usd="0.05",
            soft_alert_usd="0.001",
            sinks=[sink],
            clock=FakeClock(),
        )
        raised = use_everything(guard, **leaks)
        seen = {
            "files": bytes_of(folder),  # With the log that is written ahead.
            "events": events(guard),
            "reports": reports(guard),
            "sinks": repr(sink.told).encode(),
        }
        guard.close()
    assert {type(error).__name__ for error in raised} >= {
        "BudgetExceeded",
        "LoopDetected",
        "UnpricedModelError",
    }
    raised += [] if leaked is None else [CallRefused(leaked)]
    return {
        **seen,
        "files": seen["files"] + bytes_of(folder),
        "errors": b"".join(map(written_of, raised)),
        "logs": logs.getvalue(),
        "output": output.getvalue().encode(),
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return look(tmp_path_factory.mktemp("private"), leaked=None)


@pytest.fixture(scope="module")
def seen_of_leaks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return look(tmp_path_factory.mktemp("leaky"), leaked=canary(LEAKED))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way_out", WAYS_OUT)
def test_nothing_of_the_content_gets_out(
    seen: dict[str, bytes], way_out: str, place: str
) -> None:
    assert not found_in(seen[way_out], canary(place))


@pytest.mark.parametrize("way_out", WAYS_OUT)
def test_what_leaks_on_purpose_is_found(
    seen_of_leaks: dict[str, bytes], way_out: str
) -> None:
    assert found_in(seen_of_leaks[way_out], canary(LEAKED))


@pytest.mark.parametrize("way_out", WAYS_OUT)
def test_there_is_something_to_be_seen(seen: dict[str, bytes], way_out: str) -> None:
    if way_out != "output":  # A guard says nothing there.
        assert len(seen[way_out]) > 1_000
