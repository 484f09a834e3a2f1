"""Metering: the relay's calls in a real ledger."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pytest

from guardrails import CallRefused, Event, Guard, PriceStatus, SessionStopped
from guardrails.core.calls import CallStatus
from guardrails.testing import FakeClock
from guardrails_mcp.stdio.messages import ToolRequest, line_of
from guardrails_mcp.stdio.metering import GuardMeter
from guardrails_mcp.stdio.meters import READ_BYTES_MAX, Answer
from guardrails_mcp.stdio.relay import Relay


def request(tool: object = "echo", **params: object) -> ToolRequest:
    return ToolRequest(
        key="1",
        tool=tool,
        arguments=params.pop("arguments", {}),
        params=params,
        is_modern=False,
        size_bytes=100,
    )


def baggage(**names: str) -> dict[str, str]:
    return {"baggage": ",".join(f"guardrails.{k}={v}" for k, v in names.items())}


def events(guard: Guard) -> list[Event]:
    return list(
        guard.store.history.timeline(project_id="default", since_ms=0, until_ms=2**62)
    )


def guard_of(config: Mapping[str, Any] = {}, **limits: Any) -> Guard:
    return Guard(config, store="memory://", **limits)


def test_a_call_is_booked_with_all_that_is_known() -> None:
    guard = guard_of({"tools": {"files/*": {"cost_per_call_usd": "0.01"}}})
    call = GuardMeter(guard, "files").open_tool(request("read", arguments={"a": 1}))

    call.settle(Answer(result={"content": []}, size_bytes=70))

    [event] = events(guard)
    assert (event.server, event.tool, event.status) == ("files", "read", CallStatus.OK)
    assert (event.bytes_in, event.bytes_out) == (100, 70)
    assert event.charge.cost_nano_usd == 10_000_000


@pytest.mark.parametrize("name", ["__ddfcc2122d58_read", "ddfcc2122d58_read"])
def test_the_tool_of_an_app_has_one_price_by_all_its_names(name: str) -> None:
    """FastMCP's servers let everybody call it by a hash."""
    guard = guard_of({"tools": {"files/read": {"max_calls": 1}}})
    meter = GuardMeter(guard, "files")
    meter.open_tool(request("read")).settle(Answer(result={"content": []}))

    with pytest.raises(SessionStopped):
        meter.open_tool(request(name))


@pytest.mark.parametrize("rule", ["files/{}", "{}", "files/{}*"])
@pytest.mark.parametrize("name", ["0123456789ab_buy", "__0123456789ab_buy"])
def test_a_tool_that_is_really_called_like_a_hash_keeps_its_rule(
    name: str, rule: str
) -> None:
    price = {"cost_per_call_usd": "0.40", "max_calls": 1}
    others = {"files/buy": {"cost_per_call_usd": "0.01"}}
    guard = guard_of({"tools": {rule.format(name): price, **others}})
    meter = GuardMeter(guard, "files")

    meter.open_tool(request(name)).settle(Answer(result={"content": []}))

    [event] = events(guard)
    assert (event.tool, event.charge.cost_nano_usd) == (name, 400_000_000)
    with pytest.raises(SessionStopped):
        meter.open_tool(request(name))


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer(error_type="tool_error"), CallStatus.ERROR),
        (Answer(error_type="server_gone", is_broken_off=True), CallStatus.BROKEN_OFF),
    ],
)
def test_a_call_that_fails_is_booked_as_it_failed(
    answer: Answer, status: CallStatus
) -> None:
    guard = guard_of()

    GuardMeter(guard, "files").open_tool(request()).settle(answer)

    [event] = events(guard)
    assert (event.status, event.error_type) == (status, answer.error_type)


@pytest.mark.parametrize(
    ("reported", "expected"),
    [("0.25", 250_000_000), (0.1, 100_000_000), ("-1", None), ("NaN", None)],
)
def test_a_reported_cost_counts_where_it_is_believed(
    reported: object, expected: int | None
) -> None:
    rule = {"cost_per_call_usd": "0.5", "cost_from_meta": "acme.com/cost"}
    guard = guard_of({"tools": {"maps/*": rule}})
    call = GuardMeter(guard, "maps").open_tool(request())

    call.settle(Answer(result={"_meta": {"acme.com/cost": reported}}))

    [event] = events(guard)
    assert event.charge.cost_nano_usd == (expected or 500_000_000)
    is_reported = event.charge.status is PriceStatus.REPORTED
    assert is_reported == (expected is not None)


