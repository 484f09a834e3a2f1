"""The pumps: bytes go on while the ledger takes its time."""

import os
import threading
from dataclasses import dataclass, field

from guardrails_mcp.stdio.messages import ToolRequest
from guardrails_mcp.stdio.meters import Answer, Ended
from guardrails_mcp.stdio.pumps import Ends, Pipe, pump_server
from tests.integrations.mcp_relay.metering import BYTES_MAX, Books, Call, relay_of

CALL = b'{"id":1,"method":"tools/call","params":{"name":"echo"}}\n'
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{}}\n'
NEWS = b'{"jsonrpc":"2.0","method":"notifications/message"}\n'


class SlowBooks(Books):
    """Books that wait until somebody lets them go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begins, self.goes_on = threading.Event(), threading.Event()

    def open_tool(self, request: ToolRequest, ended: Ended | None = None) -> Call:
        return self._open(SlowCall(request.tool, books=self))


@dataclass
class SlowCall(Call):
    """A call in them."""

    books: SlowBooks = field(kw_only=True)

    def settle(self, answer: Answer) -> None:
        self.books.begins.set()
        assert self.books.goes_on.wait(10)
        super().settle(answer)


def test_what_a_server_writes_passes_while_an_answer_is_booked() -> None:
    """And all is booked before its host sees the end."""
    books = SlowBooks()
    relay = relay_of(books)
    relay.from_host(CALL)
    from_server, server_out = os.pipe()
    from_proxy, host_out = os.pipe()
    null = Pipe(os.open(os.devnull, os.O_WRONLY))
    ends = Ends(relay=relay, server=null, host=Pipe(host_out), bytes_max=BYTES_MAX)
    pump = threading.Thread(target=pump_server, args=(from_server, ends))
    pump.start()

    os.write(server_out, ANSWER)
    assert books.begins.wait(10)
    os.write(server_out, NEWS)
    passed = b""
    while len(passed) < len(ANSWER + NEWS):
        passed += os.read(from_proxy, BYTES_MAX)
    books.goes_on.set()
    os.close(server_out)
    assert os.read(from_proxy, BYTES_MAX) == b""
    booked = len(books.calls[0].answers)
    pump.join(10)
    os.close(from_proxy)
    null.close()

    assert (passed, booked) == (ANSWER + NEWS, 1)
