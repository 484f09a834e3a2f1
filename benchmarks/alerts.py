"""Alerts: whether an agent's calls notice what a receiver of alerts does.

Two guards take turns, one without alerts and one whose alerts go to a receiver on this
machine that behaves badly. Before each round a session of both crosses a threshold, so
that there always is an alert on its way; the calls that are timed cross none.
"""

import logging
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measuring import line
from guardrails import Guard, Session

ROUNDS = 40
CALLS = 50

SECRET = "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnRlcjI="

Talk = Callable[[socket.socket, threading.Event], None]


def measure_alerts() -> Iterator[str]:
    """Yields a line for each way in which a receiver can behave."""
    logging.getLogger("guardrails").setLevel(logging.CRITICAL)
    for name, talk in BEHAVIOURS.items():
        # A message in flight may outlast its guard, and note what came of it.
        with (
            TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            ExitStack() as stack,
        ):
            url = stack.enter_context(_receiver(talk))
            plain = _Agent(Path(folder) / "plain.sqlite3", url=None)
            alerted = _Agent(Path(folder) / "alerted.sqlite3", url=url)
            for number in range(ROUNDS):
                for agent in (plain, alerted):
                    agent.cross(number)
                    agent.work()
            for agent in (plain, alerted):
                agent.close()
        for what, part in (("p50", 50), ("p99", 99)):
            base, found = (_percentile(a.times, part) for a in (plain, alerted))
            yield line(
                f"call, receiver: {name}, {what}",
                f"{found:.0f} us",
                f"{base:.0f} us",
                found / base,
                "1, within noise",
            )


class _Agent:
    """A session that goes on, and others that cross a threshold."""

    def __init__(self, file: Path, *, url: str | None) -> None:
        webhook = {"url": url, "secret": SECRET} | dict.fromkeys(
            ("allow_http", "allow_private"), True
        )
        self._guard = Guard(
            {
                "defaults": {"session": {"soft_alert_usd": "0.01"}},
                "alerts": {"webhook": webhook, "cooldown_s": 0} if url else {},
            },
            store=f"sqlite:///{file}",
        )
        self._session: Session = self._guard.session("agent", session_id="long")
        self._session.__enter__()
        self._call("0.02")  # Crosses the only threshold of this session.
        self.times: list[float] = []

    def cross(self, number: int) -> None:
        """Has people told of another session."""
        with self._guard.session("other", session_id=f"short-{number}"):
            self._call("0.02")

    def work(self) -> None:
        """Makes the calls that are timed."""
        for _ in range(CALLS):
            start = time.perf_counter_ns()
            self._call("0.000001")
            self.times.append((time.perf_counter_ns() - start) / 1000)

    def close(self) -> None:
        """Ends it; what waits to be sent is given up after two seconds."""
        self._session.__exit__(None, None, None)
        self._guard.close()

    def _call(self, cost_usd: str) -> None:
        with self._guard.call(tool="tool", cost_usd=cost_usd):
            pass


def _percentile(times: list[float], part: int) -> float:
    return statistics.quantiles(times, n=100)[part - 1]


@contextmanager
def _receiver(talk: Talk | None) -> Iterator[str]:
    """Starts a receiver, and ends it; `None` is a port that nobody listens at."""
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/alerts"
    if talk is None:
        listening.close()
        yield url
        return
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65_536)
            talk(connection, over)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield url
    finally:
        over.set()
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def _answers(status: str, *headers: str, body: bytes = b"ok") -> Talk:
    def talk(connection: socket.socket, _: threading.Event) -> None:
        head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
        connection.sendall("\r\n".join(head).encode() + body)

    return talk


def _hangs(_: socket.socket, over: threading.Event) -> None:
    over.wait()


def _drips(connection: socket.socket, over: threading.Event) -> None:
    for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok":
        if over.wait(0.2):
            return
        connection.sendall(bytes([byte]))


def _floods(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n")
    while not over.is_set():
        connection.sendall(bytes(65_536))


def _resets(connection: socket.socket, _: threading.Event) -> None:
    linger = (1).to_bytes(4, "little") + bytes(4)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


BEHAVIOURS: Mapping[str, Talk | None] = {
    "200": _answers("200 OK"),
    "204": _answers("204 No Content", body=b""),
    "HTML": _answers("200 OK", "content-type: text/html", body=b"<html>" * 1_000),
    "429, Retry-After": _answers("429 Too Many Requests", "retry-after: 1"),
    "500": _answers("500 Internal Server Error"),
    "301": _answers("301 Moved Permanently", "location: http://127.0.0.1:1/"),
    "308": _answers("308 Permanent Redirect", "location: http://127.0.0.1:1/"),
    "never answers": _hangs,
    "drips": _drips,
    "10 GB": _floods,
    "resets": _resets,
    "closed port": None,
}
