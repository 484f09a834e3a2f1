"""The relay: no tool call passes unpaid, and nothing else is touched."""

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from guardrails_mcp.refusals import REFUSAL_KEY
from guardrails_mcp.stdio.lines import Oversized
from guardrails_mcp.stdio.messages import ToolRequest
from guardrails_mcp.stdio.meters import READ_BYTES_MAX, Ended
from guardrails_mcp.stdio.relay import Passage, Relay
from tests.integrations.mcp_relay.metering import Books, Call, relay_of

CALL = (
    b'{"jsonrpc":"2.0","id":7,"method":"tools/call",'
    b'"params":{"name":"echo","arguments":{"a":1}}}\n'
)


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def call(key: object = 7, tool: str = "echo", **params: object) -> bytes:
    return line({"id": key, "method": "tools/call", "params": {"name": tool, **params}})


def answer(key: object = 7, **result: object) -> bytes:
    return line({"jsonrpc": "2.0", "id": key, "result": result})


def answered(relay: Relay, message: bytes) -> None:
    """A line of the server passes as it came, and is booked."""
    assert relay.from_server(message) == Passage(to_host=message)
    relay.book()


# --- what passes untouched ---------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}\n',
        b'{"id":1,"method":"resources/read","params":{"uri":"file:///tools"}}\r\n',
        b"not json at all\n",
        b"\n",
        b"\xff\xfe\x00broken\n",
        b'{"id":1,"method":"ping","x":NaN}\n',
        b'[{"id":1,"method":"ping"},{"id":2,"method":"ping"}]\n',
        b'{"id":1,"method":"prompts/get","params":{"name":"\\u00e9"}}\n',
        b'{"id":1,"method":"ping"}',
        b'"ping"\n',
        b'{"method":"notifications/cancelled","params":{"requestId":99}}\n',
        b'{"id":5,"result":{"text":"about tools/call"}}\n',
    ],
)
def test_a_line_that_is_no_call_passes_as_it_came(odd: bytes) -> None:
    books = Books()

    passage = relay_of(books).from_host(odd)

    assert passage.to_server == odd
    assert not passage.to_host
    assert not books.calls


def test_a_call_that_asks_for_no_answer_is_settled_at_once() -> None:
    books = Books()

    relay_of(books).from_host(CALL.replace(b'"id":7,', b""))

    assert len(books.calls[0].answers) == 1


def test_a_call_that_is_admitted_passes_as_it_came() -> None:
    books = Books()

    passage = relay_of(books).from_host(CALL)

    assert passage.to_server == CALL
    assert [(c.tool, c.arguments) for c in books.calls] == [("echo", {"a": 1})]


# --- no way past -------------------------------------------------------------

DISGUISES = {
    "escaped slash": CALL.replace(b"tools/call", b"tools\\/call"),
    "escaped letter": CALL.replace(b"tools/call", b"t\\u006fols/call"),
    "escaped slash as a number": CALL.replace(b"tools/call", b"tools\\u002Fcall"),
    "escaped key": CALL.replace(b'"method"', b'"meth\\u006fd"'),
    "key in another case": CALL.replace(b'"method"', b'"Method"'),
    "parameters in another case": CALL.replace(b'"params"', b'"Params"'),
    "the method twice, last": CALL.replace(b'"id":7', b'"method":"ping","id":7'),
    "the method twice, first": CALL.replace(b'"params"', b'"method":"ping","params"'),
    "method last": line(
        {"params": {"name": "echo", "arguments": {"a": 1}}, "id": 7, "method": "x"}
    ).replace(b'"x"', b'"tools/call"'),
    "in a batch": b"[" + CALL.strip() + b"]\n",
    "with a byte order mark": b"\xef\xbb\xbf" + CALL,
    "with white space": b" \t" + CALL.replace(b":", b" :\t"),
    "with carriage return": CALL.replace(b"\n", b"\r\n"),
    "without a newline": CALL.strip(),
    "with broken text": CALL.replace(b'"a":1', b'"a":"\xff\xfe"'),
    "with a lone surrogate": CALL.replace(b'"a":1', b'"a":"\\ud800"'),
    "with an integer of 5,000 digits": CALL.replace(b":1}", b":" + b"9" * 5_000 + b"}"),
    "with an answer's members": CALL.replace(b'"id":7', b'"result":{},"id":7'),
    "as a notification": CALL.replace(b'"id":7,', b""),
    "with no id": CALL.replace(b'"id":7', b'"id":null'),
    "with parameters of another type": CALL.replace(
        b'{"name":"echo","arguments":{"a":1}}', b"[1]"
    ),
    "with arguments that have names": CALL.replace(b'"a":1', b'"name":1,"Name":2'),
    "with a made-up round": CALL.replace(b'"name"', b'"requestState":"x","name"'),
    "with made-up answers": CALL.replace(b'"name"', b'"inputResponses":{"a":1},"name"'),
}


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES.keys())
def test_a_call_in_disguise_is_paid(disguise: bytes) -> None:
    books = Books()

    passage = relay_of(books).from_host(disguise)

    assert len(books.calls) == 1
    assert passage.to_server == disguise


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES.keys())
def test_a_call_in_disguise_is_refused(disguise: bytes) -> None:
    books = Books(admitted_max=0)

    passage = relay_of(books).from_host(disguise)

    assert passage.to_server == b""
    assert len(books.refused) == 1