@pytest.mark.parametrize("characters", [1, READ_BYTES_MAX])
def test_a_reported_cost_counts_however_long_the_result_is(characters: int) -> None:
    rule = {"cost_from_meta": "acme.com/cost"}
    guard = guard_of({"tools": {"maps/*": rule}}, on_unpriced="allow")
    meter = GuardMeter(guard, "maps")
    relay = Relay(lambda: meter, bytes_max=2 * READ_BYTES_MAX)
    content = [{"type": "text", "text": "x" * characters}]
    result = {"content": content, "_meta": {"acme.com/cost": "0.25"}}

    relay.from_host(
        line_of({"id": 7, "method": "tools/call", "params": {"name": "echo"}})
    )
    relay.from_server(line_of({"id": 7, "result": result}))
    relay.book()

    [event] = events(guard)
    assert event.charge.cost_nano_usd == 250_000_000


def asked(method: str, number: int, **params: object) -> bytes:
    return line_of({"id": number, "method": method, "params": params})


def answered(number: int, **result: object) -> bytes:
    return line_of({"id": number, "result": result})


CREATED = {"task": {"taskId": "t-1", "status": "working"}}

FETCHED = {
    "content": [{"type": "text", "text": "rendered"}],
    "_meta": {"acme.com/cost": "0.25"},
}


def relay_with(guard: Guard) -> Relay:
    meter = GuardMeter(guard, "maps")
    return Relay(lambda: meter, bytes_max=2 * READ_BYTES_MAX)


BELIEVED = {"tools": {"maps/*": {"cost_from_meta": "acme.com/cost"}}}


@pytest.mark.parametrize(
    ("method", "result", "cost"),
    [
        ("tasks/result", FETCHED, 250_000_000),
        ("tasks/get", {"status": "completed", "result": FETCHED}, 250_000_000),
        ("tasks/cancel", {"taskId": "t-1", "status": "cancelled"}, 500_000_000),
        ("tasks/get", {"taskId": "t-1", "status": "failed"}, 500_000_000),
    ],
)
def test_a_call_that_is_a_task_costs_what_its_result_says(
    method: str, result: dict[str, object], cost: int
) -> None:
    rule = {"cost_per_call_usd": "0.5", "cost_from_meta": "acme.com/cost"}
    guard = guard_of({"tools": {"maps/*": rule}})
    relay = relay_with(guard)

    relay.from_host(asked("tools/call", 1, name="render", task={}))
    relay.from_server(answered(1, **CREATED))
    for number in (2, 3):  # A host that polls.
        relay.from_host(asked("tasks/get", number, taskId="t-1"))
        relay.from_server(answered(number, taskId="t-1", status="working"))
    relay.from_host(asked("tasks/result", 4, taskId="t-1"))
    relay.from_server(line_of({"id": 4, "error": {"code": -32603, "message": "?"}}))
    relay.book()
    assert not events(guard)
    for number in (5, 6):  # And asks for it twice.
        relay.from_host(asked(method, number, taskId="t-1"))
        relay.from_server(answered(number, **result))
    relay.book()

    [event] = events(guard)
    assert event.charge.cost_nano_usd == cost
    assert guard.current_session().steps == 1


@pytest.mark.parametrize("config", [{}, BELIEVED], ids=["not believed", "believed"])
def test_a_task_whose_result_nobody_fetches_is_booked(config: Any) -> None:
    """At once, where its result could say nothing that counts."""
    guard = guard_of(config, on_unpriced="allow")
    relay = relay_with(guard)

    relay.from_host(asked("tools/call", 1, name="render", task={}))
    relay.from_server(answered(1, **CREATED))
    relay.book()
    assert len(events(guard)) == (not config)
    relay.server_is_gone()

    assert len(events(guard)) == 1


def test_a_task_that_has_the_name_of_another_does_not_take_its_place() -> None:
    """As of a server that names them by its own count, and begins it anew."""
    guard = guard_of(BELIEVED, on_unpriced="allow")
    relay = relay_with(guard)

    for number in (1, 2):
        relay.from_host(asked("tools/call", number, name="render", task={}))
        relay.from_server(answered(number, **CREATED))
    relay.from_host(asked("tasks/result", 3, taskId="t-1"))
    relay.from_server(answered(3, **FETCHED))
    relay.server_is_gone()

    costs = [event.charge.cost_nano_usd for event in events(guard)]
    assert costs == [None, 250_000_000]


