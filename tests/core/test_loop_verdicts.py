"""Verdicts on loops and on what looks like one, and those of nine other detectors.

Each row is a sequence of calls, with the first call that the best of the others flags
*on evidence*: by what was called or by what came of it, not by counting how often a
tool's name appears. Those who count names flag the traps, too.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from guardrails.core.fingerprints import fingerprint
from guardrails.core.loops import (
    FAILED,
    LoopFinding,
    LoopKind,
    LoopRule,
    ToolTrace,
    find_loop,
    remember,
)

FILE = Path(__file__).parents[3] / "shared" / "data" / "airline-sessions.jsonl"
KEY = b"a key of this test"
CALLS = 40

Call = tuple[str, dict[str, Any], object]
"""Tool, arguments, result."""


def trace(call: Call, number: int, *, ignore: tuple[str, ...] = ()) -> ToolTrace:
    """Returns what a guard remembers of a call."""
    tool, arguments, result = call
    has_failed = isinstance(result, str) and result.startswith("Error")
    return ToolTrace(
        tool=tool,
        arguments_digest=fingerprint(arguments, key=KEY, label=tool, ignore=ignore),
        result_digest=FAILED * has_failed + fingerprint(result, key=KEY, label=tool),
        call_id=f"{number}",
    )


def findings(
    calls: list[Call], rule: LoopRule | None = None
) -> Iterator[tuple[int, LoopFinding]]:
    """Yields what is found, with the number of the call that it is found at."""
    rule = rule or LoopRule()
    known: tuple[ToolTrace, ...] = ()
    for number, call in enumerate(calls, start=1):
        known = remember(known, trace(call, number, ignore=rule.ignore_arguments))
        found = find_loop(known, rule)
        if found is not None:
            yield number, found


def first(
    calls: list[Call], rule: LoopRule | None = None
) -> tuple[int, LoopKind] | None:
    return next(((number, f.kind) for number, f in findings(calls, rule)), None)


# --- Loops ------------------------------------------------------------------


def round_of(*arguments: object) -> list[Call]:
    """Returns calls of one tool with these arguments in turn, and their results."""
    one_round: list[Call] = [
        ("search", {"q": argument}, f"nothing about {str(argument).strip().lower()}")
        for argument in arguments
    ]
    return list(islice(cycle(one_round), CALLS))


def permuted() -> list[Call]:
    one_round: list[Call] = [
        ("search", {"q": "x", "page": 1}, "nothing"),
        ("search", {"page": 1, "q": "x"}, "nothing"),
    ]
    return list(islice(cycle(one_round), CALLS))


def numbers() -> list[Call]:
    return [("list", {"page": 1 if n % 2 else 1.0}, "nothing") for n in range(CALLS)]


def ping_pong() -> list[Call]:
    one_round: list[Call] = [
        ("read", {"path": "a.py"}, "def f(): ..."),
        ("test", {}, "1 failed"),
    ]
    return list(islice(cycle(one_round), CALLS))


def volatile() -> list[Call]:
    return [("search", {"q": "x", "request_id": n}, "nothing") for n in range(CALLS)]


@dataclass(frozen=True)
class Loop:
    """A sequence that every detector should flag."""

    calls: list[Call]
    best_of_others: int
    ours: int
    kind: LoopKind
    rule: LoopRule | None = None


LOOPS = {
    "identical": Loop(round_of("x"), 3, 3, LoopKind.IDENTICAL),
    "keys permuted": Loop(permuted(), 3, 3, LoopKind.IDENTICAL),
    "1 and 1.0": Loop(numbers(), 4, 3, LoopKind.IDENTICAL),
    "a volatile argument": Loop(
        volatile(),
        best_of_others=5,  # By counting names; nobody has evidence.
        ours=3,
        kind=LoopKind.IDENTICAL,
        rule=LoopRule(ignore_arguments=("request_id",)),
    ),
    "variants of space and case": Loop(
        round_of("Rome", " rome", "ROME"), 6, 6, LoopKind.CYCLE
    ),
    "ping-pong": Loop(ping_pong(), 4, 4, LoopKind.CYCLE),
    "a cycle of 3": Loop(round_of(*"abc"), 6, 6, LoopKind.CYCLE),
    "a cycle of 8": Loop(round_of(*"abcdefgh"), 17, 16, LoopKind.CYCLE),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_found_no_later_than_by_the_best_of_the_others(name: str) -> None:
    """And as what it is."""
    loop = LOOPS[name]

    assert first(loop.calls, loop.rule) == (loop.ours, loop.kind)
    assert loop.ours <= loop.best_of_others


def test_a_tool_that_fails_the_same_is_found_whatever_it_is_asked() -> None:
    """None of the others looks at what came of a call."""
    calls: list[Call] = [
        ("fetch", {"url": f"https://example.org/{n}"}, "Error: unauthorized")
        for n in range(CALLS)
    ]

    assert first(calls) == (5, LoopKind.REPEATED_ERROR)


def test_polling_is_found_late() -> None:
    """Its results change, so it may be right to go on."""
    calls: list[Call] = [("status", {"job": 1}, f"{n} %") for n in range(CALLS)]

    assert first(calls) == (10, LoopKind.POLLING)


# --- Traps ------------------------------------------------------------------


def distinct_reads() -> list[Call]:
    return [("read", {"path": f"{n}.py"}, f"text {n}") for n in range(30)]


def reads_and_writes() -> list[Call]:
    calls: list[Call] = []
    for n in range(15):
        calls += [
            ("read", {"path": f"{n}.py"}, f"text {n}"),
            ("write", {"path": f"{n}.py", "text": f"new {n}"}, "ok"),
        ]
    return calls


def pages() -> list[Call]:
    return [("list", {"page": n}, [n * 10 + i for i in range(10)]) for n in range(30)]


def twice_far_apart() -> list[Call]:
    again: Call = ("read", {"path": "plan.md"}, "the plan")
    return [again, *distinct_reads()[:19], again]


def now_and_then() -> list[Call]:
    """Every fifth call reads the same; the four between bring something new.

    One of the others flags it at the third time, the eleventh call. Recorded sessions
    of agents at work do just that, and would be stopped.
    """
    again: Call = ("read", {"path": "plan.md"}, "the plan")
    return [again if n % 5 == 0 else call for n, call in enumerate(distinct_reads())]


TRAPS: dict[str, Callable[[], list[Call]]] = {
    "30 distinct reads": distinct_reads,
    "reads and writes in turn, of distinct files": reads_and_writes,
    "pages": pages,
    "the same call twice, 20 calls apart": twice_far_apart,
    "the same call now and then": now_and_then,
}


@pytest.mark.parametrize("name", TRAPS)
def test_work_that_looks_like_a_loop_is_none(name: str) -> None:
    """Six of the nine others flag at least one of the first four."""
    assert list(findings(TRAPS[name]())) == []


# --- Agents at work ---------------------------------------------------------


def recorded() -> Iterator[list[Call]]:
    for line in FILE.read_text(encoding="utf-8").splitlines():
        messages = json.loads(line)["messages"]
        asked = {
            call["id"]: json.loads(call["arguments"])
            for message in messages
            for call in message.get("tool_calls") or ()
        }
        yield [
            (message["name"], asked[message["tool_call_id"]], message["content"])
            for message in messages
            if message["role"] == "tool"
        ]


@pytest.mark.skipif(
    not FILE.exists(), reason="the recorded sessions are not beside the repository"
)
def test_no_recorded_session_of_an_agent_at_work_is_a_loop() -> None:
    """Although errors are marked as such here, which the recording does not."""
    sessions = list(recorded())
    made = sum(len(calls) for calls in sessions)

    assert (len(sessions), made) == (100, 572)
    assert [list(findings(calls)) for calls in sessions] == [[]] * 100