@pytest.mark.parametrize(
    "unreadable",
    [
        b"x\r" + CALL,
        CALL.strip() + CALL,
        b'"method": "tools/call",\n',
        b'"method": "tools\\u002fcall",\n',
        CALL.strip()[:-1] + b"\n",
        b"[" * 100_000 + CALL,
        b'"tools/call"\n',
        b'"tools\\u002fcall"\r\n',
        CALL.decode().encode("utf-16"),
        CALL.decode().encode("utf-32"),
        CALL.replace(b"call", b"\\u0063all").decode().encode("utf-16-be"),
        CALL.replace(b'"name"', b'"Name":"dear","name"'),
        CALL.replace(b'"name"', b'"N\\u0061me":"dear","name"'),
        CALL.replace(b'"name"', b'"name":"dear","name"'),
        CALL.replace(b'"name"', b'"n\\u0061me":"dear","name"'),
        b"[[" + CALL.strip() + b"]]\n",
        CALL.replace(b'"params"', b'"params":{"name":"dear"},"params"'),
        CALL.replace(b'"params"', b'"PARAMS":{"name":"dear"},"params"'),
        b'{"params":\r' + CALL.strip() + b"\r}\n",
        b'{"params":\r' + CALL.strip().replace(b"too", b"\\u0074oo") + b"\r}\r\n",
    ],
)
def test_what_speaks_of_a_call_and_cannot_be_read_is_not_passed_on(
    unreadable: bytes,
) -> None:
    """A server that reads more leniently than JSON allows might still find it."""
    books = Books()

    passage = relay_of(books).from_host(unreadable)

    assert passage.to_server == b""
    assert json.loads(passage.to_host)["error"]["code"] == -32700
    assert not books.calls


def test_a_call_that_could_not_be_checked_is_not_passed_on() -> None:
    """Else whatever provokes a failure of ours would be a way past every limit."""
    relay = relay_of(Books())

    passage = relay.undecided(CALL)

    assert passage.to_server == b""
    assert json.loads(passage.to_host)["id"] == 7
    assert json.loads(passage.to_host)["error"]["code"] == -32603
    assert relay.undecided(b'{"id":1,"method":"ping"}\n').to_server


# --- refusals ----------------------------------------------------------------


@pytest.mark.parametrize("key", [0, 7, "seven", -1, 'with "quotes"'])
def test_a_refusal_is_a_tool_result_that_says_why(key: object) -> None:
    passage = relay_of(Books(admitted_max=0)).from_host(call(key))

    [text] = passage.to_host.splitlines()
    message = json.loads(text)
    assert message["id"] == key
    assert type(message["id"]) is type(key)
    result = message["result"]
    assert result["isError"] is True
    assert "guardrails refused it. over" in result["content"][0]["text"]
    assert result["_meta"][REFUSAL_KEY]["error"] == "CallRefused"
    assert "resultType" not in result


