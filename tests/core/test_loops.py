"""Loops: what repeats, what only polls, and what is no repetition at all."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrails.core.accounts import Account
from guardrails.core.calls import CallKind
from guardrails.core.ledger import Ledger
from guardrails.core.loops import (
    CYCLE_PERIOD_MAX,
    TRACES_MAX,
    LoopAction,
    LoopFinding,
    LoopKind,
    LoopRule,
    ToolTrace,
    find_loop,
    refusals_of,
    remember,
    remember_refusal,
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
        ("a/r b/r a/r b/r a/r b/r", LoopKind.CYCLE),
        ("a/1 a/2 a/3 a/4", None),
        ("a/1 a/2 a/3 a/4 a/5", LoopKind.POLLING),
        ("a/1 a/2 a/r a/r a/r", LoopKind.IDENTICAL),
        ("a/1 a/2 b/3 a/4 a/5", None),
        ("a/r b/r a/r", None),
        ("a/r b/r a/r b/r", LoopKind.CYCLE),
        ("a/r b/1 a/r b/2 a/r b/3", None),
        ("a/1 a/2 a/1 a/2", None),
        ("a/r b/r c/r a/r b/r", None),
        ("a/r b/r c/r a/r b/r c/r", LoopKind.CYCLE),
        ("a/r b/r c/r d/r a/r b/r c/r d/r", LoopKind.CYCLE),
        ("a/!e b/!e c/!e d/!e", None),
        ("a/!e b/!e c/!e d/!e e/!e", LoopKind.REPEATED_ERROR),
        ("a/e b/e c/e d/e e/e", None),
        ("a/!e b/!e c/!f d/!e e/!e", None),
        ("a/!e b/!e c/r d/!e e/!e", None),
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


# --- The same, read off a log by hand ---------------------------------------

CALLS = st.tuples(
    st.sampled_from("tu"), st.sampled_from("ab"), st.sampled_from(["r", "x", "!e", ""])
)
RULES = st.builds(
    LoopRule,
    repeats=st.integers(2, 4),
    cycle_repeats=st.integers(2, 3),
    error_repeats=st.integers(2, 5),
    polling_repeats=st.integers(4, 8),
    within=st.integers(8, 20),
)


@st.composite
def habitual(draw: st.DrawFn) -> list[tuple[str, str, str]]:
    """Draws what an agent does: some calls, one round again and again, some more."""
    some = st.lists(CALLS, max_size=3)
    round_of_calls = draw(st.lists(CALLS, min_size=1, max_size=9))
    return draw(some) + round_of_calls * draw(st.integers(0, 5)) + draw(some)


def found_by_hand(
    log: list[tuple[str, str, str]], rule: LoopRule
) -> tuple[LoopKind, int] | None:
    """Tries every length of the end of the log, the longest first."""
    seen = log[-rule.within :]
    ends = [seen[start:] for start in range(len(seen))]

    def longest(holds: Callable[[list[tuple[str, str, str]]], bool]) -> int:
        return max((len(end) for end in ends if holds(end)), default=0)

    def repeats(end: list[tuple[str, str, str]], period: int) -> bool:
        """Whether rounds of this length, the first of them cut, make up the end."""
        rounds = (end[-period:] * len(end))[-len(end) :]
        return all(result for _, _, result in end) and rounds == end

    count = longest(lambda end: repeats(end, 1))
    if count >= rule.repeats:
        return LoopKind.IDENTICAL, count
    for period in range(2, CYCLE_PERIOD_MAX + 1):
        last_round = {call[:2] for call in seen[-period:]}
        count = longest(lambda end, period=period: repeats(end, period))
        if len(last_round) > 1 and count >= period * rule.cycle_repeats:
            return LoopKind.CYCLE, count
    count = longest(
        lambda end: end[-1][2] == "!e" and len({(t, r) for t, _, r in end}) == 1
    )
    if count >= rule.error_repeats:
        return LoopKind.REPEATED_ERROR, count
    count = longest(lambda end: len({call[:2] for call in end}) == 1)
    return (LoopKind.POLLING, count) if count >= rule.polling_repeats else None


@settings(max_examples=500)
@given(habitual(), RULES)
def test_finds_what_a_reader_of_the_log_finds(
    log: list[tuple[str, str, str]], rule: LoopRule
) -> None:
    """Kind, count and cost of every finding are those that are read off by hand."""
    known = [trace(a, r or None, tool=t, cost=1) for t, a, r in log]
    found = find_loop(known, rule)

    told = found and (found.kind, found.count)
    assert told == found_by_hand(log, rule)
    if found is not None:
        assert found.cost_nano_usd == found.count
        assert (found.tool, found.arguments_digest) == log[-1][:2]
        if found.kind is LoopKind.CYCLE:
            period = len(found.tools)
            assert [tool for tool, _, _ in log[-period:]] == list(found.tools)


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


def test_a_call_that_completes_after_refusals_sweeps_them_away() -> None:
    """One in flight may end so; then the run goes on, and is not cut by them."""
    known = (trace(call_id="1"), trace(call_id="2"), trace(call_id="3"))
    refused = remember_refusal(known, trace(result=None), hold_id="4")
    refused = remember_refusal(refused, trace(result=None), hold_id="5")
    completed = remember(refused, trace(call_id="6"))

    assert (refusals_of(refused), refusals_of(completed)) == (2, 0)
    assert find_loop(refused, RULE) == find_loop(known, RULE)
    assert completed == (*known, trace(call_id="6"))


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
    "rule", [RULE, LoopRule(repeats=3, error_repeats=3, polling_repeats=3, within=4)]
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