def test_a_notice_about_a_task_is_no_request_that_waits() -> None:
    guard = guard_of(BELIEVED, on_unpriced="allow")
    relay = relay_with(guard)

    relay.from_host(asked("tools/call", 1, name="render", task={}))
    relay.from_server(answered(1, **CREATED))
    relay.book()
    message = {"method": "tasks/get", "params": {"taskId": "t-1"}}
    relay.from_host(line_of(message))

    assert relay.is_idle


@pytest.mark.parametrize("config", [{}, BELIEVED], ids=["not believed", "believed"])
def test_a_cancelled_call_costs_what_its_answer_says_all_the_same(config: Any) -> None:
    """Servers may ignore a cancellation, or it crosses the answer."""
    guard = guard_of(config, on_unpriced="allow")
    relay = relay_with(guard)

    relay.from_host(asked("tools/call", 1, name="render"))
    relay.from_host(asked("notifications/cancelled", 0, requestId=1))
    assert relay.is_idle
    relay.from_host(asked("tools/call", 2, name="render"))
    relay.from_server(answered(2, **FETCHED))
    relay.from_server(answered(1, **FETCHED))
    relay.book()

    costs = [event.charge.cost_nano_usd for event in events(guard)]
    assert costs == ([250_000_000] * 2 if config else [None] * 2)


def test_a_cancelled_call_that_is_not_answered_is_booked_at_the_end() -> None:
    guard = guard_of(BELIEVED, on_unpriced="allow")
    relay = relay_with(guard)

    for _ in range(2):  # Two under one id.
        relay.from_host(asked("tools/call", 1, name="render"))
        relay.from_host(asked("notifications/cancelled", 0, requestId=1))
    relay.server_is_gone()

    assert [event.status for event in events(guard)] == [CallStatus.BROKEN_OFF] * 2


def test_another_s_task_is_no_call_of_this_connection() -> None:
    guard = guard_of(BELIEVED, on_unpriced="allow")
    relay = relay_with(guard)

    relay.from_host(asked("tools/call", 1, name="render", task={}))
    relay.from_server(answered(1, **CREATED))
    relay.from_host(asked("tasks/result", 2, taskId="t-2"))
    relay.from_server(answered(2, **FETCHED))
    relay.book()

    assert not events(guard)


def test_a_reported_cost_counts_nowhere_else() -> None:
    guard = guard_of()
    call = GuardMeter(guard, "maps").open_tool(request())

    call.settle(Answer(result={"_meta": {"acme.com/cost": "0.25"}}))

    assert events(guard)[0].charge.cost_nano_usd is None


def test_baggage_chooses_the_session_and_completes_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GUARDRAILS_CUSTOMER_ID", "acme")
    guard = guard_of(max_steps=1)
    meter = GuardMeter(guard, "files")

    for session in ("s-1", "s-2"):
        meter.open_tool(request(_meta=baggage(session_id=session, agent="helper")))
    meter.open_tool(request())
    with pytest.raises(SessionStopped):
        meter.open_tool(request(_meta=baggage(session_id="s-1")))

    account = guard.account("s-2")
    assert account is not None
    assert account.session is not None
    who = account.session.attribution
    assert (who.customer_id, who.agent) == ("acme", "helper")


def test_baggage_without_a_session_is_no_way_to_a_new_one() -> None:
    """It names an agent or a customer; what limits the process still does."""
    guard = guard_of(max_steps=2)
    meter = GuardMeter(guard, "files")
    meter.open_tool(request(_meta=baggage(agent="a")))
    meter.open_tool(request(_meta=baggage(agent="b")))

    with pytest.raises(SessionStopped):
        meter.open_tool(request(_meta=baggage(agent="c")))


def test_no_wall_time_passes_between_calls() -> None:
    """A server's process is idle for days while a person thinks."""
    clock = FakeClock()
    guard = guard_of(max_wall_time_s=60, clock=clock)
    meter = GuardMeter(guard, "files")
    for number in range(3):
        call = meter.open_tool(request(arguments={"number": number}))
        clock.advance(seconds=5)
        call.settle(Answer(result={}))
        clock.advance(seconds=3_600)

    call = meter.open_tool(request())
    clock.advance(seconds=61)
    with pytest.raises(SessionStopped):
        meter.open_tool(request())


def test_a_call_ends_once_for_the_wall_time() -> None:
    """One that nobody answers is over at once, and may not reach the server either."""
    clock = FakeClock()
    guard = guard_of(max_wall_time_s=60, clock=clock)
    meter = GuardMeter(guard, "files")
    for number in range(2):
        call = meter.open_tool(request(arguments={"number": number}))
        call.settle(Answer())
        call.release()
    clock.advance(seconds=3_600)

    meter.open_tool(request())