def test_a_refusal_names_its_type_where_the_protocol_wants_that() -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}

    passage = relay_of(Books(admitted_max=0)).from_host(call(_meta=meta))

    assert json.loads(passage.to_host)["result"]["resultType"] == "complete"


def test_of_a_batch_only_the_refused_members_are_answered() -> None:
    books = Books(admitted_max=1)
    ping = {"id": 1, "method": "ping"}
    calls = [json.loads(call(key)) for key in (2, 3)]

    passage = relay_of(books).from_host(line([ping, *calls]))

    assert json.loads(passage.to_server) == [ping, calls[0]]
    [refusal] = json.loads(passage.to_host)
    assert refusal["id"] == 3


def test_a_refused_notification_is_answered_by_nothing() -> None:
    passage = relay_of(Books(admitted_max=0)).from_host(
        line({"method": "tools/call", "params": {"name": "echo"}})
    )

    assert (passage.to_server, passage.to_host) == (b"", b"")


# --- settling ----------------------------------------------------------------


def test_the_answer_settles_the_call_once() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call())

    for _ in range(3):  # A server that answers again and again.
        answered(relay, answer(content=[]))

    [settled] = books.calls[0].answers
    assert settled.result == {"content": []}
    assert settled.error_type is None
    assert relay.is_idle


def test_the_next_call_books_the_answers_before_it() -> None:
    """It may only be admitted because of what they have given back."""
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(1))
    relay.from_host(call(2))
    relay.from_server(answer(1))
    relay.from_server(answer(2))
    assert not books.calls[0].answers

    relay.from_host(call(3))

    assert [len(c.answers) for c in books.calls] == [1, 1, 0]
    assert not relay.has_answers


def test_an_answer_comes_before_the_end_of_its_server() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(1))
    relay.from_server(answer(1, content=[]))

    relay.server_is_gone()

    assert [a.result for a in books.calls[0].answers] == [{"content": []}]


def test_a_cancellation_comes_too_late_for_what_was_answered() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(7))
    relay.from_server(answer(7, content=[]))

    relay.from_host(
        line({"method": "notifications/cancelled", "params": {"requestId": 7}})
    )

    assert [a.is_broken_off for a in books.calls[0].answers] == [False]


@pytest.mark.parametrize(
    ("message", "error_type"),
    [
        ({"id": 7, "result": {"isError": True, "content": []}}, "tool_error"),
        ({"id": 7, "error": {"code": -32602, "message": "?"}}, "jsonrpc_error -32602"),
        ({"id": 7, "error": "wrong"}, "jsonrpc_error"),
    ],
)
def test_a_failure_is_booked_as_one(
    message: Mapping[str, object], error_type: str
) -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call())

    answered(relay, line(message))

    assert books.calls[0].answers[0].error_type == error_type


def test_ids_of_two_types_are_two_calls() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(1, tool="number"))
    relay.from_host(call("1", tool="text"))

    answered(relay, answer("1"))

    assert [len(c.answers) for c in books.calls] == [0, 1]


def test_an_answer_under_the_id_as_text_settles_the_call_too() -> None:
    """Some servers keep ids as text, and the clients of both SDKs understand them."""
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(1))
    relay.from_host(call("x"))

    answered(relay, line({"id": "1", "result": {"n": 1}}))
    answered(relay, line({"id": "2", "result": {"n": 2}}))

    assert [[a.result for a in c.answers] for c in books.calls] == [[{"n": 1}], []]
    assert not relay.is_idle  # "x" is not answered.


def test_a_request_of_the_server_settles_nothing() -> None:
    """Both sides number their requests, and the numbers are the same."""
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(7))

    answered(relay, line({"id": 7, "method": "roots/list"}))

    assert not books.calls[0].answers


def test_one_id_for_two_calls_settles_both_in_order() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(7, tool="first"))
    relay.from_host(call(7, tool="second"))

    answered(relay, answer(7, n=1))
    answered(relay, answer(7, n=2))

    assert [c.answers[0].result for c in books.calls] == [{"n": 1}, {"n": 2}]


