"""Random hosts and servers: whatever both write, each call is booked exactly once."""

from collections.abc import Callable, Sequence
from random import Random  # noqa: TID251 - seeded, so that every run is alike

from guardrails_mcp.stdio import messages
from guardrails_mcp.stdio.lines import Oversized
from guardrails_mcp.stdio.meters import READ_BYTES_MAX
from guardrails_mcp.stdio.relay import Relay
from tests.integrations.mcp_relay.metering import Books, relay_of

SAMPLING = "sampling/createMessage"
IDS = (1, "1", 1.0, 2, "a", None, -3, 2.5, True, [1], {"a": 1})
"""What hosts and servers use as ids, and what they should not."""

STATES = ("s1", "s2")
NAMES = "xy"
STEPS_MAX = 40
SEEDS = 1_000

Message = dict[str, object]
Kinds = Sequence[Callable[[Random], Message]]


def called(random: Random) -> Message:
    """A tool call; now and then it claims to go on with a round."""
    params: Message = {"name": random.choice("tu"), "arguments": {}}
    chance = random.random()
    if chance < 0.2:
        params["requestState"] = random.choice(STATES)
    elif chance < 0.4:
        answers = ({"model": "m", "content": {}}, 5, None)
        params["inputResponses"] = {random.choice(NAMES): random.choice(answers)}
    message: Message = {"method": "tools/call", "params": params}
    is_notification = random.random() < 0.05
    return message if is_notification else {"id": random.choice(IDS)} | message


def answered(random: Random) -> Message:
    """An answer, also to what nobody has asked; now and then it asks for input."""
    chance, message = random.random(), {"id": random.choice(IDS)}
    if chance < 0.15:
        return message | {"error": {"code": 1}}
    if chance < 0.2:
        return message | {"result": None}
    result: Message = {"content": []}
    if chance < 0.55:
        asked = random.choice(({"method": SAMPLING}, {"method": "elicitation/create"}))
        result["inputRequests"] = {random.choice(NAMES): asked}
        result["requestState"] = random.choice((*STATES, None))
    if chance < 0.5:
        result["resultType"] = "input_required"
    if random.random() < 0.03:
        result["content"] = ["x" * READ_BYTES_MAX]
    return message | {"result": result}


def cancelled(random: Random) -> Message:
    params = {"requestId": random.choice(IDS)}
    return {"method": "notifications/cancelled", "params": params}


def sampled(random: Random) -> Message:
    return {"id": random.choice(IDS), "method": SAMPLING, "params": {"maxTokens": 5}}


HOST = (called, called, called, cancelled, answered)
SERVER = (answered, answered, answered, cancelled, sampled)


def said(random: Random, kinds: Kinds) -> bytes | Oversized:
    """What a side writes: a message, a batch of them, or too much."""
    count = random.randint(0, 3) if random.random() < 0.15 else None
    one, *others = [random.choice(kinds)(random) for _ in range(1 + (count or 0))]
    line = messages.line_of(one if count is None else others)
    is_long = random.random() < 0.05
    return Oversized(line[:64], line[-64:], 9_999) if is_long else line


def play(relay: Relay, random: Random) -> int:
    """Plays a connection to its end; returns how many calls reach the server."""
    reached = 0
    for _ in range(random.randint(3, STEPS_MAX)):
        if random.random() < 0.5:
            passed = relay.from_host(said(random, HOST)).to_server
            batch = messages.messages_in(passed) or ()
            reached += sum(messages.method_of(one) == "tools/call" for one in batch)
        else:
            relay.from_server(said(random, SERVER))
            if random.random() < 0.5:
                relay.book()
    relay.server_is_gone()
    return reached


def test_each_call_is_booked_once_whatever_is_written() -> None:
    for seed in range(SEEDS):
        random = Random(seed)
        books = Books(admitted_max=random.choice((3, 8, 1_000)))

        reached = play(relay_of(books), random)

        for one in books.calls:
            assert len(one.answers) + one.is_released == 1, (seed, one)
            assert not one.pauses, (seed, one)
        tools = [one for one in books.calls if one.tool != "sampling"]
        assert len(tools) <= reached, seed  # The rounds of one call are one call.