def test_a_call_that_waits_for_a_person_takes_no_wall_time() -> None:
    clock = FakeClock()
    guard = guard_of(max_wall_time_s=60, clock=clock)
    meter = GuardMeter(guard, "files")
    call = meter.open_tool(request())
    call.pause()
    clock.advance(seconds=3_600)
    call.go_on()

    meter.open_tool(request())


@pytest.mark.parametrize("tool", [None, 7, "", ["echo"], "x" * 10_000, "a\u0000b"])
def test_a_tool_of_any_name_is_a_step(tool: object) -> None:
    guard = guard_of(max_steps=1)
    meter = GuardMeter(guard, "files")
    meter.open_tool(request(tool)).settle(Answer(result={}))

    with pytest.raises(SessionStopped):
        meter.open_tool(request(tool))


def test_identical_calls_with_identical_results_are_a_loop() -> None:
    guard = guard_of({"defaults": {"loop": {"repeats": 3, "action": "block"}}})
    meter = GuardMeter(guard, "files")
    for number in range(3):
        call = meter.open_tool(request(arguments={"path": "/a"}))
        call.settle(Answer(result={"content": ["x"], "_meta": {"at": number}}))

    with pytest.raises(CallRefused, match="3 times"):
        meter.open_tool(request(arguments={"path": "/a"}))


@pytest.mark.parametrize("error_type", [None, "tool_error"])
@pytest.mark.parametrize(("changing", "is_refused"), [("", True), ("{}", False)])
def test_answers_too_long_to_be_read_are_told_apart_by_their_ends(
    changing: str, *, is_refused: bool, error_type: str | None
) -> None:
    guard = guard_of({"defaults": {"loop": {"repeats": 3, "action": "block"}}})
    meter = GuardMeter(guard, "files")
    for number in range(3):
        tail = changing.format(number).encode()
        answer = Answer(edges=(b"head", tail, b"9"), error_type=error_type)
        meter.open_tool(request()).settle(answer)

    with pytest.raises(CallRefused) if is_refused else nullcontext():
        meter.open_tool(request())


def test_a_tool_that_fails_again_and_again_in_the_same_way_is_in_a_loop() -> None:
    guard = guard_of({"defaults": {"loop": {"repeats": 3, "action": "block"}}})
    meter = GuardMeter(guard, "files")
    for error_type in ("-32603", "-32602", "-32603", "-32603", "-32603"):
        meter.open_tool(request()).settle(Answer(error_type=error_type))

    with pytest.raises(CallRefused, match="3 times"):
        meter.open_tool(request())


# --- sampling ----------------------------------------------------------------


def sampling(**params: object) -> dict[str, object]:
    hints = {"hints": [{"name": "gpt-4o"}]}
    return {"maxTokens": 100, "modelPreferences": hints, **params}


def test_sampling_is_a_model_call_of_the_model_that_answered() -> None:
    guard = guard_of(max_cost_usd="1.00")
    call = GuardMeter(guard, "files").open_sampling(sampling(), 1_000)

    call.settle(Answer(result={"model": "gpt-4o-mini", "content": {}}, size_bytes=40))

    [event] = events(guard)
    assert event.model == "gpt-4o-mini"
    assert event.usage is not None
    assert (event.usage.input_tokens, event.usage.output_tokens) == (1_000, 40)
    assert event.charge.status is PriceStatus.ESTIMATED
    assert event.charge.cost_nano_usd


def test_sampling_that_the_host_rejects_costs_nothing() -> None:
    guard = guard_of(max_cost_usd="1.00")
    call = GuardMeter(guard, "files").open_sampling(sampling(), 1_000)

    call.settle(Answer(error_type="jsonrpc_error -1"))

    assert events(guard)[0].charge.cost_nano_usd == 0


@pytest.mark.parametrize("tokens", [True, -5, "many", None, 10**30])
def test_a_bound_that_is_none_is_no_bound(tokens: object) -> None:
    guard = guard_of()

    call = GuardMeter(guard, "files").open_sampling(sampling(maxTokens=tokens), 10)

    held = guard.account(guard.current_session().session_id)
    assert held is not None
    assert held.held_tokens >= 10 + 4_096  # As of a request without a bound.
    call.settle(Answer(result={"model": 7, "content": {}}))
    assert events(guard)[0].model == "gpt-4o"