def test_answers_in_a_batch_settle_each() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(1))
    relay.from_host(call(2))

    answered(relay, line([json.loads(answer(key)) for key in (1, 2)]))

    assert [len(c.answers) for c in books.calls] == [1, 1]


@pytest.mark.parametrize("is_id_last", [True, False])
def test_a_long_answer_settles_without_being_read(*, is_id_last: bool) -> None:
    books = Books()
    relay = relay_of(books)
    digests = []
    for key in (1, 2):
        relay.from_host(call(key))
        result = {"content": [{"text": "x" * READ_BYTES_MAX}], "isError": True}
        message = {"jsonrpc": "2.0", "id": key, "result": result}
        if is_id_last:
            message["id"] = message.pop("id")
        answered(relay, json.dumps(message, separators=(",", ":")).encode() + b"\n")
        digests.append(books.calls[-1].answers[0].edges)

    assert books.calls[0].answers[0].error_type == "tool_error"
    # Alike but for their ids: a loop is seen in long answers, too.
    assert digests[0] == digests[1]


def test_a_cancelled_call_is_booked_as_broken_off() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(7))

    relay.from_host(
        line({"method": "notifications/cancelled", "params": {"requestId": 7}})
    )
    answered(relay, answer(7))

    [settled] = books.calls[0].answers
    assert settled.is_broken_off


def test_calls_that_nobody_will_answer_are_settled() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(1))
    relay.from_host(call(2))

    relay.server_is_gone()
    relay.server_is_gone()

    assert [c.answers[0].error_type for c in books.calls] == ["server_gone"] * 2
    assert [len(c.answers) for c in books.calls] == [1, 1]


def test_a_call_that_never_reached_the_server_is_given_back() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(1))
    passage = relay.from_host(call(2))

    relay.not_written(passage)
    relay.server_is_gone()

    assert [c.is_released for c in books.calls] == [False, True]
    assert not books.calls[1].answers


def test_a_call_that_never_reached_the_server_leaves_another_with_its_id() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(1))

    relay.not_written(relay.from_host(call(1)))
    answered(relay, answer(1))

    assert [len(c.answers) for c in books.calls] == [1, 0]


def test_a_call_that_is_opened_while_the_server_ends_is_not_forgotten() -> None:
    is_opening, may_open = threading.Event(), threading.Event()

    class Slow(Books):
        def open_tool(self, request: ToolRequest, ended: Ended | None = None) -> Call:
            is_opening.set()
            may_open.wait(20)
            return super().open_tool(request, ended)

    books = Slow()
    relay = relay_of(books)
    with ThreadPoolExecutor() as threads:
        opened = threads.submit(relay.from_host, call(1))
        is_opening.wait()
        gone = threads.submit(relay.server_is_gone)
        wait([gone], timeout=0.05)  # It has to wait, so it does not end before.
        may_open.set()
        gone.result()
        opened.result()

    assert [c.answers[0].is_broken_off for c in books.calls] == [True]
    with pytest.raises(BrokenPipeError):
        relay.from_host(call(2))
    assert len(books.calls) == 1


# --- rounds ------------------------------------------------------------------


def test_the_rounds_of_one_call_are_one_call() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(1))
    answered(relay, answer(1, resultType="input_required", requestState="s1"))
    assert books.calls[0].pauses == 1  # A person is asked: no wall time passes.
    relay.from_host(call(2, requestState="s1", inputResponses={"who": {}}))
    answered(relay, answer(2, resultType="input_required", inputRequests={"why": {}}))
    relay.from_host(call(3, inputResponses={"why": {}}))
    answered(relay, answer(3, content=[]))

    [only] = books.calls
    assert [a.result for a in only.answers] == [{"content": []}]
    assert only.pauses == 0


def test_a_server_that_asks_without_end_is_stopped() -> None:
    books = Books(admitted_max=2)
    relay = relay_of(books)
    relay.from_host(call(0))
    for number in range(100):
        answered(relay, answer(number, resultType="input_required", requestState="s"))
        if not relay.from_host(call(number + 1, requestState="s")).to_server:
            break

    assert (len(books.calls), number) == (2, 2 * 11 - 1)


