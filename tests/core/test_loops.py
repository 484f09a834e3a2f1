"""Loops: what repeats, what only polls, and what is no repetition at all."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.accounts import Account
from guardrails.core.calls import CallKind
from guardrails.core.ledger import Ledger
from guardrails.core.loops import (
    TRACES_MAX,
    LoopAction,
    LoopFinding,
    LoopKind,
    LoopRule,
    ToolTrace,
    find_loop,
    remember,
)
from guardrails.core.operations import (
    ReadAccount,
    Reserved,
    Settled,
    Verdict,
)
from guardrails.testing.conformance import charging, reserve, settle

RULE = LoopRule(repeats=3, polling_repeats=5, within=8)


def trace(
    arguments: str = "a",
    result: str | None = "r",
    *,
    tool: str = "t",
    call_id: str | None = None,
    cost: int | None = None,
) -> ToolTrace:
    return ToolTrace(
        tool=tool,
        arguments_digest=arguments,
        result_digest=result,
        call_id=call_id,
        cost_nano_usd=cost,
    )


def traces(*calls: str) -> list[ToolTrace]:
    """Builds traces from `arguments/result`."""
    return [trace(*call.split("/")) for call in calls]


def kind_of(*calls: str) -> LoopKind | None:
    finding = find_loop(traces(*calls), RULE)
    return finding and finding.kind


# --- What is found ----------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "kind"),
    [
        ("", None),
        ("a/r", None),
        ("a/r a/r", None),
        ("a/r a/r a/r", LoopKind.IDENTICAL),
        ("b/r a/r a/r a/r", LoopKind.IDENTICAL),
        ("a/r a/r b/r a/r", None),
        ("a/r a/r a/r b/r", None),
        ("a/r a/r a/x", None),
        ("a/r b/r a/r b/r a/r b/r", None),
        ("a/1 a/2 a/3 a/4", None),
        ("a/1 a/2 a/3 a/4 a/5", LoopKind.POLLING),
        ("a/1 a/2 a/r a/r a/r", LoopKind.IDENTICAL),
        ("a/1 a/2 b/3 a/4 a/5", None),
    ],
)
def test_finds_what_repeats_without_a_break(calls: str, kind: LoopKind | None) -> None:
    """The same call with the same result is a loop; a changing result is polling."""
    assert kind_of(*calls.split()) is kind


def test_another_tool_with_the_same_arguments_is_another_call() -> None:
    """A digest says nothing without its tool."""
    found = find_loop([trace(), trace(tool="u"), trace()], RULE)

    assert found is None


def test_results_that_are_not_known_are_not_the_same() -> None:
    """Three unknown results prove nothing; five of the same call are polling."""
    unknown = [trace(result=None)] * 4

    assert find_loop(unknown, RULE) is None
    found = find_loop([*unknown, trace(result=None)], RULE)
    assert found is not None
    assert found.kind is LoopKind.POLLING


def test_a_finding_says_how_often_and_what_it_cost() -> None:
    """Only the calls of the run count, and only costs that are known."""
    run = [trace(cost=5), trace(cost=None), trace(cost=7)]
    found = find_loop([trace("b", cost=100), *run], RULE)

    assert found == LoopFinding(
        kind=LoopKind.IDENTICAL,
        tool="t",
        arguments_digest="a",
        count=3,
        cost_nano_usd=12,
    )


def test_looks_at_the_last_calls_only() -> None:
    """A run is counted up to `within` calls."""
    found = find_loop([trace()] * 50, RULE)

    assert found is not None
    assert found.count == RULE.within


@given(st.lists(st.sampled_from(["a/r", "a/x", "b/r"]), max_size=12))
def test_counts_like_a_reader_of_the_log(calls: list[str]) -> None:
    """Going back from the end, as long as the call, or also its result, is equal."""
    recent = calls[-RULE.within :]
    same_result = same_call = 0
    for call in reversed(recent):
        if call != recent[-1]:
            break
        same_result += 1
    for call in reversed(recent):
        if call[0] != recent[-1][0]:
            break
        same_call += 1
    found = find_loop(traces(*calls), RULE)

    if same_result >= RULE.repeats:
        assert found is not None
        assert (found.kind, found.count) == (LoopKind.IDENTICAL, same_result)
    elif same_call >= RULE.polling_repeats:
        assert found is not None
        assert (found.kind, found.count) == (LoopKind.POLLING, same_call)
    else:
        assert found is None


# --- What is remembered -----------------------------------------------------


def test_a_replay_of_one_call_is_no_repetition() -> None:
    """A framework that runs a tool again after an interrupt repeats itself."""
    known: tuple[ToolTrace, ...] = ()
    for _ in range(5):
        known = remember(known, trace(call_id="c1"))

    assert known == (trace(call_id="c1"),)
    assert find_loop(known, RULE) is None


def test_calls_with_ids_of_their_own_are_repetitions() -> None:
    """The model asked three times."""
    known: tuple[ToolTrace, ...] = ()
    for number in range(3):
        known = remember(known, trace(call_id=f"c{number}"))

    assert find_loop(known, RULE) is not None


def test_remembers_a_bounded_number_of_calls() -> None:
    """The oldest are forgotten first."""
    known: tuple[ToolTrace, ...] = ()
    for number in range(TRACES_MAX + 3):
        known = remember(known, trace(f"{number}"))

    assert len(known) == TRACES_MAX
    assert known[-1].arguments_digest == f"{TRACES_MAX + 2}"


# --- What the ledger makes of it --------------------------------------------


def run(
    ledger: Ledger, *calls: str, rule: LoopRule, is_enforced: bool = True
) -> list[Settled]:
    """Makes tool calls; returns the replies to their settling."""
    to = charging(loop=rule, is_enforced=is_enforced)
    replies: list[Settled] = []
    for call in calls:
        hold_id = f"{len(ledger.holds)}"
        ledger.apply(reserve(hold_id, to, kind=CallKind.TOOL))
        op = settle(hold_id, to, kind=CallKind.TOOL, trace=trace(*call.split("/")))
        reply = ledger.apply(op)
        assert isinstance(reply, Settled)
        replies.append(reply)
    return replies


def counts_told(replies: list[Settled]) -> list[int]:
    return [reply.finding.count for reply in replies if reply.finding]


@pytest.mark.parametrize(
    "rule", [RULE, LoopRule(repeats=3, polling_repeats=3, within=3)]
)
def test_a_run_of_repetitions_is_told_once(rule: LoopRule) -> None:
    """However long it goes on, and however few calls are looked at."""
    warn = replace(rule, action=LoopAction.WARN)
    ledger = Ledger()
    first = counts_told(run(ledger, *["a/r"] * 20, rule=warn))
    again = counts_told(run(ledger, "b/r", *["a/r"] * 20, rule=warn))

    assert first == again == [3]


def test_polling_is_told_once() -> None:
    """Its own count, and nothing more while it goes on."""
    warn = replace(RULE, action=LoopAction.WARN)
    replies = run(Ledger(), *[f"a/{n}" for n in range(20)], rule=warn)

    assert counts_told(replies) == [5]


def test_block_refuses_the_repeated_call_alone() -> None:
    """Another call passes, ends the run, and the first may be made again."""
    ledger = Ledger()
    rule = replace(RULE, action=LoopAction.BLOCK)
    run(ledger, "a/r", "a/r", "a/r", rule=rule)
    again = attempt(ledger, rule, trace(result=None))
    other = attempt(ledger, rule, trace("b", result=None))
    run(ledger, "b/r", rule=rule)

    assert again.verdict is Verdict.DENY
    assert again.refusal is not None
    assert again.refusal.finding is not None
    assert again.new_stop is None
    assert other.verdict is Verdict.ALLOW
    assert attempt(ledger, rule, trace(result=None)).verdict is Verdict.ALLOW


def attempt(ledger: Ledger, rule: LoopRule, of: ToolTrace) -> Reserved:
    to = charging(loop=rule)
    op = reserve(f"try{len(ledger.holds)}", to, kind=CallKind.TOOL)
    reply = ledger.apply(replace(op, trace=of))
    assert isinstance(reply, Reserved)
    return reply


def test_observing_stops_no_loop() -> None:
    """It is told, and the session goes on."""
    ledger = Ledger()
    replies = run(ledger, *["a/r"] * 4, rule=RULE, is_enforced=False)
    account = ledger.apply(ReadAccount(account="default/session/session_id=s"))

    assert counts_told(replies) == [3]
    assert isinstance(account, Account)
    assert account.stop is None


def test_a_call_without_a_trace_takes_no_part() -> None:
    """An exempt tool has none: it neither makes nor breaks a run."""
    ledger = Ledger()
    run(ledger, "a/r", "a/r", rule=RULE)
    to = charging(loop=RULE)
    ledger.apply(settle("exempt", to, kind=CallKind.TOOL))
    (last,) = run(ledger, "a/r", rule=RULE)

    assert last.new_stop is not None


# --- What a rule may say ----------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"repeats": 1}, "loop.repeats: 1 must be at least 2"),
        ({"repeats": 21, "polling_repeats": 21}, r"at most loop.within \(20\)"),
        ({"polling_repeats": 2}, "loop.polling_repeats: 2 must be at least"),
        ({"polling_repeats": 21}, r"at most loop.within \(20\)"),
        ({"within": TRACES_MAX + 1}, f"is above {TRACES_MAX}"),
    ],
)
def test_a_rule_that_could_never_be_met_is_refused(
    values: dict[str, int], message: str
) -> None:
    """Counts are in order, and in view."""
    with pytest.raises(ValueError, match=message):
        LoopRule(**values)