def test_a_round_goes_on_once() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(1))
    answered(relay, answer(1, resultType="input_required", requestState="s1"))

    relay.from_host(call(4, requestState="s1", tool="another"))
    relay.from_host(call(2, requestState="s1"))
    relay.from_host(call(3, requestState="s1"))

    assert len(books.calls) == 3


def test_calls_that_ask_for_the_same_at_once_each_go_on() -> None:
    """A server without states tells them apart by nothing."""
    books = Books()
    relay = relay_of(books)
    for key in (1, 2, 3):
        relay.from_host(call(key))
        asked = {"who": {}}
        answered(relay, answer(key, resultType="input_required", inputRequests=asked))

    for key in (4, 5, 6):
        relay.from_host(call(key, inputResponses={"who": {}}))
        answered(relay, answer(key, content=[]))

    assert [len(c.answers) for c in books.calls] == [1, 1, 1]


def test_a_call_that_waits_for_input_is_booked_when_the_server_is_gone() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(1))
    asked = {"think": {"method": "sampling/createMessage", "params": {}}}
    reply = answer(1, resultType="input_required", inputRequests=asked)
    answered(relay, reply)

    relay.server_is_gone()

    assert [[a.is_broken_off for a in c.answers] for c in books.calls] == [[True]] * 2
    assert books.calls[0].pauses == 0


# --- sampling ----------------------------------------------------------------

ASK = line({"id": 9, "method": "sampling/createMessage", "params": {"maxTokens": 5}})


def test_sampling_that_the_server_takes_back_is_over() -> None:
    """Nobody answers it, and until then the wall time of its session would pass."""
    books = Books()
    relay = relay_of(books)
    relay.from_server(ASK)

    cancel = {"method": "notifications/cancelled", "params": {"requestId": 9}}
    answered(relay, line(cancel))
    relay.from_host(answer(9, model="m"))

    assert [a.is_broken_off for a in books.calls[0].answers] == [True]


def test_sampling_is_a_model_call_that_the_hosts_answer_settles() -> None:
    books = Books()
    relay = relay_of(books)

    answered(relay, ASK)
    relay.from_host(answer(9, model="m"))

    assert books.calls[0].answers[0].result == {"model": "m"}


@pytest.mark.parametrize(
    "method",
    [
        b"sampling/createMessage",
        b"sampling\\/createMessage",
        b"s\\u0061mpling/createMessage",
    ],
)
def test_refused_sampling_is_answered_as_rejected(method: bytes) -> None:
    relay = relay_of(Books(admitted_max=0))

    passage = relay.from_server(ASK.replace(b"sampling/createMessage", method))

    assert passage.to_host == b""
    assert json.loads(passage.to_server)["error"]["code"] == -1


DEEP = b"[" * 50_000 + b"]" * 50_000


@pytest.mark.parametrize(
    "ask",
    [
        b'{"id":9,"method":"sampling/createMessage","params":{"metadata":%b}}\n',
        b'{"params":{"metadata":%b},"method":"sampling/createMessage","id":9}\n',
    ],
)
def test_sampling_too_deep_to_be_read_is_not_passed_on(ask: bytes) -> None:
    """The SDK in TypeScript reads any depth, and would ask the model for nothing."""
    relay = relay_of(Books())

    passage = relay.from_server(ask % DEEP)

    assert passage.to_host == b""
    refusal = json.loads(passage.to_server)
    assert refusal["id"] == 9
    assert "too deeply" in refusal["error"]["message"]


@pytest.mark.parametrize(
    "part",
    [
        b'"method": "sampling/createMessage",\n',
        b'"sampling\\/createMessage"\n',
        b'"sampling/create\\u004dessage"\n',
        ASK.strip() + ASK,
    ],
)
def test_sampling_over_several_lines_is_not_passed_on(part: bytes) -> None:
    """The SDK in Go would make one request of them."""
    books = Books()

    assert relay_of(books).from_server(part) == Passage()
    assert not books.calls


def test_what_a_server_logs_of_sampling_passes_as_it_came() -> None:
    answered(relay_of(Books()), b"INFO sampling/createMessage took 2 s\n")


@pytest.mark.parametrize("text", [b"", b"createMessage"])
def test_an_answer_too_deep_to_be_read_ends_its_call(text: bytes) -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(7))

    passage = relay.from_server(b'{"id":7,"result":{"a":"%b","b":%b}}\n' % (text, DEEP))
    relay.book()

    assert len(books.calls[0].answers) == 1
    assert (b"withheld" in passage.to_host) == bool(text)


def asking(key: object = 7, **requests: object) -> bytes:
    """An answer that asks for input, as servers do since 2026-07-28."""
    return answer(
        key, resultType="input_required", requestState="s1", inputRequests=requests
    )


MODEL = {"method": "sampling/createMessage", "params": {"maxTokens": 5}}
PERSON = {"method": "elicitation/create", "params": {}}


def test_what_an_answer_asks_of_the_model_is_a_model_call() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(7))
    line_of_server = asking(who=MODEL, why=PERSON)

    answered(relay, line_of_server)
    assert [c.tool for c in books.calls] == ["echo", "sampling"]
    assert not books.calls[1].answers
    relay.from_host(
        call(8, requestState="s1", inputResponses={"who": {"model": "m"}, "why": {}})
    )
    answered(relay, answer(8, content=[]))

    assert [len(c.answers) for c in books.calls] == [1, 1]
    assert books.calls[1].answers[0].result == {"model": "m"}


def test_what_the_model_is_not_asked_costs_nothing() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(7))
    answered(relay, asking(who=MODEL))

    relay.from_host(call(8, requestState="s1"))

    assert books.calls[1].answers[0].error_type == "not_answered"


def test_an_answer_that_asks_too_much_of_the_model_is_refused() -> None:
    """The host gets a refusal in its place, and the call is over."""
    books = Books(admitted_max=2)
    relay = relay_of(books)
    relay.from_host(call(7))

    passage = relay.from_server(asking(one=MODEL, two=MODEL))

    relay.book()
    message = json.loads(passage.to_host)
    assert message["id"] == 7
    assert message["result"]["isError"] is True
    assert message["result"]["resultType"] == "complete"
    assert books.calls[1].is_released
    assert books.calls[0].answers[0].error_type == "tool_error"
    assert relay.is_idle


def test_an_answer_to_nothing_asks_nothing_of_the_model() -> None:
    books = Books()

    relay_of(books).from_server(asking(who=MODEL))

    assert books.calls[0].is_released


def test_what_two_answers_to_one_id_ask_of_the_model_is_booked() -> None:
    """The host was asked both times, and may have asked its model both times."""
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(7))
    relay.from_host(call(7))

    relay.from_server(asking(who=MODEL))
    relay.from_server(asking(who=MODEL))
    relay.server_is_gone()

    assert [len(c.answers) for c in books.calls] == [1, 1, 1, 1]
    assert all(c.answers[0].is_broken_off for c in books.calls)


def test_what_an_answer_without_a_readable_id_asks_is_booked_at_the_end() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(2.5))
    text = {"text": "x" * READ_BYTES_MAX}
    relay.from_server(answer(2.5, inputRequests={"who": MODEL}, content=[text]))

    relay.server_is_gone()

    assert [len(c.answers) for c in books.calls] == [1, 1]


# --- long lines --------------------------------------------------------------


def test_an_answer_that_is_too_long_ends_its_call_with_an_error() -> None:
    books = Books()
    relay = relay_of(books)
    relay.from_host(call(7))

    passage = relay.from_server(Oversized(b'{"jsonrpc":"2.0","id":7,"re', b"x}", 9_999))

    message = json.loads(passage.to_host)
    assert message["id"] == 7
    assert message["result"]["isError"] is True
    assert "9,999 bytes" in message["result"]["content"][0]["text"]
    assert books.calls[0].answers[0].error_type == "answer_too_long"


def test_a_call_that_is_too_long_is_answered_and_not_passed_on() -> None:
    books = Books()

    passage = relay_of(books).from_host(Oversized(CALL[:60], b"}}\n", 9_999))

    assert passage.to_server == b""
    assert json.loads(passage.to_host)["result"]["isError"] is True
    assert not books.calls
